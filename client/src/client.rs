//! The client: built once, shared by everything that speaks to the cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use driftless_proto::client::{
    AaeCommand, AaeStatus, DamagedKeys, DrainCommand, DrainStatus, HintsFor, NodeStatus, Request, Response, Restore,
    Restored,
};
use driftless_proto::figures::Figures;
use driftless_proto::key::Key;
use driftless_proto::membership::{ClusterAnswer, ClusterCommand};
use driftless_proto::top::{Top, TopCommand};
use driftless_proto::{BucketDefinition, Topology};
use tokio::runtime::Handle;

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::cluster;
use crate::counts;
use crate::entry::Entry;
use crate::environment::Environment;
use crate::error::{ClusterError, ConnectError, StatusError};
use crate::identity::Identity;
use crate::inner::Inner;
use crate::io::Io;
use crate::options::{CONNECT_TIMEOUT, IN_FLIGHT_MAX, IoRuntime, Profile, Settings};
use crate::router::Route;

/// A connection to a cluster. Cheap to clone; all clones share connections, ring and limits.
///
/// Connections to nodes are made when they are first needed, shared by all requests, and made anew when they are
/// lost. When the last clone is dropped they are closed.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Says how to reach a cluster. See [`Client::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `.connect().await`"]
pub struct ClientBuilder {
    seeds: Vec<String>,
    identity: Option<Identity>,
    profile: Profile,
    runtime: IoRuntime,
    in_flight_max: Option<usize>,
    connect_timeout: Option<Duration>,
    cluster_wait: Duration,
    environment: Environment,
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A bucket by its name. Nothing is asked: a bucket that does not exist is an error of the first request.
    pub fn bucket(&self, name: impl AsRef<str>) -> Bucket {
        Bucket::new(Arc::clone(&self.inner), Arc::from(name.as_ref()), Arc::clone(&self.inner.settings))
    }

    /// The ring and the buckets, as this client last heard of them. `None` only before a client of
    /// [`connect_lazy`](ClientBuilder::connect_lazy) has heard from any node.
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.inner.known().map(|snapshot| Arc::clone(&snapshot.topology))
    }

    /// The buckets that there are, asked of a node now.
    ///
    /// # Errors
    /// [`StatusError`] if no node answers.
    pub async fn buckets(&self) -> Result<Vec<BucketDefinition>, StatusError> {
        Ok(self.refresh_topology().await?.buckets().to_vec())
    }

    /// Fetches the ring and the buckets again. Seldom needed: a newer ring is learned from any answer.
    ///
    /// # Errors
    /// [`StatusError`] if no node answers.
    pub async fn refresh_topology(&self) -> Result<Arc<Topology>, StatusError> {
        let clock = Clock::start(self.inner.settings.timeout);
        let refreshed = self.inner.refresh(clock).await?;
        Ok(Arc::clone(&refreshed.topology))
    }

    /// What a node says of itself. The node is given by its name or its `host:port`; it is asked directly, and no
    /// other answers for it.
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node or it does not answer.
    pub async fn status(&self, node: impl AsRef<str>) -> Result<NodeStatus, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let request = Request::Status;
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await? {
            Response::Status(status) => Ok(*status),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// What a node measures: its [`status`](Client::status), requests and how long they took, hints, comparisons, disk. The node is given
    /// as in [`Client::status`]. A reader may ask; it costs the node about as much as a get.
    ///
    /// Counters begin at 0 when a node starts. A rate is the difference of two answers over that of their `uptime_ms`:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn rate(client: driftless_client::Client) -> Result<(), driftless_client::StatusError> {
    /// let before = client.figures("n1").await?;
    /// tokio::time::sleep(Duration::from_secs(10)).await;
    /// let now = client.figures("n1").await?;
    /// let milliseconds = now.status.uptime_ms.saturating_sub(before.status.uptime_ms);
    /// for (then, now) in before.requests.iter().zip(&now.requests) {
    ///     let per_second = now.ok.saturating_sub(then.ok) as f64 * 1000.0 / milliseconds.max(1) as f64;
    ///     println!("{}: {per_second:.0} a second", now.operation);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node or it does not answer. A node of a release that cannot say this is one to which there is no
    /// connection, with [`ConnectFailure::Protocol`](crate::ConnectFailure::Protocol): its status can be asked for all the same.
    pub async fn figures(&self, node: impl AsRef<str>) -> Result<Figures, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let request = Request::Figures;
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await? {
            Response::Figures(figures) => Ok(*figures),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// Which keys a node was asked for most in the last one to two minutes, and which of those that it coordinated lately are large or
    /// have many siblings. The node is given as in [`Client::status`]; an operator may ask. Each node counts what clients ask of it: the
    /// answers of all members, [joined](Top::of_nodes), are those of the cluster.
    ///
    /// ```no_run
    /// # use driftless_client::{Client, Top, TopCommand};
    /// # async fn hottest(client: Client) -> Result<(), driftless_client::StatusError> {
    /// let command = TopCommand { bucket: None, most: 20 };
    /// let answers = [client.top("n1", &command).await?, client.top("n2", &command).await?];
    /// let all = Top::of_nodes(&answers, 20);
    /// for bucket in &all.buckets {
    ///     for key in &bucket.hot {
    ///         println!("{:016x}: {} times, or up to {} less", key.key.token.0, key.count(), key.over);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node, it does not answer, or this client is no operator. A node of a release that cannot say this
    /// is one to which there is no connection, as for [`Client::figures`].
    pub async fn top(&self, node: impl AsRef<str>, command: &TopCommand) -> Result<Top, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let request = Request::Top(command.clone());
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await? {
            Response::Top(top) => Ok(*top),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// What a node holds for others that could not be reached: one entry for each node that something is or was
    /// held for.
    /// The node is given as in [`Client::status`].
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node or it does not answer.
    pub async fn hints(&self, node: impl AsRef<str>) -> Result<Vec<HintsFor>, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let request = Request::Hints;
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await? {
            Response::Hints(hints) => Ok(hints),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// Tells anti-entropy on a node something, or asks how it stands. The node is given as in [`Client::status`]. What
    /// it is told, it forgets when it stops.
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node or it does not answer.
    pub async fn aae(&self, node: impl AsRef<str>, command: AaeCommand) -> Result<AaeStatus, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let request = Request::Aae(command);
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await? {
            Response::Aae(status) => Ok(*status),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// Tells a node to coordinate nothing new, or to do so again, or asks how far it is. The node is given as in [`Client::status`].
    /// What it is told, it forgets when it stops.
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node or it does not answer.
    pub async fn drain(&self, node: impl AsRef<str>, command: DrainCommand) -> Result<DrainStatus, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let request = Request::Drain(command);
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await? {
            Response::Drain(status) => Ok(status),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// The keys whose records are damaged on a node and not restored yet; up to a second old. The node is given as in
    /// [`Client::status`].
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node or it does not answer.
    pub async fn damaged(&self, node: impl AsRef<str>) -> Result<DamagedKeys, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let request = Request::Damaged;
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await? {
            Response::Damaged(damaged) => Ok(damaged),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// Puts what the other owners of a key hold, perhaps nothing, in place of its record on a node, if that is damaged. The
    /// node is given as in [`Client::status`]; elsewhere nothing is done.
    ///
    /// **What only damaged records held is lost then, acknowledged writes among it, and what they knew to be deleted may come
    /// back.** A damaged record is restored without loss, by itself, as soon as enough other owners are there and sound:
    /// this is for records of which too few other owners are.
    ///
    /// # Errors
    /// [`StatusError`] if there is no such node or bucket, or the node does not answer.
    pub async fn restore_damaged(
        &self,
        node: impl AsRef<str>,
        bucket: impl AsRef<str>,
        key: &Key,
    ) -> Result<Restored, StatusError> {
        let settings = Profile::new().via(node).over(&self.inner.settings);
        let clock = Clock::start(settings.timeout);
        let (_, bucket) = self.inner.bucket(bucket.as_ref(), clock).await?;
        let request = Request::Restore(Restore { bucket: bucket.id, key: key.clone(), accept_loss: true });
        match self.inner.carry_out(&request, Route::Any, &settings, clock).await? {
            Response::Restored(restored) => Ok(restored),
            _ => Err(self.inner.misunderstood(&request).into()),
        }
    }

    /// Asks how the members and buckets stand, or changes them. Any member can be asked, and any that answers is.
    ///
    /// A change of members is staged, planned and committed by the plan's name, so that nobody commits what nobody has seen:
    ///
    /// ```no_run
    /// # use driftless_client::{ClusterAnswer, ClusterChange, ClusterCommand};
    /// # async fn grow(client: driftless_client::Client) -> Result<(), driftless_client::ClusterError> {
    /// let join = ClusterChange::Join { name: "n4".to_owned(), zone: None, weight: None };
    /// client.cluster(ClusterCommand::Stage(join)).await?;
    /// if let ClusterAnswer::Plan(plan) = client.cluster(ClusterCommand::Plan).await? {
    ///     println!("moves {} of {} slots", plan.slots_moved, plan.slots);
    ///     client.cluster(ClusterCommand::Commit { plan: plan.name }).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    /// A question that is not answered goes to another node. A change is sent to one node only, and has the whole timeout there.
    ///
    /// # Errors
    /// [`ClusterError::Request`] if it was refused, or could not be asked: this has changed nothing. [`ClusterError::NotCertain`] if no
    /// answer came to a change that was sent, or voters had been asked to accept it when too few of them answered: it may have been made, or be
    /// made yet. Saying the same again is safe.
    pub async fn cluster(&self, command: ClusterCommand) -> Result<ClusterAnswer, ClusterError> {
        self.cluster_with(Profile::new(), command).await
    }

    /// The same, asked of this node. It is given as in [`Client::status`], and answers with what it knows: that may be less
    /// than others do.
    ///
    /// # Errors
    /// As [`Client::cluster`].
    pub async fn cluster_at(
        &self,
        node: impl AsRef<str>,
        command: ClusterCommand,
    ) -> Result<ClusterAnswer, ClusterError> {
        self.cluster_with(Profile::new().via(node), command).await
    }

    async fn cluster_with(&self, profile: Profile, command: ClusterCommand) -> Result<ClusterAnswer, ClusterError> {
        let is_change = cluster::is_change(&command);
        let mut settings = profile.over(&self.inner.settings);
        if is_change {
            settings = cluster::of_change(settings);
        }
        let request = Request::Cluster(command);
        match self.inner.carry_out(&request, Route::Any, &settings, Clock::start(settings.timeout)).await {
            Ok(Response::Cluster(answer)) => Ok(answer),
            Ok(_) => Err(ClusterError::of(self.inner.misunderstood(&request), is_change)),
            Err(error) => Err(ClusterError::of(error, is_change)),
        }
    }

    /// Says goodbye to all nodes, and waits until they have heard it. Requests under way fail; so do later ones, of all
    /// clones, at once and with [`Cause::ClientClosed`](crate::Cause::ClientClosed).
    ///
    /// Dropping the last clone closes the connections too, but a process that ends at once may be gone before they
    /// are told; they then notice after some seconds.
    pub async fn close(self) {
        self.inner.close().await;
    }
}

impl ClientBuilder {
    /// Nodes to begin with, as `host:port`; one seed that answers is enough. All other nodes are learned from it.
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> ClientBuilder {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// Who this client is, and which cluster it trusts.
    pub fn identity(mut self, identity: Identity) -> ClientBuilder {
        self.identity = Some(identity);
        self
    }

    /// Speaks to this one node only, given as `host:port`. It becomes the only seed too.
    pub fn only(mut self, endpoint: impl AsRef<str>) -> ClientBuilder {
        self.seeds = vec![endpoint.as_ref().to_owned()];
        self.profile = self.profile.via(endpoint);
        self
    }

    /// How requests are carried out unless a bucket or a request says otherwise.
    pub fn profile(mut self, profile: Profile) -> ClientBuilder {
        let via = self.profile.via.take();
        self.profile = profile;
        self.profile.via = self.profile.via.or(via);
        self
    }

    /// Where sockets and connections run: [`IoRuntime::Shared`] by default.
    pub fn io_runtime(mut self, runtime: IoRuntime) -> ClientBuilder {
        self.runtime = runtime;
        self
    }

    /// Most requests under way at once, 10,000 by default; a value counts once more for every 64 KiB. Further requests
    /// wait, and the wait counts against their deadline. More uses more memory when a node is slow, less limits the
    /// throughput.
    pub fn in_flight_max(mut self, requests: usize) -> ClientBuilder {
        self.in_flight_max = Some(requests.max(1));
        self
    }

    /// How long one attempt to connect may take, 1 second by default. If the node's name has several addresses, it is one for all
    /// of them: they are tried a tenth of a second apart, and the first that answers is taken.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.connect_timeout = Some(timeout);
        self
    }

    /// For how long [`connect`](ClientBuilder::connect) asks the seeds again while none answers: not at all by default, each is
    /// asked once. For programs that are started together with their cluster. Seeds that are there and refuse this client are
    /// not waited for.
    pub fn wait_for_cluster(mut self, time: Duration) -> ClientBuilder {
        self.cluster_wait = time;
        self
    }

    /// Sockets and chance of a test instead of the system's.
    #[doc(hidden)]
    pub fn environment(mut self, environment: Environment) -> ClientBuilder {
        self.environment = environment;
        self
    }

    /// Asks the seeds for the ring and the buckets. All seeds are asked at once, each once unless
    /// [`wait_for_cluster`](ClientBuilder::wait_for_cluster) says otherwise.
    ///
    /// # Errors
    /// [`ConnectError`] says what is missing, or what happened with each seed.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        if Handle::try_current().is_err() {
            return Err(ConnectError::NoRuntime);
        }
        let patience = self.cluster_wait;
        let client = self.connect_lazy()?;
        client.inner.open(patience).await.map_err(|failures| ConnectError::NoSeedAnswered { failures })?;
        Ok(client)
    }

    /// A client that asks nobody yet: the first request does, and waits for the cluster as long as its time lasts, whatever its
    /// retry policy is. So a client can be made before its cluster is up, and outside of a runtime (but not with
    /// [`IoRuntime::Caller`]). That no seed answers, or none will have this client, is an error of the request
    /// ([`RequestError`](crate::RequestError)); the next one asks again.
    ///
    /// # Errors
    /// [`ConnectError`] says what is missing.
    pub fn connect_lazy(self) -> Result<Client, ConnectError> {
        if self.seeds.is_empty() {
            return Err(ConnectError::NoSeeds);
        }
        let identity = self.identity.ok_or(ConnectError::NoIdentity)?;
        let settings = Arc::new(self.profile.over(&Settings::default()));
        let connect_timeout = self.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        if self.runtime == IoRuntime::Caller && Handle::try_current().is_err() {
            return Err(ConnectError::NoRuntime);
        }
        counts::describe();
        let io = Io::new(&identity, self.runtime, connect_timeout, self.environment).map_err(ConnectError::Io)?;
        let entry = Entry::new(Arc::clone(&io), self.seeds, Arc::clone(&settings));
        let inner = Inner::new(io, entry, settings, self.in_flight_max.unwrap_or(IN_FLIGHT_MAX));
        Ok(Client { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topology = self.topology();
        let cluster = topology.as_ref().map(|topology| topology.cluster());
        f.debug_struct("Client").field("cluster", &cluster).finish_non_exhaustive()
    }
}
