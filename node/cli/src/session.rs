//! A connected client, and how its failures become exit codes.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use driftless_client::{
    Bucket, Cause, Client, ClientBuilder, ConnectError, ConnectFailure, Context, Identity, IoRuntime, Outcome, Profile,
    Refusal, RequestError, StatusError, Topology,
};

use super::exit::{Exit, Failure, Result};
use super::global::GlobalArgs;
use super::profile::Access;

/// Which bucket.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BucketArg {
    /// The bucket
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) bucket: String,
}

impl BucketArg {
    /// For commands that are printed to be typed.
    pub(crate) fn flag(&self) -> String {
        if self.bucket == "default" { String::new() } else { format!(" -b {}", self.bucket) }
    }
}

/// Connects to the cluster that the flags name, runs a command's conversation, and says goodbye.
pub(crate) fn run<T>(global: &GlobalArgs, conversation: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
    run_with(global, Profile::new(), conversation, |_| None)
}

/// The same with other defaults for the requests, and with something to say if no seed answers.
pub(crate) fn run_with<T>(
    global: &GlobalArgs,
    profile: Profile,
    conversation: impl AsyncFnOnce(&Client) -> Result<T>,
    nobody: impl FnOnce(&Access) -> Option<Result<T>>,
) -> Result<T> {
    run_as(&global.cluster.access()?, global.cluster.timeout, profile, conversation, nobody)
}

/// The same with whatever says where the cluster is and who we are.
pub(crate) fn run_as<T>(
    access: &Access,
    timeout: Option<Duration>,
    mut profile: Profile,
    conversation: impl AsyncFnOnce(&Client) -> Result<T>,
    nobody: impl FnOnce(&Access) -> Option<Result<T>>,
) -> Result<T> {
    if let Some(timeout) = timeout {
        profile = profile.timeout(timeout);
    }
    runtime()?.block_on(async {
        let client = match connect_on(access, profile, IoRuntime::Caller).await? {
            Ok(client) => client,
            Err(error) if is_silence(&error) => {
                return nobody(access).unwrap_or_else(|| Err(connect_failure(access, &error)));
            }
            Err(error) => return Err(connect_failure(access, &error)),
        };
        let result = conversation(&client).await;
        say_goodbye(client).await;
        result
    })
}

/// A client for who goes on asking until somebody answers.
pub(crate) struct Found {
    pub(crate) client: Client,
    /// That nobody is there yet.
    pub(crate) nobody: Option<Failure>,
}

/// Connects, or makes a client that does once somebody is there. What waiting does not change is an error at once.
pub(crate) async fn find(access: &Access, profile: Profile) -> Result<Found> {
    match connect_on(access, profile.clone(), IoRuntime::Caller).await? {
        Ok(client) => Ok(Found { client, nobody: None }),
        Err(error) if is_silence(&error) => {
            let client = builder(access, profile, IoRuntime::Caller)?.connect_lazy();
            let client = client.map_err(|error| connect_failure(access, &error))?;
            Ok(Found { client, nobody: Some(connect_failure(access, &error)) })
        }
        Err(error) => Err(connect_failure(access, &error)),
    }
}

/// The nodes would notice by themselves after some seconds.
pub(crate) async fn say_goodbye(client: Client) {
    let _ = tokio::time::timeout(GOODBYE_MAX, client.close()).await;
}

/// One thread: a command has one conversation, and the load generator is fastest so.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))
}

/// Connects with an I/O thread, for a caller that blocks now and then.
pub(crate) async fn connect_on_own_thread(access: &Access) -> Result<Client> {
    connect_on(access, Profile::new(), IoRuntime::Own).await?.map_err(|error| connect_failure(access, &error))
}

/// A command is one task at a time and connects on its own runtime: an I/O thread would only add wake-ups.
async fn connect_on(
    access: &Access,
    profile: Profile,
    runtime: IoRuntime,
) -> Result<std::result::Result<Client, ConnectError>> {
    Ok(builder(access, profile, runtime)?.connect().await)
}

fn builder(access: &Access, mut profile: Profile, runtime: IoRuntime) -> Result<ClientBuilder> {
    let identity = Identity::from_pem_files(&access.ca, &access.cert, &access.key)
        .map_err(|error| Failure::failed(error).hint("check --ca, --cert and --key, or the profile that names them"))?;
    if let Some(endpoint) = &access.endpoint {
        profile = profile.via(endpoint);
    }
    Ok(Client::builder()
        .seeds(access.seeds.iter().map(String::as_str))
        .identity(identity)
        .profile(profile)
        .io_runtime(runtime))
}

fn connect_failure(access: &Access, error: &ConnectError) -> Failure {
    let failure = Failure::failed(error);
    if !is_silence(error) {
        return failure;
    }
    failure.hint(match &access.dev_dir {
        // Without the directory it would start another cluster, with nothing in it.
        Some(dir) => format!("are the nodes running? `driftless dev --dir {}` starts them again", dir.display()),
        None => "are the nodes running? `driftless serve --config FILE` starts one".to_owned(),
    })
}

/// Whether simply nobody is there.
fn is_silence(error: &ConnectError) -> bool {
    let silent =
        |error: &RequestError| matches!(error.cause(), Cause::NotConnected { failure, .. } if failure.is_unreachable());
    matches!(error, ConnectError::NoSeedAnswered { failures } if failures.iter().all(|(_, error)| silent(error)))
}

/// The ring and the buckets.
pub(crate) fn topology(client: &Client) -> Arc<Topology> {
    client.topology().expect("every command connects before it asks, and connecting is hearing of the topology")
}

/// The bucket, for a command that makes many requests: that there is none is said once, before the first.
pub(crate) fn existing_bucket(client: &Client, arg: &BucketArg) -> Result<Bucket> {
    if topology(client).bucket_named(&arg.bucket).is_none() {
        return Err(no_such_bucket(&arg.bucket));
    }
    Ok(bucket(client, arg))
}

pub(crate) fn no_such_bucket(name: &str) -> Failure {
    Failure::new(Exit::Refused, format_args!("there is no bucket \"{name}\""))
        .hint("`driftless bucket list` shows those that exist")
}

/// A bucket of a cluster.
pub(crate) fn bucket(client: &Client, arg: &BucketArg) -> Bucket {
    client.bucket(&arg.bucket)
}

/// For clap: a context token.
pub(crate) fn parse_context(text: &str) -> std::result::Result<Context, String> {
    text.parse().map_err(|error: driftless_proto::ContextError| error.to_string())
}

/// A failed request as an exit code: refused, unknown, or failed before anybody was asked.
pub(crate) fn request_failure(
    message: impl std::fmt::Display,
    outcome: Outcome,
    request: Option<&RequestError>,
) -> Failure {
    if let Some(Cause::NoSuchBucket(name)) = request.map(RequestError::cause) {
        return no_such_bucket(name);
    }
    let exit = match request {
        // The call itself was not in order; nothing was sent.
        None => Exit::Refused,
        Some(_) if outcome == Outcome::Unknown => Exit::Unknown,
        Some(request) => match request.cause() {
            Cause::Refused { .. } | Cause::NoSuchNode(_) | Cause::TooLong(_) => Exit::Refused,
            // A read changes nothing; but whether there is something to read is not known.
            Cause::Unknown { .. } | Cause::TimedOut { .. } | Cause::ConnectionLost { .. } => Exit::Unknown,
            _ => Exit::Failed,
        },
    };
    Failure::new(exit, message)
}

/// The failure, if the node refuses because of who asks: it has answered then, and others will answer the same.
pub(crate) fn not_allowed(error: &StatusError) -> Option<Failure> {
    let refusal = error.refusal().filter(|refusal| matches!(refusal, Refusal::NotAllowed { .. }))?;
    Some(Failure::new(Exit::Refused, refusal))
}

/// Whether the node is of a release that does not know what it was asked.
pub(crate) fn is_of_older_release(error: &StatusError) -> bool {
    let cause = error.request().map(|request| request.cause());
    matches!(cause, Some(Cause::NotConnected { failure: ConnectFailure::Protocol { .. }, .. }))
}

/// What nodes have said, unless none has done what was asked and some have refused because of who asks.
pub(crate) fn unless_denied<T>(
    nodes: Vec<T>,
    not_allowed: RefCell<Vec<Failure>>,
    has_obeyed: impl Fn(&T) -> bool,
) -> Result<Vec<T>> {
    match not_allowed.into_inner().pop() {
        Some(denied) if !nodes.iter().any(has_obeyed) => Err(denied),
        _ => Ok(nodes),
    }
}

/// Long enough for the goodbye to leave this process. Waiting until it is heard would triple the time of a command.
const GOODBYE_MAX: Duration = Duration::from_millis(20);

/// `error.into_failure()` for the errors of every operation.
pub(crate) trait IntoFailure {
    /// As an exit code and a message.
    fn into_failure(self) -> Failure;
}

macro_rules! into_failure {
    ($($error:ty),*) => {$(
        impl IntoFailure for $error {
            fn into_failure(self) -> Failure {
                request_failure(&self, self.outcome(), self.request())
            }
        }
    )*};
}

into_failure!(
    driftless_client::PutError,
    driftless_client::GetError,
    driftless_client::DeleteError,
    driftless_client::ScanError,
    driftless_client::StatusError
);
