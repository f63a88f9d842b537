//! A request: one message to the cluster, where it may go and how much time it has.
//!
//! The user's operation makes one, or several one after the other: a read in pages, an update in rounds. Each is made by one or
//! more *attempts*, each at one node. The deadline covers all of them.

use std::sync::Arc;

use driftless_proto::client as wire;

use crate::clock::Clock;
use crate::hedge_budget::HedgeBudget;
use crate::io::Io;
use crate::latency::Kind;
use crate::options::Settings;
use crate::router::{Route, Router};

/// A request and all that was decided about it before its first attempt.
pub(crate) struct Request<'a> {
    pub(crate) router: &'a Arc<Router>,
    pub(crate) io: &'a Io,
    pub(crate) hedge_budget: &'a HedgeBudget,
    pub(crate) message: &'a wire::Request,
    pub(crate) route: Route,
    pub(crate) settings: &'a Settings,
    pub(crate) clock: Clock,
    /// `None`: its attempts are given all their time.
    pub(crate) kind: Option<Kind>,
}
