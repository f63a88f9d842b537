//! Serving clients: requests in, answers out, and the bounds that keep one client from starving the others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless_proto::client::{self, Request, RequestFrame, Response, ResponseFrame};
use driftless_proto::frame::{self, FRAME_MAX, FrameError, SHARED_FROM};
use driftless_proto::observed::{Explained, ExplainedResponse, Observed, ObservedRequest};
use driftless_proto::{Failure, ProtocolVersion, ProtocolVersions, Refusal, Topology, greeting};
use quinn::{Connection, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::accounts::Account;
use super::budget::Held;
use super::hello;
use super::inbound::{self, LargeFrames, NoRoom, SharedStream, Take, Taken, large_frames};
use super::inputs::Input;
use super::node_context::{NodeContext, ShardMessage};
use super::outbound::{FrameLoad, Outbound};
use super::refusal::{CloseCode, CloseReason, STOPPING};
use super::rights::Rights;
use super::shard_context::ShardContext;
use super::traces::{self, Begun, Role, SpanId};
use crate::engine::{AaeCommand, ClientTag};
use crate::metrics::{Operation, OutcomeLabel};
use crate::route;
use crate::time::Instant;

/// The clients of one shard, by the numbers of their connections.
pub(crate) type Clients = RefCell<HashMap<u64, Rc<Client>>>;

/// One client's connection.
pub(crate) struct Client {
    number: u64,
    who: String,
    /// What the two sides go by.
    version: ProtocolVersion,
    account: Arc<Account>,
    connection: Connection,
    rights: Rights,
    outbound: Outbound,
    pending: RefCell<HashMap<u64, Pending>>,
    /// What was known of its reading when that was last judged.
    reading: Cell<Reading>,
}

/// A request under way.
struct Pending {
    operation: Operation,
    since: Instant,
    deadline: Instant,
    /// What it takes until it is answered.
    room: Room,
    /// What is recorded of it, if it is.
    traced: Option<SpanId>,
}

/// What a request takes until it is answered, whether its client stays for that or not.
pub(crate) struct Room {
    /// Its place among requests, and its bytes; none if it is refused.
    _place: Option<[Held; 2]>,
    /// Its frame, if that came on a stream of its own and is no put: the value of one carries its room with it.
    _frame: Option<Taken>,
}

/// How much of its answers a client has taken in, and how much waited then.
#[derive(Clone, Copy, Default)]
struct Reading {
    at: Instant,
    taken: u64,
    waiting: usize,
}

/// A value that came on a stream of its own, and the room that it takes until nothing refers to it any more.
struct Charged {
    value: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

/// Serves a client until its connection ends.
pub(crate) async fn serve(
    context: Rc<ShardContext>,
    clients: &Clients,
    connection: Connection,
    who: &str,
    rights: Rights,
) {
    let shared = &context.shared;
    let account = shared.accounts.of(who);
    let Some(place) = account.connect() else {
        return context.refuse(&connection, who, &CloseReason::new(CloseCode::Full, NO_PLACE));
    };
    connection.set_receive_window(VarInt::from_u32(u32::try_from(place.window).unwrap_or(u32::MAX)));
    connection.set_send_window(place.window as u64);
    let greeted = tokio::select! {
        biased;
        greeted = timeout(shared.net.arrival_timeout, greet(&shared.name, &connection)) => greeted,
        () = context.closing.wait() => return CloseReason::new(CloseCode::Stopping, STOPPING).close(&connection),
    };
    let greeted = match greeted {
        Ok(Ok(Some(greeted))) => greeted,
        Ok(Ok(None)) => return,
        Ok(Err(reason)) => return context.refuse(&connection, who, &reason),
        Err(_) => return context.refuse(&connection, who, &CloseReason::new(CloseCode::Hello, NO_GREETING)),
    };
    let client = Rc::new(Client {
        number: context.number_connection(),
        who: who.to_owned(),
        version: greeted.version,
        account: account.clone(),
        connection,
        rights,
        outbound: Outbound::to_client(account, shared.net.outbound_bytes_max),
        pending: RefCell::default(),
        reading: Cell::default(),
    });
    tracing::debug!(node = shared.name, who, version = client.version.0, "client connected");
    clients.borrow_mut().insert(client.number, client.clone());
    if let Err(reason) = converse(&context, &client, greeted).await {
        context.refuse(&client.connection, who, &reason);
    }
    clients.borrow_mut().remove(&client.number);
    client.leave(&context);
}

/// A conversation that can begin.
struct Greeted {
    version: ProtocolVersion,
    send: SendStream,
    stream: SharedStream,
}

/// Hears which versions of the protocol the client speaks, and says which this node does. `None` if the client has gone.
async fn greet(us: &str, connection: &Connection) -> Result<Option<Greeted>, CloseReason> {
    let Ok((mut send, receive)) = connection.accept_bi().await else { return Ok(None) };
    let mut stream = SharedStream::new(receive);
    let Some(first) = stream.first().await? else { return Ok(None) };
    let (version, _) = hello::version(&first, us, "the client")?;
    let written = send.write_all(&greeting::encode(ProtocolVersions::OURS, &())?).await;
    Ok(written.is_ok().then_some(Greeted { version, send, stream }))
}

async fn converse(context: &Rc<ShardContext>, client: &Rc<Client>, greeted: Greeted) -> Result<(), CloseReason> {
    let connection = &client.connection;
    // Ends with this function, whatever way that ends.
    let mut writers = JoinSet::new();
    writers.spawn_local({
        let (client, clock) = (client.clone(), context.shared.clock.clone());
        async move { client.outbound.write_alone(&client.connection, &clock).await }
    });
    let take: Rc<Take> = Rc::new({
        let (context, client) = (context.clone(), client.clone());
        move |body, taken| client.take(&context, &body, taken)
    });
    let no_room: Rc<NoRoom> = Rc::new({
        let (context, client) = (context.clone(), client.clone());
        move |begun| client.refuse_begun(&context, begun)
    });
    let Greeted { send, mut stream, .. } = greeted;
    let writing = client.clone();
    writers.spawn_local(async move { writing.outbound.write_shared(send).await });
    let requests = async {
        stream.run(&client.outbound, &*take).await?;
        // No more requests on the shared stream; answers and large requests may still be on their way.
        connection.closed().await;
        Ok(())
    };
    let frames = LargeFrames { max: FRAME_MAX, room: inbound::Room::Client(client.account.clone()) };
    // Biased, here and wherever the shell selects: the same seed makes the same packets only if nobody draws lots.
    tokio::select! {
        biased;
        ended = requests => return ended,
        ended = large_frames(&client.outbound, connection, frames, context, take.clone(), no_room) => return ended,
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
    fn take(&self, context: &ShardContext, body: &[u8], mut taken: Option<Taken>) -> Result<(), CloseReason> {
        // What had arrived before it was closed, as for a certificate that is denied, is not carried out.
        if self.connection.close_reason().is_some() {
            return Ok(());
        }
        let RequestFrame { id, ring_version, deadline_ms, mut request } = frame::decode(body)?;
        if let Request::Scan(scan) = &mut request {
            scan.ring_version = ring_version;
        }
        let shared = &context.shared;
        let since = shared.clock.instant();
        let asked = match deadline_ms {
            0 => context.deadline_max.get(),
            given => Duration::from_millis(given.into()).min(context.deadline_max.get()),
        };
        let deadline = since + asked;
        let operation = Operation::of(&request);
        let (entries, listed) = listed(&request);
        let place = match taken {
            Some(_) => Some(self.account.arrived(listed)),
            None => {
                let is_read = matches!(operation, Operation::Get | Operation::Scan);
                self.account.request(body.len() + listed, is_read)
            }
        };
        let is_full = place.is_none();
        if let Request::Put(put) | Request::Observed(Observed { request: ObservedRequest::Put(put), .. }) = &mut request
            && let Some(taken) = taken.take()
        {
            put.value = Bytes::from_owner(Charged { value: std::mem::take(&mut put.value), _taken: taken });
        }
        let room = Room { _place: place, _frame: taken };
        match self.pending.borrow_mut().entry(id) {
            Entry::Occupied(_) => {
                let text = format!("request id {id} is used for two requests at once");
                return Err(CloseReason::new(CloseCode::Malformed, text));
            }
            Entry::Vacant(entry) => entry.insert(Pending { operation, since, deadline, room, traced: None }),
        };
        context.under_way.begun();
        if let Some(refusal) = self.rights.refusal(shared, &request) {
            self.answer(context, since, id, refused(refusal));
        } else if matches!(request, Request::Scan(_)) && self.cannot_read(context.configurations.borrow().topology()) {
            self.answer(context, since, id, refused(Refusal::BadRequest(CANNOT_READ_RING.to_owned())));
        } else if is_full {
            self.refuse_overloaded(context, since, id);
        } else if entries > LISTED_MAX {
            let text = "it lists more siblings than a key can have".to_owned();
            self.answer(context, since, id, refused(Refusal::BadRequest(text)));
        } else if let Some(response) = answer_of_shell(shared, &request) {
            self.answer(context, since, id, self.rights.shown(shared, response));
        } else if let Request::Top(command) = request {
            if !shared.ask_for_top(ClientTag { connection: self.number, request: id }, command) {
                self.refuse_overloaded(context, since, id);
            }
        } else if shared.refuses(&request) {
            self.answer(context, since, id, refused(Refusal::Stopping));
        } else {
            // Not before: what is refused takes nothing of what may be recorded.
            let traced = self.trace(context, &mut request, since, deadline);
            if let Some(pending) = self.pending.borrow_mut().get_mut(&id) {
                pending.traced = traced;
            }
            let tag = ClientTag { connection: self.number, request: id };
            let account = self.account.number;
            let elsewhere = match shared.shards.len() {
                1 => None,
                _ => route::of_client(&context.configurations.borrow(), shared.node, &request)
                    .filter(|shard| *shard != context.shard),
            };
            match elsewhere {
                None => context.push(Input::Client { account, tag, arrived: since, deadline, request }),
                Some(shard) => {
                    if !shared
                        .hand_over(shard, ShardMessage::Client { account, tag, arrived: since, deadline, request })
                    {
                        self.refuse_overloaded(context, since, id);
                    }
                }
            }
        }
        Ok(())
    }

    fn cannot_read(&self, topology: &Topology) -> bool {
        self.version < greeting::DOUBLING && topology.ring().partitions().is_doubled()
    }

    /// Begins to record it, if it belongs to a trace. What it causes is then caused by this node's part of that.
    fn trace(&self, context: &ShardContext, request: &mut Request, since: Instant, until: Instant) -> Option<SpanId> {
        let (operation, trace) = traces::of_client(request)?;
        let (role, from, parent) = (Role::Coordinator, &*self.who, *trace);
        let longest = context.deadline_max.get();
        let begun = Begun { role, operation, from, parent, owed: None, since, until, longest };
        let own = context.shared.traces.begin(&begun)?;
        *trace = own;
        Some(own.parent())
    }

    /// A frame was begun and there is no room for the rest of it. Its first bytes say which request it is.
    fn refuse_begun(&self, context: &ShardContext, begun: &[u8]) {
        context.shared.metrics.overloaded.inc();
        if let Ok((id, _)) = postcard::take_from_bytes::<u64>(begun)
            && !self.pending.borrow().contains_key(&id)
            && let Err(error) = self.push(context, id, refused(overloaded(context)))
        {
            tracing::error!(id, %error, "a refusal does not fit into a frame");
        }
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
        let response = match response {
            Response::Topology(topology) if self.cannot_read(&topology) => {
                refused(Refusal::BadRequest(CANNOT_READ_RING.to_owned()))
            }
            response => response,
        };
        // Many small requests can ask for more than memory holds, and a client need not read what it asked for. What has been
        // done is said in any case.
        let response = match response {
            Response::Stored(_)
            | Response::Deleted(_)
            | Response::Restored(_)
            | Response::Merged(_)
            | Response::Failed(_)
            | Response::Explained(Explained {
                response: ExplainedResponse::Stored(_) | ExplainedResponse::Deleted(_) | ExplainedResponse::Failed(_),
                ..
            }) => response,
            Response::Read(_)
            | Response::Explained(Explained { response: ExplainedResponse::Read(_), .. })
            | Response::State(_)
            | Response::Page(_)
            | Response::Topology(_)
            | Response::Status(_)
            | Response::Hints(_)
            | Response::Figures(_)
            | Response::Top(_)
            | Response::Aae(_)
            | Response::Damaged(_)
            | Response::Cluster(_)
            | Response::Drain(_) => {
                if self.outbound.is_open() {
                    response
                } else {
                    context.shared.metrics.overloaded.inc();
                    refused(overloaded(context))
                }
            }
        };
        context.counts.answered(pending.operation, OutcomeLabel::of(&response), now.since(pending.since));
        if let Some(part) = pending.traced {
            context.shared.traces.answered(part, OutcomeLabel::of(&response).name(), now);
        }
        let unexplained = unexplained(&response);
        let mut pushed = self.push(context, id, response);
        if let (Err(FrameError::TooLong(..)), Some(plain)) = (&pushed, unexplained) {
            // What was done is said in any case.
            pushed = self.push(context, id, plain);
        }
        if let Err(error) = pushed {
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
        let values: Vec<Bytes> = match &response {
            Response::Read(read) | Response::Explained(Explained { response: ExplainedResponse::Read(read), .. })
                if read.siblings.iter().any(|sibling| sibling.value.len() >= SHARED_FROM) =>
            {
                read.siblings.iter().map(|sibling| sibling.value.clone()).collect()
            }
            Response::State(page) => {
                let values = || page.live.iter().filter_map(|(_, version)| version.value.as_ref());
                let is_large = values().any(|value| value.len() >= SHARED_FROM);
                if is_large { values().cloned().collect() } else { Vec::new() }
            }
            _ => Vec::new(),
        };
        let ring_version = context.shared.ring_version();
        match &response {
            Response::Read(read) | Response::Explained(Explained { response: ExplainedResponse::Read(read), .. }) => {
                self.account.note_read(read.siblings.iter().map(|sibling| sibling.value.len()).sum());
            }
            Response::State(page) => self.account.note_read(value_bytes(page)),
            _ => {}
        }
        let load = FrameLoad { values, frame_max: FRAME_MAX, until: None };
        self.outbound.push(&ResponseFrame { id, ring_version, response }, &load)
    }

    /// Forgets requests that should have been answered long ago, so that a lost answer does not take up room for ever; and turns
    /// away a client that hardly reads what it has asked for.
    pub(crate) fn sweep(&self, context: &ShardContext, now: Instant) {
        let span = context.shared.net.arrival_timeout;
        let last = self.reading.get();
        if now.since(last.at) >= span {
            let taken = self.outbound.taken();
            let least = (last.waiting as u64).min(span.as_secs() * READS_PER_SECOND);
            self.reading.set(Reading { at: now, taken, waiting: self.outbound.bytes() });
            if taken - last.taken < least {
                return context.refuse(&self.connection, &self.who, &CloseReason::new(CloseCode::Slow, NOT_READ));
            }
        }
        let overdue = |pending: &Pending| now.since(pending.deadline) > OVERDUE_AFTER;
        let ids: Vec<u64> =
            self.pending.borrow().iter().filter(|(_, pending)| overdue(pending)).map(|(id, _)| *id).collect();
        for id in ids {
            tracing::error!(connection = self.number, id, "a request was never answered");
            if let Some(pending) = self.forget(context, id) {
                let took = pending.deadline.since(pending.since);
                context.counts.answered(pending.operation, OutcomeLabel::Refused, took);
            }
        }
    }

    fn forget(&self, context: &ShardContext, id: u64) -> Option<Pending> {
        let pending = self.pending.borrow_mut().remove(&id)?;
        context.under_way.ended(1);
        Some(pending)
    }

    /// What is unanswered is carried out all the same, and takes its room until then.
    fn leave(&self, context: &ShardContext) {
        let unanswered = std::mem::take(&mut *self.pending.borrow_mut());
        context.under_way.ended(unanswered.len());
        let mut left = context.left_behind.borrow_mut();
        left.extend(unanswered.into_iter().map(|(request, pending)| {
            (ClientTag { connection: self.number, request }, (pending.deadline + OVERDUE_AFTER, pending.room))
        }));
    }
}

fn value_bytes(page: &client::StatePage) -> usize {
    page.live.iter().filter_map(|(_, version)| version.value.as_ref()).map(Bytes::len).sum()
}

/// How much a request lists, and in how many bytes of memory: what a read says it has been shown, and the writes of a state. A few bytes
/// of a frame make many of these.
fn listed(request: &Request) -> (usize, usize) {
    fn of<T>(list: &[T]) -> (usize, usize) {
        (list.len(), size_of_val(list))
    }
    match request {
        Request::Get(get) | Request::Observed(Observed { request: ObservedRequest::Get(get), .. }) => of(&get.shown),
        Request::GetState(get) => of(&get.shown),
        Request::MergeState(merge) => of(merge.state.live()),
        _ => (0, 0),
    }
}

/// What the shell can say without a shard.
fn answer_of_shell(shared: &NodeContext, request: &Request) -> Option<Response> {
    Some(match request {
        Request::Status => Response::Status(Box::new(shared.status())),
        Request::Hints => Response::Hints(shared.hints()),
        Request::Figures => Response::Figures(Box::new(shared.figures())),
        Request::Damaged => Response::Damaged(shared.damaged()),
        Request::Aae(command) => {
            if let Some(command) = aae_command(*command) {
                shared.tell_aae(command);
            }
            Response::Aae(Box::new(shared.aae_status()))
        }
        Request::Drain(command) => Response::Drain(shared.drain(*command)),
        Request::Topology
        | Request::Get(_)
        | Request::Put(_)
        | Request::Delete(_)
        | Request::Scan(_)
        | Request::Restore(_)
        | Request::GetState(_)
        | Request::MergeState(_)
        | Request::Observed(_)
        | Request::Top(_)
        | Request::Cluster(_) => return None,
    })
}

/// The same without its explanation, if it has one.
fn unexplained(response: &Response) -> Option<Response> {
    match response {
        Response::Explained(explained) => Some(explained.response.clone().into()),
        _ => None,
    }
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
    let retry_after_ms = crate::config::as_ms(context.retry_after.get());
    Refusal::Overloaded { retry_after_ms }
}

fn refused(refusal: Refusal) -> Response {
    Response::Failed(Failure::Refused(refusal))
}

/// Every sibling of the largest state that a replica takes.
const LISTED_MAX: usize = 1 << 16;

/// A client that takes in less of what waits for it is shown out: 16 KiB a second.
const READS_PER_SECOND: u64 = 16 << 10;

const NO_PLACE: &str = "this node has as many client connections as it may, or as many with this certificate; close some, or raise `limits.memory`";

const CANNOT_READ_RING: &str = "the partitions of this cluster have been doubled, and the client is of a release that cannot read such a ring: update it";

const NO_GREETING: &str = "the client does not say in time which protocol versions it speaks";

const NOT_READ: &str = "the client does not read the answers to what it has asked for";

/// Beyond a request's deadline; machines answer at the deadline itself.
const OVERDUE_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use driftless_proto::observed::Explanation;

    use super::*;

    #[test]
    fn an_answer_whose_explanation_does_not_fit_is_given_without_it() {
        let deleted =
            Response::Deleted(client::Deleted { existed: true, acks: 2, primaries: 2, siblings: 0, basis: None });
        let long = Explanation::by("n".repeat(FRAME_MAX), 1);
        assert_eq!(unexplained(&deleted.clone().explained(long)), Some(deleted.clone()));
        assert_eq!(unexplained(&deleted), None);
    }

    #[test]
    fn the_page_of_the_wire_says_what_is_asked_of_a_client() {
        let code = [("LISTED_MAX", LISTED_MAX as u64), ("READS_PER_SECOND", READS_PER_SECOND)];
        let page = include_str!("../../../docs/wire-format.md");
        driftless_testkit::pages::assert_constants(page, "node/src/net/clients.rs", &code);
    }
}
