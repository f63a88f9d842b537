//! The choices a user makes: for a whole client when it is built, and for requests in a [`Profile`].
//!
//! A profile can be given to the client, to a bucket and to a request; what the narrower one leaves open, the wider
//! one decides, and at last the defaults here or (for r, w and sloppy) the bucket's definition in the cluster.

use std::sync::Arc;
use std::time::Duration;

use driftless_proto::TraceContext;

use crate::retry::{DefaultRetry, RetryPolicy};

/// How requests are carried out. Everything left open is decided by the next wider profile.
///
/// ```
/// use std::time::Duration;
/// use driftless_client::Profile;
///
/// let strict = Profile::new().r(2).w(2).sloppy(false).timeout(Duration::from_secs(3));
/// # let _ = strict;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a profile does nothing until it is given to a client, a bucket or a request"]
pub struct Profile {
    pub(crate) r: Option<u8>,
    pub(crate) w: Option<u8>,
    pub(crate) sloppy: Option<bool>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Arc<dyn RetryPolicy>>,
    pub(crate) via: Option<Arc<str>>,
    pub(crate) trace: Option<TraceContext>,
}

impl Profile {
    /// A profile that leaves everything open.
    pub fn new() -> Profile {
        Profile::default()
    }

    /// Replicas that must answer a read. More is fresher, less is faster and survives more failures.
    pub fn r(mut self, r: u8) -> Profile {
        self.r = Some(r);
        self
    }

    /// Replicas that must acknowledge a write. More is safer, less is faster and survives more failures.
    pub fn w(mut self, w: u8) -> Profile {
        self.w = Some(w);
        self
    }

    /// Whether fallbacks count towards w when primaries are down. Off, with r + w > n, promises to read your writes;
    /// on, writes succeed with more nodes down.
    pub fn sloppy(mut self, sloppy: bool) -> Profile {
        self.sloppy = Some(sloppy);
        self
    }

    /// After what time one attempt is given up, 2 seconds by default. Another node is usually asked much sooner, while
    /// this attempt goes on (see [Failures](crate#failures)); so this matters where there is no other, or where
    /// [`via`](Profile::via) or the policy forbids it. Too short repeats work that was about to succeed. A value of more than
    /// 64 KiB takes time to carry: its attempt lasts as long as the request, and no node is sent it twice while it may still
    /// answer; under a policy that does not hedge, it is given a second more for each megabyte.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Profile {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// How long a request may take with all its attempts and waits, 10 seconds by default.
    pub fn timeout(mut self, timeout: Duration) -> Profile {
        self.timeout = Some(timeout);
        self
    }

    /// When to try again. [`DefaultRetry`] by default; [`NoRetry`](crate::NoRetry) never does.
    pub fn retry(mut self, policy: impl RetryPolicy) -> Profile {
        self.retry = Some(Arc::new(policy));
        self
    }

    /// Sends everything to this one node, given by its name or its `host:port`.
    pub fn via(mut self, node: impl AsRef<str>) -> Profile {
        self.via = Some(Arc::from(node.as_ref()));
        self
    }

    /// The place of the requests in a trace: of another program's that has caused them, or [drawn](TraceContext::random) for these. Nodes
    /// record what they do for them under its id. With the feature `otel` this is found by itself, where OpenTelemetry records the request.
    pub fn trace(mut self, trace: TraceContext) -> Profile {
        self.trace = Some(trace);
        self
    }

    /// This profile, completed by what a wider one settled.
    pub(crate) fn over(&self, wider: &Settings) -> Settings {
        Settings {
            r: self.r.or(wider.r),
            w: self.w.or(wider.w),
            sloppy: self.sloppy.or(wider.sloppy),
            attempt_timeout: self.attempt_timeout.unwrap_or(wider.attempt_timeout),
            timeout: self.timeout.unwrap_or(wider.timeout),
            retry: Arc::clone(self.retry.as_ref().unwrap_or(&wider.retry)),
            via: self.via.as_ref().or(wider.via.as_ref()).cloned(),
            trace: self.trace.or(wider.trace),
        }
    }
}

/// What all profiles together come to. An option that is `None` here is decided by the bucket's definition.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) r: Option<u8>,
    pub(crate) w: Option<u8>,
    pub(crate) sloppy: Option<bool>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retry: Arc<dyn RetryPolicy>,
    pub(crate) via: Option<Arc<str>>,
    pub(crate) trace: Option<TraceContext>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            r: None,
            w: None,
            sloppy: None,
            attempt_timeout: ATTEMPT_TIMEOUT,
            timeout: TIMEOUT,
            retry: Arc::new(DefaultRetry::new()),
            via: None,
            trace: None,
        }
    }
}

/// Where the client's sockets, timers of connections and TLS run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum IoRuntime {
    /// On a thread of the client library, with a single-threaded runtime: whatever the caller's runtime does or does not do, and when
    /// it ends, connections live on. A process has at most as many such threads as it has cores, and no more than eight; more clients
    /// than that share them, and wait for each other's encryption.
    #[default]
    Shared,
    /// On a thread like those, which no other client uses: for one that shall not notice what others do.
    Own,
    /// On the runtime that calls [`connect`](crate::ClientBuilder::connect), which must have I/O enabled and outlive the client. Right
    /// when that is single-threaded: no request crosses threads then. Often right when it is work-stealing and requests are made in
    /// its tasks, as those of a server are: fewer threads are woken for each. Wrong there for requests that are made in the main
    /// function, which has a thread of its own, and beside tasks that block.
    Caller,
}

/// Two seconds: several times what a loaded node with a slow disk takes, and a user still waits for a second attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Five attempts' worth: outlasts the failover of a node, ends before a person gives up.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Requests under way at once. At 50,000 a second each may take 200 ms before callers have to wait.
pub(crate) const IN_FLIGHT_MAX: usize = 10_000;

/// Long enough for a handshake between continents with one packet lost; short enough to leave an attempt's time for
/// another node.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_profile_wins() {
        let client = Profile::new().r(1).w(3).via("ada").over(&Settings::default());
        let both = Profile::new().r(2).over(&client);
        assert_eq!((both.r, both.w, both.sloppy), (Some(2), Some(3), None));
        assert_eq!(both.via.as_deref(), Some("ada"));
        assert_eq!(both.timeout, TIMEOUT);
    }
}
