//! `driftless serve`: one node, from its configuration to its last sync.

mod data;
pub(crate) mod log;
mod reload;
mod service_manager;
mod stop;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use driftless_node::config::{Access, ConfigError, NodeConfig, Override, read_cluster, read_context_keys};
use driftless_node::metrics::Metrics;
use driftless_node::net::limits::NetLimits;
use driftless_node::net::tls::{TlsFiles, TlsIdentity};
use driftless_node::node::{CredentialFiles, Node, NodeSettings, Security};
use driftless_node::store::directory::DataDirectory;
use driftless_proto::Topology;
use driftless_ring::Member;
use rustix::fs::Mode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::audit::AuditFile;
use super::descriptors;
use super::exit::{Failure, Result};
use super::members::members;
use super::output;
use data::{Data, Part, open_directory, unless_stopped};
pub(crate) use data::{expected_identity, no_data};
use log::Log;
use reload::Reload;
use service_manager::ServiceManager;
use stop::StopSignals;

/// Every key of the configuration can also be set by an environment variable: limits.requests_max by
/// DRIFTLESS__LIMITS__REQUESTS_MAX. --ca, --cert and --key override `[tls]`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The node's file
    #[arg(long, value_name = "FILE", default_value = "node.toml")]
    config: PathBuf,
    /// This node's name, as in its certificate
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where the data lives
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// UDP address to listen on [default: the one at which others reach it]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// TCP address of metrics and status, or `off`
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,
    /// The cluster file: who founds the cluster, and whom to call at a start
    #[arg(long, value_name = "FILE")]
    cluster: Option<String>,
    /// Certificates of the cluster's authority
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The node's certificate
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Any other key, as in --set limits.requests_max=1000
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_assignment)]
    set: Vec<(String, String)>,
    /// Make the data directory if there is none: for the first start of a node, also of one that is to join, and for one whose disk
    /// was lost
    #[arg(long)]
    init: bool,
    /// Print the configuration with where each value came from, and do not start
    #[arg(long)]
    print_config: bool,
    /// Stop when standard input closes, as it does when the process that started this one ends
    #[arg(long)]
    exit_with_parent: bool,
}

/// Runs one node until SIGTERM, SIGINT or a failure.
pub(crate) fn run(args: &Args) -> Result {
    let read = {
        let (path, overrides) = (args.config.clone(), overrides(args));
        move || NodeConfig::read(&path, environment(), &overrides).map_err(Failure::from)
    };
    let config = read()?;
    if args.print_config {
        return output::line(config.print().trim_end());
    }
    if let Some(refused) = config.trace.refused() {
        return Err(Failure::usage(refused));
    }
    let audit = config.audit.file.as_deref().map(open_audit).transpose()?;
    // To the end of this function: what is recorded of the last requests is sent then.
    let (_exporter, traces) = exporter(&config)?;
    let log = Log::start(&config.log, audit.clone(), traces)?;
    let reload = Reload::new(config.clone(), read, log, audit);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    // From here on signals are taken, also while the store is being opened: as the first process of a container, this one would not
    // end by them otherwise.
    let (mut stop, hangup) = {
        let _entered = runtime.enter();
        let hangup = signal(SignalKind::hangup())
            .map_err(|error| Failure::failed(format_args!("cannot listen to signals: {error}")))?;
        (StopSignals::listen(args.exit_with_parent)?, hangup)
    };
    if let Some(limit) = descriptors::raise_limit().filter(|limit| *limit < descriptors::ADVISED) {
        let advised = descriptors::ADVISED;
        tracing::warn!(
            limit,
            advised,
            "this process may have few files open at once, and a node whose store can open few more takes no writes: \
            raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
    let founding = Arc::new(read_cluster(&config.cluster)?);
    check_named(&config, &founding)?;
    let files = TlsFiles { ca: config.tls_ca.clone(), cert: config.tls_cert.clone(), key: config.tls_key.clone() };
    let tls = files.clone();
    let files = CredentialFiles::watch(files, config.context_key.clone(), config.access.clone());
    let context_keys = read_context_keys(&config.context_key)?;
    let tls = TlsIdentity::load(&tls, SystemTime::now()).map_err(Failure::failed)?;
    tls.expect_node(founding.cluster(), &config.name).map_err(Failure::failed)?;

    // What the storage engine makes is for this user alone, wherever the directory is.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if !args.init && DataDirectory::would_be_made(&config.data_dir) {
        return Err(no_data(&config.data_dir, &config.name));
    }
    let directory = Arc::new(open_directory(&config.data_dir, founding.cluster(), &config.name)?);
    let Part { topology, member } = Part::of(&config, &directory, &founding)?;
    let access = match &config.access {
        Some(file) => {
            let access = Access::read(file)?;
            // Of a node that was alone they may be buckets that it hears of once it is among the others.
            for unknown in access.unknown_buckets(&topology) {
                tracing::warn!(file = %file.display(), unknown, "the access file allows nothing there");
            }
            access
        }
        None => Access::default(),
    };
    let listen = match config.listen {
        Some(listen) => listen,
        None => resolve(&member)?,
    };
    let open = {
        let (config, directory, shards) = (config.clone(), directory.clone(), member.shards);
        let partitions = topology.ring().partitions().get();
        move || Data::open(&config, &directory, partitions, shards)
    };
    let mut manager = ServiceManager::of_this_process();
    manager.tell_status("opening the store");
    let Some(Data { stores, syncer }) = runtime.block_on(unless_stopped(open, &mut stop))? else {
        return Ok(());
    };
    let settings = NodeSettings {
        name: member.name.clone(),
        listen,
        admin: config.admin,
        tls,
        security: Security {
            access,
            files: Some(files),
            audit_keys: config.audit.keys,
            admin_remote: config.admin_remote,
        },
        topology: founding,
        member: Some(member.clone()),
        store: directory.store_id(),
        agreement: Some(directory.clone()),
        context_keys,
        limits: config.limits,
        net: NetLimits {
            memory: config.memory,
            client_requests_max: config.client_requests_max,
            traces_per_second: config.trace.per_second,
            ..NetLimits::default()
        },
        incarnation: directory.incarnation(),
        lives: Some(directory.clone()),
        reset_key: *directory.reset_key(),
        metrics: Arc::new(Metrics::default()),
    };
    if directory.is_after_crash() {
        settings.metrics.started_after_crash.set(1);
        tracing::warn!(
            node = member.name,
            "the node that ran here before did not stop in order: it was killed, or ended by itself, and said why above if it could"
        );
    }
    runtime.block_on(async {
        let node = Node::start(settings, stores, syncer).map_err(Failure::failed)?;
        note_running(&directory, true);
        let admin =
            node.admin_address().map_or(String::new(), |address| format!(", metrics and status on http://{address}"));
        output::line(format_args!("ready: {} serves on {listen} (UDP){admin}", member.name))?;
        manager.tell_ready();
        serve_until(node, stop, hangup, reload, manager).await
    })?;
    note_running(&directory, false);
    Ok(())
}

/// What sends traces to a collector, if one is named.
#[cfg(feature = "otel")]
fn exporter(config: &NodeConfig) -> Result<(Option<crate::otel::Exporter>, log::Traces)> {
    let Some(endpoint) = &config.trace.endpoint else { return Ok((None, None)) };
    let (exporter, layer) = crate::otel::exporter(endpoint, &config.trace.service_name, Some(&config.name))?;
    Ok((Some(exporter), Some(Box::new(layer))))
}

#[cfg(not(feature = "otel"))]
fn exporter(_: &NodeConfig) -> Result<((), log::Traces)> {
    Ok(((), None))
}

/// For the next start, which is to tell a crash from a stop in order. Nothing rests on it.
fn note_running(directory: &DataDirectory, running: bool) {
    if let Err(error) = directory.note_running(running) {
        tracing::warn!(%error, "the next start will not know how this node ended");
    }
}

async fn serve_until(
    node: Node,
    mut stop: StopSignals,
    mut hangup: Signal,
    mut reload: Reload,
    mut manager: ServiceManager,
) -> Result {
    let mut looks = tokio::time::interval(manager.look_every());
    // Whatever a disk makes of it: signs of life, the end of the node and signals are not to wait for files.
    let mut reading = None;
    let why = loop {
        tokio::select! {
            why = stop.wait() => break Some(why),
            () = node.ended() => break None,
            Some(()) = hangup.recv(), if reading.is_none() => {
                manager.tell_reloading();
                reading = Some(Box::pin(reload.read(&node)));
            }
            read = of(&mut reading) => {
                reading = None;
                reload.take(&node, read);
                manager.tell_ready();
            }
            _ = looks.tick(), if manager.is_there() => manager.tell_how_it_stands(&node),
        }
    };
    drop(reading);
    stop::join(node, why, &mut stop, &mut manager).await
}

/// What comes of what is under way; never, if nothing is.
async fn of<F: Future + Unpin>(under_way: &mut Option<F>) -> F::Output {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// A node that neither the cluster file nor its own says where to reach must have joined before.
pub(crate) fn check_named(config: &NodeConfig, founding: &Topology) -> std::result::Result<(), ConfigError> {
    let is_named = founding.ring().member_by_name(&config.name).is_some() || config.address.is_some();
    if is_named || DataDirectory::may_have_agreement(&config.data_dir) {
        return Ok(());
    }
    Err(not_a_member(config, founding))
}

fn not_a_member(config: &NodeConfig, founding: &Topology) -> ConfigError {
    let members: Vec<String> = members(founding).map(|member| member.name).collect();
    let (path, name) = (config.cluster.clone(), config.name.clone());
    ConfigError::NotAMember { path, name, members: members.join(", ") }
}

fn resolve(member: &Member) -> Result<std::net::SocketAddr> {
    use std::net::ToSocketAddrs;
    let found = member.address.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| {
        Failure::failed(format_args!("the address {} of member {} cannot be resolved", member.address, member.name))
            .hint("set `listen` in the node's file to an IP address and port of this machine")
    })
}

/// What the environment says, as far as it is text: variables of a node are.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn open_audit(path: &Path) -> Result<Arc<AuditFile>> {
    let opened = AuditFile::open(path);
    let failed = |error| Failure::failed(format_args!("cannot write the audit file {}: {error}", path.display()));
    opened.map(Arc::new).map_err(failed)
}

fn overrides(args: &Args) -> Vec<Override> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let flags = [
        ("name", "--name", args.name.clone()),
        ("data_dir", "--data-dir", args.data_dir.clone()),
        ("listen", "--listen", args.listen.clone()),
        ("admin", "--admin", args.admin.clone()),
        ("cluster", "--cluster", args.cluster.clone()),
        ("tls.ca", "--ca", path(&args.ca)),
        ("tls.cert", "--cert", path(&args.cert)),
        ("tls.key", "--key", path(&args.key)),
    ];
    let named = flags
        .into_iter()
        .filter_map(|(key, flag, value)| Some(Override { key: key.to_owned(), value: value?, flag: flag.to_owned() }));
    let set = args.set.iter().map(|(key, value)| Override {
        key: key.clone(),
        value: value.clone(),
        flag: format!("--set {key}"),
    });
    named.chain(set).collect()
}

fn parse_assignment(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err("expected KEY=VALUE, as in limits.requests_max=1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_has_two_sides() {
        assert_eq!(parse_assignment("log.level = debug"), Ok(("log.level".to_owned(), "debug".to_owned())));
        assert!(parse_assignment("log.level").is_err());
    }
}
