//! Serving clients: requests in, answers out, and the bounds that keep one client from starving the others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client::{self, Request, RequestFrame, Response, ResponseFrame};
use driftless_proto::frame::{self, FRAME_MAX, FrameError, SHARED_FROM};
use driftless_proto::{Failure, Refusal};
use quinn::Connection;
use tokio::task::JoinSet;

use super::inbound::{LargeFrames, Room, SharedStream, WhenLate, large_frames};
use super::inputs::Input;
use super::node_context::{NodeContext, ShardMessage};
use super::outbound::{FrameLoad, Outbound};
use super::refusal::{CloseCode, CloseReason, STOPPING};
use super::requests::{operation, outcome};
use super::shard_context::ShardContext;
use crate::engine::{AaeCommand, ClientTag};
use crate::metrics::Operation;
use crate::route;
use crate::time::Instant;

/// The clients of one shard, by the numbers of their connections.
pub(crate) type Clients = RefCell<HashMap<u64, Rc<Client>>>;

/// One client's connection.
pub(crate) struct Client {
    number: u64,
    outbound: Outbound,
    pending: RefCell<HashMap<u64, Pending>>,
}

/// A request under way.
struct Pending {
    operation: Operation,
    since: Instant,
    deadline: Instant,
}

/// Serves a client until its connection ends.
pub(crate) async fn serve(context: Rc<ShardContext>, clients: &Clients, connection: Connection, who: &str) {
    let shared = &context.shared;
    let _slot = match shared.client_connections.take(who) {
        Ok(slot) => slot,
        Err(reason) => return context.refuse(&connection, who, &CloseReason::new(CloseCode::Full, reason)),
    };
    let client = Rc::new(Client {
        number: context.number_connection(),
        outbound: Outbound::default(),
        pending: RefCell::default(),
    });
    clients.borrow_mut().insert(client.number, client.clone());
    if let Err(reason) = converse(&context, &client, &connection, who).await {
        context.refuse(&connection, who, &reason);
    }
    clients.borrow_mut().remove(&client.number);
    client.leave(&context);
}

async fn converse(
    context: &Rc<ShardContext>,
    client: &Rc<Client>,
    connection: &Connection,
    who: &str,
) -> Result<(), CloseReason> {
    // Ends with this function, whatever way that ends.
    let mut writers = JoinSet::new();
    writers.spawn_local({
        let (client, connection, clock) = (client.clone(), connection.clone(), context.shared.clock.clone());
        async move { client.outbound.write_alone(&connection, &clock).await }
    });
    let take: Rc<dyn Fn(Bytes) -> Result<(), CloseReason>> = Rc::new({
        let (context, client) = (context.clone(), client.clone());
        move |body| client.take(&context, &body)
    });
    let requests = async {
        let Ok((send, receive)) = connection.accept_bi().await else {
            return Ok(());
        };
        let writing = client.clone();
        writers.spawn_local(async move { writing.outbound.write_shared(send).await });
        let mut stream = SharedStream::new(receive);
        stream.run(&client.outbound, context.shared.net.outbound_bytes_max, &*take).await?;
        // No more requests on the shared stream; answers and large requests may still be on their way.
        connection.closed().await;
        Ok(())
    };
    let outbound_max = context.shared.net.outbound_bytes_max;
    // A client that announces a frame and does not send it is turned away.
    let room = Room::Client(context.large.share_of(who));
    let frames = LargeFrames { max: FRAME_MAX, when_late: WhenLate::TurnedAway, outbound_max, room };
    // Biased, here and wherever the shell selects: the same seed makes the same packets only if nobody draws lots.
    tokio::select! {
        biased;
        ended = requests => return ended,
        ended = large_frames(connection, &client.outbound, frames, &context.shared.net, &context.large, take.clone()) => return ended,
        () = context.closing.wait() => {}
    }
    client.outbound.finish();
    // Bounded by the writers' own timeout for acknowledgements, and by the shard's for all connections.
    while writers.join_next().await.is_some() {}
    CloseReason::new(CloseCode::Stopping, STOPPING).close(connection);
    Ok(())
}

impl Client {
    /// Takes in one frame.
    fn take(&self, context: &ShardContext, body: &[u8]) -> Result<(), CloseReason> {
        let RequestFrame { id, deadline_ms, request, .. } = frame::decode(body)?;
        let shared = &context.shared;
        let since = shared.clock.instant();
        let asked = match deadline_ms {
            0 => shared.limits.deadline_max,
            given => Duration::from_millis(given.into()).min(shared.limits.deadline_max),
        };
        let deadline = since + asked;
        let operation = operation(&request);
        let full = self.pending.borrow().len() >= shared.net.requests_per_connection;
        match self.pending.borrow_mut().entry(id) {
            Entry::Occupied(_) => {
                let text = format!("request id {id} is used for two requests at once");
                return Err(CloseReason::new(CloseCode::Malformed, text));
            }
            Entry::Vacant(entry) => entry.insert(Pending { operation, since, deadline }),
        };
        context.pending.set(context.pending.get() + 1);
        if let Some(response) = answer_of_shell(shared, &request) {
            self.answer(context, since, id, response);
        } else if shared.is_stopping() {
            self.answer(context, since, id, refused(Refusal::Stopping));
        } else if full {
            self.refuse_overloaded(context, since, id);
        } else {
            let tag = ClientTag { connection: self.number, request: id };
            let elsewhere = match shared.shards.len() {
                1 => None,
                _ => route::of_client(&shared.topology, shared.node, &request).filter(|shard| *shard != context.shard),
            };
            match elsewhere {
                None => context.push(Input::Client { tag, deadline, request }),
                Some(shard) => {
                    if !shared.hand_over(shard, ShardMessage::Client { tag, deadline, request }) {
                        self.refuse_overloaded(context, since, id);
                    }
                }
            }
        }
        Ok(())
    }

    fn refuse_overloaded(&self, context: &ShardContext, now: Instant, id: u64) {
        context.shared.metrics.overloaded.inc();
        self.answer(context, now, id, refused(overloaded(context)));
    }

    /// Answers a request; one that is not under way (any more) is left alone.
    pub(crate) fn answer(&self, context: &ShardContext, now: Instant, id: u64, response: Response) {
        let Some(pending) = self.forget(context, id) else {
            return;
        };
        // Many small requests can ask for more than memory holds, and a client need not read what it asked for.
        let unread = self.outbound.bytes() >= context.shared.net.outbound_bytes_max;
        let response = match response {
            Response::Read(_) | Response::Page(_) if unread => {
                context.shared.metrics.overloaded.inc();
                refused(overloaded(context))
            }
            other => other,
        };
        context.counts.answered(pending.operation, outcome(&response), now.since(pending.since));
        if let Err(error) = self.push(context, id, response) {
            // Reads come in pages, so nothing is that long.
            let text = match error {
                FrameError::TooLong(bytes, max) => format!("the answer has {bytes} bytes, more than {max}"),
                other => other.to_string(),
            };
            tracing::error!(id, text, "an answer cannot be sent");
            if self.push(context, id, refused(Refusal::BadRequest(text))).is_err() {
                tracing::error!(id, "a refusal does not fit into a frame");
            }
        }
    }

    fn push(&self, context: &ShardContext, id: u64, response: Response) -> Result<(), FrameError> {
        let values = match &response {
            Response::Read(read) if read.siblings.iter().any(|sibling| sibling.value.len() >= SHARED_FROM) => {
                read.siblings.iter().map(|sibling| sibling.value.clone()).collect()
            }
            _ => Vec::new(),
        };
        let ring_version = context.shared.ring_version;
        let load = FrameLoad { values, frame_max: FRAME_MAX, until: None };
        self.outbound.push(&ResponseFrame { id, ring_version, response }, &load)
    }

    /// A request whose client has stopped waiting before anything was done.
    pub(crate) fn expire(&self, context: &ShardContext, id: u64) {
        if let Some(pending) = self.forget(context, id) {
            let took = pending.deadline.since(pending.since);
            context.counts.answered(pending.operation, crate::metrics::OutcomeLabel::Refused, took);
        }
    }

    /// Forgets requests that should have been answered long ago, so that a lost answer does not take up room for ever.
    pub(crate) fn sweep(&self, context: &ShardContext, now: Instant) {
        let overdue = |pending: &Pending| now.since(pending.deadline) > OVERDUE_AFTER;
        let ids: Vec<u64> =
            self.pending.borrow().iter().filter(|(_, pending)| overdue(pending)).map(|(id, _)| *id).collect();
        for id in ids {
            tracing::error!(connection = self.number, id, "a request was never answered");
            self.expire(context, id);
        }
    }

    fn forget(&self, context: &ShardContext, id: u64) -> Option<Pending> {
        let pending = self.pending.borrow_mut().remove(&id)?;
        context.pending.set(context.pending.get() - 1);
        Some(pending)
    }

    fn leave(&self, context: &ShardContext) {
        let unanswered = std::mem::take(&mut *self.pending.borrow_mut()).len();
        context.pending.set(context.pending.get() - unanswered);
    }
}

/// What the shell can say without a shard.
fn answer_of_shell(shared: &NodeContext, request: &Request) -> Option<Response> {
    Some(match request {
        Request::Status => Response::Status(Box::new(shared.status())),
        Request::Hints => Response::Hints(shared.hints()),
        Request::Damaged => Response::Damaged(shared.damaged()),
        Request::Aae(command) => {
            if let Some(command) = aae_command(*command) {
                shared.tell_aae(command);
            }
            Response::Aae(Box::new(shared.aae_status()))
        }
        Request::Topology
        | Request::Get(_)
        | Request::Put(_)
        | Request::Delete(_)
        | Request::Scan(_)
        | Request::Restore(_) => return None,
    })
}

/// What the shards are told; nothing if the answer is all that is wanted.
fn aae_command(command: client::AaeCommand) -> Option<AaeCommand> {
    match command {
        client::AaeCommand::Status => None,
        client::AaeCommand::Run { partition } => Some(AaeCommand::Run(partition)),
        client::AaeCommand::Pause => Some(AaeCommand::Pause),
        client::AaeCommand::Resume => Some(AaeCommand::Resume),
    }
}

fn overloaded(context: &ShardContext) -> Refusal {
    let retry_after_ms = u32::try_from(context.shared.limits.retry_after.as_millis()).unwrap_or(u32::MAX);
    Refusal::Overloaded { retry_after_ms }
}

fn refused(refusal: Refusal) -> Response {
    Response::Failed(Failure::Refused(refusal))
}

/// Beyond a request's deadline; machines answer at the deadline itself.
const OVERDUE_AFTER: Duration = Duration::from_secs(5);
