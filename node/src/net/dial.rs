//! Connections that this shard opens to other nodes, again and again.
//!
//! Of two nodes the one with the smaller id dials. Connection `i`, counted up to the larger number of shards, joins
//! shard `i % shards` of either: so every shard of either has at least one, and with equal numbers shard `k` talks to
//! shard `k`.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use driftless_ring::Member;
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

/// Starts a task for every connection that this shard has to open.
pub(crate) fn dial_all(tables: &Tables) {
    let Tables { context, links, endpoint, .. } = tables;
    let shared = &context.shared;
    let own = shared.shards.len() as u16;
    for member in shared.topology.ring().members().iter().filter(|member| member.id > shared.node) {
        for shard in shards_to_dial(context.shard, own, member.shards.max(1)) {
            let dialer = Dialer {
                context: context.clone(),
                links: links.clone(),
                endpoint: endpoint.clone(),
                member: member.clone(),
                shard,
            };
            tokio::task::spawn_local(dialer.run());
        }
    }
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
    async fn run(self) {
        let limits = &self.context.shared.net;
        let mut pause = limits.redial_min;
        while !self.context.shared.is_stopping() {
            if self.once().await {
                pause = limits.redial_min;
            }
            // Between half and the whole: nodes that lost the same peer do not come back at the same moment.
            let jitter = 0.5 + self.context.shared.environment.chance() / 2.0;
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(limits.redial_max);
        }
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
    Err(Problem { text, remedy })
}

/// From one address to the next: the recommended value (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Quinn's default of 333 ms suits the open internet. Nodes are near each other: a peer that was not listening yet
/// when we first called is called again sooner.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

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
