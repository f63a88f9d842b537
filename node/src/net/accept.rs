//! Connections that others open: handshake, then by protocol and certificate to the right conversation.

use std::cell::RefCell;
use std::rc::Rc;

use driftless_proto::frame::{ALPN_CLIENT, ALPN_PEER};
use driftless_ring::NodeId;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming, TransportErrorCode};
use rustls::pki_types::CertificateDer;

use super::admitted::Admitted;
use super::clients::{self, Clients};
use super::endpoint::ShardEndpoint;
use super::handshakes::{Admission, Handshake, Handshakes};
use super::peers::{self, Ended, Links};
use super::problem;
use super::refusal::{CloseCode, CloseReason};
use super::rights::Rights;
use super::shard_context::ShardContext;
use super::subject::Holder;
use super::verified::Verified;

/// What a shard serves its connections with: what its tasks share, and who is connected.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) context: Rc<ShardContext>,
    pub(crate) clients: Rc<Clients>,
    pub(crate) links: Rc<RefCell<Links>>,
    pub(crate) endpoint: Rc<ShardEndpoint>,
}

/// Takes in connections until the endpoint is closed.
pub(crate) async fn accept(tables: Tables) {
    let Tables { context, endpoint, .. } = &tables;
    let handshakes = Handshakes::new(context.shared.net.handshakes_max);
    while let Some(incoming) = endpoint.quic().accept().await {
        if context.shared.is_stopping() {
            incoming.refuse();
            continue;
        }
        let address = incoming.remote_address();
        let is_member = context.shared.is_member_address(address.ip());
        // One that cannot be sent a Retry has answered one.
        let is_proven = incoming.remote_address_validated() || !incoming.may_retry();
        match handshakes.admit(address.ip(), is_proven, is_member) {
            Admission::Welcome(handshake) => {
                tokio::task::spawn_local(welcome(tables.clone(), incoming, handshake));
            }
            Admission::Prove => {
                context.shared.metrics.handshakes_retried.inc();
                // It fails only for one that has answered a Retry.
                let _ = incoming.retry();
            }
            Admission::Refused => {
                context.shared.metrics.connections_refused.inc();
                context.log_refusal(&address.ip().to_string(), address, "too many handshakes are under way");
                incoming.refuse();
            }
        }
    }
}

async fn welcome(tables: Tables, incoming: Incoming, handshake: Handshake) {
    let Tables { context, clients, links, .. } = tables;
    let address = incoming.remote_address();
    let shaken = tokio::time::timeout(context.shared.net.handshake_timeout, incoming.into_future()).await;
    drop(handshake);
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        // It has stopped speaking: there is nobody to tell.
        Err(_) => return,
        Ok(Err(error)) if went_away(&error) => return,
        Ok(Err(error)) => {
            context.shared.metrics.connections_refused.inc();
            context.log_refusal(&address.ip().to_string(), address, &format!("TLS handshake failed: {error}"));
            return;
        }
    };
    let verified = match verified(&connection, &context) {
        Ok(verified) => Rc::new(verified),
        Err(reason) => return context.refuse(&connection, &address.ip().to_string(), &reason),
    };
    let (subject, who) = (&verified.subject, verified.subject.to_string());
    let _admittance = Admitted::enter(&context, &connection, verified.clone());
    match (protocol(&connection).as_deref(), subject.holder) {
        (Some(ALPN_CLIENT), Holder::Node | Holder::Client(_)) => {
            let rights = Rights::of(&context.shared, subject, address);
            clients::serve(context, &clients, connection, &who, rights).await;
        }
        (Some(ALPN_PEER), Holder::Node) => {
            let peer = NodeId::of_name(&subject.name);
            let ended = peers::accept(&context, &links, &connection, &subject.name).await;
            after(&context, &connection, peer, &who, ended);
        }
        (protocol, _) => {
            let protocol = String::from_utf8_lossy(protocol.unwrap_or_default()).into_owned();
            let text = format!("the certificate of {who} does not allow protocol {protocol}");
            context.refuse(&connection, &who, &CloseReason::new(CloseCode::Identity, text));
        }
    }
}

/// Whether the other side left in the middle of the handshake: nothing was refused, by nobody. A close that the
/// application asked for has no reason of its own before the keys are there (RFC 9000, section 10.2.3).
fn went_away(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::TimedOut | ConnectionError::Reset | ConnectionError::LocallyClosed => true,
        ConnectionError::ApplicationClosed(_) => true,
        ConnectionError::ConnectionClosed(close) => close.error_code == TransportErrorCode::APPLICATION_ERROR,
        _ => false,
    }
}

/// Says why a conversation with a peer came to nothing, on either side of it, and keeps it for whoever asks about that peer.
pub(crate) fn after(context: &ShardContext, connection: &Connection, peer: NodeId, who: &str, ended: Ended) {
    let address = connection.remote_address();
    match ended {
        Ended::Refused(reason) => {
            context.shared.note_problem(peer, problem::of_refusal(&reason));
            context.refuse(connection, who, &reason);
        }
        Ended::Never(error) => {
            context.shared.note_problem(peer, problem::of_error(address, &error));
            match error {
                ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() != 0 => {
                    let reason = format!("refused by the other side: {}", String::from_utf8_lossy(&close.reason));
                    context.log_refusal(who, address, &reason);
                }
                error => tracing::debug!(who, %error, "connection ended before hello"),
            }
        }
        Ended::Lost | Ended::Spare => {}
    }
}

/// What the other side has shown, if it is of this cluster and not denied. The handshake has verified the signatures.
pub(crate) fn verified(connection: &Connection, context: &ShardContext) -> Result<Verified, CloseReason> {
    let refuse = |text: String| CloseReason::new(CloseCode::Identity, text);
    let identity = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
    let chain = identity.ok_or_else(|| refuse("no certificate was shown".to_owned()))?;
    let verified =
        Verified::of_chain(&chain).map_err(|error| refuse(format!("the certificate cannot be used: {error}")))?;
    let (ours, theirs) = (&context.shared.cluster, &verified.subject.cluster);
    if theirs != ours {
        return Err(refuse(format!("the certificate is of cluster {theirs:?}, this is {ours:?}")));
    }
    match verified.denied_by(&context.shared.credentials.allowed().1) {
        Some(text) => Err(CloseReason::new(CloseCode::Revoked, text)),
        None => Ok(verified),
    }
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}
