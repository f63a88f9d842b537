//! The questions under way. Each node has one at a time: one that is slow is not asked again before it has answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use driftless_client::{Client, ClusterState};
use driftless_proto::Topology;
use driftless_proto::top::{KEYS_MAX, TopCommand};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use super::machine::{Node, Said, Silence, Watch};
use crate::members::ANSWER_MAX;
use crate::session;
use crate::top;

/// Asks, and gathers what comes back.
pub(super) struct Asking {
    client: Client,
    waited_for: BTreeSet<Question>,
    under_way: FuturesUnordered<LocalBoxFuture<'static, (Question, Answer)>>,
    /// How the members stand, as somebody has said last.
    change: Option<ClusterState>,
    /// What was told of the members last.
    told: Option<Arc<Topology>>,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Question {
    /// What this node measures.
    Figures(String),
    /// Which keys this node was asked for.
    Top(String),
    /// How the members stand.
    Members,
    /// Who they are: seldom needed, since clients learn of it from any answer.
    Topology,
}

/// What comes back.
enum Answer {
    Figures(Said),
    Top(top::Said),
    Members(Option<ClusterState>),
    Topology(Result<(), String>),
}

impl Asking {
    pub(super) fn new(client: Client) -> Asking {
        Asking { client, waited_for: BTreeSet::new(), under_way: FuturesUnordered::new(), change: None, told: None }
    }

    /// Begins with whatever is not under way.
    pub(super) fn ask_all(&mut self, watch: &Watch) {
        for node in watch.nodes() {
            let question = Question::Figures(node.member.name.clone());
            let asked = figures(self.client.clone(), address(node));
            self.ask(question, async { Answer::Figures(asked.await) });
        }
        for node in watch.nodes().iter().filter(|_| watch.asks_for_keys()) {
            let question = Question::Top(node.member.name.clone());
            let (client, address) = (self.client.clone(), address(node));
            let command = TopCommand { bucket: None, most: KEYS_MAX as u32 };
            self.ask(question, async move { Answer::Top(top::ask(&client, &address, &command).await) });
        }
        let client = self.client.clone();
        if watch.is_heard() {
            self.ask(Question::Members, async move {
                let asked = tokio::time::timeout(ANSWER_MAX, crate::cluster::state(&client, None)).await;
                Answer::Members(asked.ok().and_then(Result::ok))
            });
        } else {
            self.ask(Question::Topology, async move {
                let asked = client.refresh_topology().await;
                Answer::Topology(asked.map(drop).map_err(|error| error.to_string()))
            });
        }
    }

    fn ask(&mut self, question: Question, answer: impl Future<Output = Answer> + 'static) {
        if self.waited_for.insert(question.clone()) {
            self.under_way.push(Box::pin(async { (question, answer.await) }));
        }
    }

    /// Waits for an answer and hands it over; for ever while nothing is under way.
    pub(super) async fn next(&mut self, watch: &mut Watch) {
        let Some((question, answer)) = self.under_way.next().await else {
            return std::future::pending().await;
        };
        self.waited_for.remove(&question);
        match (&question, answer) {
            (Question::Figures(node), Answer::Figures(said)) => watch.handle_answer(node, said),
            (Question::Top(node), Answer::Top(said)) => watch.handle_keys(node, said),
            (_, Answer::Members(state)) => {
                self.change = state.or(self.change.take());
                self.told = None;
            }
            (_, Answer::Topology(Err(why))) if watch.topology().is_none() => watch.handle_lost(why),
            _ => {}
        }
        self.tell_members(watch);
    }

    /// Tells who the members are, as far as the client knows and if that is new.
    pub(super) fn tell_members(&mut self, watch: &mut Watch) {
        let Some(topology) = self.client.topology() else { return };
        if self.told.as_ref().is_none_or(|told| !Arc::ptr_eq(told, &topology)) {
            watch.handle_members(&topology, self.change.as_ref());
            self.told = Some(topology);
        }
    }
}

/// Members are asked by their names; who leaves has none any more that the client knows.
fn address(node: &Node) -> String {
    if node.stays { node.member.name.clone() } else { node.member.address.clone() }
}

/// What a node measures; of one of an older release, what it says of itself.
async fn figures(client: Client, node: String) -> Said {
    let asked = async {
        match client.figures(&node).await {
            Err(error) if session::is_of_older_release(&error) => {
                client.status(&node).await.map(Box::new).map(Said::Status)
            }
            answer => answer.map(Box::new).map(Said::Figures),
        }
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => {
            Said::Silence(Silence { why: error.to_string(), is_denied: session::not_allowed(&error).is_some() })
        }
        Err(_) => {
            Said::Silence(Silence { why: format!("no answer within {} s", ANSWER_MAX.as_secs()), is_denied: false })
        }
    }
}

/// What is known of the members before anybody has answered.
pub(super) fn tell_of_file(topology: Topology, watch: &mut Watch) {
    watch.handle_members(&Arc::new(topology), None);
}
