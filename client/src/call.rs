//! One request: what it is, how much time it has, and its place among the others under way.
//!
//! The deadline of the call covers all of it.

use std::sync::Arc;

use driftless_proto::client::Request;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::io::Io;
use crate::options::Settings;
use crate::pace::Kind;
use crate::router::{Route, Router};

/// A request and all that was decided about it before its first attempt.
pub(crate) struct Call<'a> {
    pub(crate) router: &'a Arc<Router>,
    pub(crate) io: &'a Io,
    pub(crate) budget: &'a Budget,
    pub(crate) request: &'a Request,
    pub(crate) route: Route,
    pub(crate) settings: &'a Settings,
    pub(crate) clock: Clock,
    /// `None`: its attempts are given all their time.
    pub(crate) kind: Option<Kind>,
}
