//! Connections that this shard opens to other nodes, again and again.
//!
//! Of two nodes the one with the smaller id dials. Connection `i`, counted up to the larger number of shards, joins
//! shard `i % shards` of either: so every shard of either has at least one, and with equal numbers shard `k` talks to
//! shard `k`.
//!
//! A node that is no member calls all: nobody knows that it is there. So does one that has been alone for a while: it may be that the
//! others have made it none, or have moved. Where both call, one connection stays (`peers`), and nobody calls where there is one.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use driftless_ring::{Member, NodeId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quinn::Connection;
use tokio::time::timeout;

use super::accept::{Tables, after, verified};
use super::admitted::Admitted;
use super::endpoint::ShardEndpoint;
use super::family;
use super::peers::{self, Ended, Links};
use super::problem;
use super::refusal::{CloseCode, CloseReason, News};
use super::shard_context::ShardContext;
use super::subject::Holder;
use super::verified::Verified;
use crate::conditions::Problem;
use crate::configurations::Configurations;

/// Starts a task for every connection that this shard has to keep up, and for which there is none yet. To be called whenever the
/// members change, and now and then.
pub(crate) fn dial_all(tables: &Tables) {
    let Tables { context, links, endpoint, .. } = tables;
    let own = context.shared.shards.len() as u16;
    for member in wanted(context) {
        for shard in shards_to_dial(context.shard, own, member.shards.max(1)) {
            if context.dialing.borrow_mut().insert((member.id, shard)) {
                let (context, links, endpoint) = (context.clone(), links.clone(), endpoint.clone());
                let dialer = Dialer { context, links, endpoint, member: member.clone(), shard };
                tokio::task::spawn_local(dialer.run());
            }
        }
    }
}

/// The nodes that this one calls.
fn wanted(context: &ShardContext) -> Vec<Member> {
    let (shared, configurations) = (&context.shared, context.configurations.borrow());
    whom_to_call(shared.node, &configurations, &shared.seeds, shared.is_alone())
}

/// The nodes that `me` calls: the members after it, and all if it is none, or nobody is there.
fn whom_to_call(me: NodeId, configurations: &Configurations, seeds: &[Member], is_alone: bool) -> Vec<Member> {
    let calls_all = is_alone || configurations.topology().ring().member(me).is_none();
    let mut wanted = configurations.members();
    if is_alone {
        wanted.extend(seeds.iter().filter(|seed| configurations.member(seed.id).is_none()).cloned());
    }
    wanted.retain(|member| member.id != me && (calls_all || member.id > me));
    wanted
}

/// Shards of the other node that our shard `k` dials.
fn shards_to_dial(k: u16, own: u16, other: u16) -> impl Iterator<Item = u16> {
    (0..own.max(other)).filter(move |i| i % own == k).map(move |i| i % other)
}

/// Keeps up one connection.
struct Dialer {
    context: Rc<ShardContext>,
    links: Rc<RefCell<Links>>,
    endpoint: Rc<ShardEndpoint>,
    member: Member,
    shard: u16,
}

impl Dialer {
    async fn run(mut self) {
        let limits = self.context.shared.net.clone();
        let mut pause = limits.redial_min;
        while !self.context.shared.is_stopping() && self.is_wanted() {
            if self.links.borrow().has_to(self.member.id, self.shard) {
                // The other node has called. If that connection ends, it is this one's part again.
                tokio::time::sleep(limits.redial_max).await;
                continue;
            }
            if self.once().await {
                pause = limits.redial_min;
            }
            // Between half and the whole: nodes that lost the same peer do not come back at the same moment.
            let jitter = 0.5 + self.context.shared.environment.chance() / 2.0;
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(limits.redial_max);
        }
        self.context.dialing.borrow_mut().remove(&(self.member.id, self.shard));
    }

    /// Whether this connection is still to be kept up; takes up where the other node is now.
    fn is_wanted(&mut self) -> bool {
        let Some(member) = wanted(&self.context).into_iter().find(|member| member.id == self.member.id) else {
            return false;
        };
        self.member = member;
        let own = self.context.shared.shards.len() as u16;
        shards_to_dial(self.context.shard, own, self.member.shards.max(1)).any(|shard| shard == self.shard)
    }

    /// One attempt, and the conversation if it succeeds. True if the connection was up.
    async fn once(&self) -> bool {
        let context = &self.context;
        let (connection, verified) = match self.connect().await {
            Ok((connection, verified)) => (connection, Rc::new(verified)),
            Err(problem) => {
                self.log(&problem.text);
                context.shared.note_problem(self.member.id, problem);
                return false;
            }
        };
        let _admittance = Admitted::enter(context, &connection, verified);
        let ended = peers::open(context, &self.links, &connection, &self.member).await;
        let was_up = matches!(ended, Ended::Lost);
        after(context, &connection, self.member.id, &self.member.name, ended);
        was_up
    }

    /// The first connection, of those to all addresses, that leads to the member.
    async fn connect(&self) -> Result<(Connection, Verified), Problem> {
        let limit = self.context.shared.net.dial_timeout;
        let addresses = match timeout(limit, self.resolve()).await {
            Ok(resolved) => resolved.map_err(problem::of_address)?,
            Err(_) => return Err(problem::of_address(format!("{} is not resolved in time", self.member.address))),
        };
        let attempts = addresses.into_iter().enumerate().map(|(at, address)| async move {
            tokio::time::sleep(ATTEMPT_DELAY * at as u32).await;
            let connecting = self.endpoint.dial(address).map_err(|error| problem::of_address(error.to_string()))?;
            let connection = match timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(|error| problem::of_error(address, &error))?,
                Err(_) => return Err(problem::of_silence(address)),
            };
            match self.check(&connection) {
                Ok(verified) => Ok((connection, verified)),
                Err(reason) => {
                    self.context.refuse(&connection, &self.member.name, &reason);
                    Err(problem::of_refusal(&reason))
                }
            }
        });
        first_of(attempts.collect()).await
    }

    /// All addresses that our socket can reach; asked again at every attempt, since names move.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let name = &self.member.address;
        let own = self.endpoint.local_addr().map_err(|error| error.to_string())?;
        let found =
            tokio::net::lookup_host(name.as_str()).await.map_err(|error| format!("cannot resolve {name}: {error}"))?;
        let mut addresses = family::in_order(own.ip(), found);
        if addresses.is_empty() {
            return Err(format!("{name} has no address that can be reached from {own}"));
        }
        for address in &mut addresses {
            let port = address.port().checked_add(self.shard);
            address.set_port(port.ok_or_else(|| format!("{name} has no port for shard {}", self.shard))?);
        }
        Ok(addresses)
    }

    /// The certificate must be that of the member we meant to reach.
    fn check(&self, connection: &Connection) -> Result<Verified, CloseReason> {
        let verified = verified(connection, &self.context)?;
        let subject = &verified.subject;
        if subject.holder == Holder::Node && subject.name == self.member.name {
            return Ok(verified);
        }
        let text = format!("expected node {}, found {subject}", self.member.name);
        Err(CloseReason::new(CloseCode::Identity, text))
    }

    fn log(&self, reason: &str) {
        let shared = &self.context.shared;
        if !shared.is_stopping()
            && let Some(News { suppressed }) = shared.refusals.news(&self.member.name, reason, shared.clock.instant())
        {
            let (peer, address) = (&self.member.name, &self.member.address);
            tracing::warn!(
                node = shared.name,
                peer,
                address,
                shard = self.shard,
                reason,
                suppressed,
                "cannot reach peer"
            );
        }
    }
}

/// What succeeds first; if nothing does, what was wrong with each.
async fn first_of<T>(mut attempts: FuturesUnordered<impl Future<Output = Result<T, Problem>>>) -> Result<T, Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    while let Some(ended) = attempts.next().await {
        match ended {
            Ok(first) => return Ok(first),
            Err(problem) => problems.push(problem),
        }
    }
    let texts: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
    let text = texts.join("; ");
    let remedy = problems.first().map_or("", |problem| problem.remedy);
    let is_there = problems.iter().any(|problem| problem.is_there);
    Err(Problem { text, remedy, is_there })
}

/// From one address to the next: the recommended value (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Quinn's default of 333 ms suits the open internet. Nodes are near each other: a peer that was not listening yet
/// when we first called is called again sooner.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    use driftless_testkit::TopologyBuilder;

    #[test]
    fn of_two_members_one_calls_and_who_is_none_or_alone_calls_all() {
        let topology = TopologyBuilder::of(["a", "b", "c"]).shared();
        let ids: Vec<NodeId> = topology.ring().members().iter().map(|member| member.id).collect();
        let configurations = Configurations::of_file(topology);
        let seed = Member::new("d", "d.test:1");
        let called = |me: NodeId, is_alone| -> Vec<NodeId> {
            let called = whom_to_call(me, &configurations, std::slice::from_ref(&seed), is_alone);
            called.into_iter().map(|member| member.id).collect()
        };
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let (one, other) = (ids[one], ids[other]);
            assert_ne!(called(one, false).contains(&other), called(other, false).contains(&one));
        }
        assert_eq!(called(seed.id, false), ids, "nobody knows of it");
        let others = [ids[0], ids[1], seed.id];
        assert_eq!(called(ids[2], true), others, "also whom only the file names");
    }

    #[test]
    fn every_shard_of_both_sides_gets_a_connection() {
        for own in 1..5 {
            for other in 1..5 {
                let pairs: Vec<(u16, u16)> =
                    (0..own).flat_map(|k| shards_to_dial(k, own, other).map(move |shard| (k, shard))).collect();
                assert_eq!(pairs.len(), usize::from(own.max(other)), "{own} and {other}");
                assert!((0..own).all(|k| pairs.iter().any(|pair| pair.0 == k)), "{own} and {other}");
                assert!((0..other).all(|shard| pairs.iter().any(|pair| pair.1 == shard)), "{own} and {other}");
            }
        }
        assert_eq!(shards_to_dial(1, 2, 2).collect::<Vec<_>>(), [1]);
    }
}
