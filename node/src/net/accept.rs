//! Connections that others open: handshake, then by protocol and certificate to the right conversation.

use std::cell::Cell;
use std::rc::Rc;

use driftless_proto::frame::{ALPN_CLIENT, ALPN_PEER};
use driftless_ring::NodeId;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, TransportErrorCode};
use rustls::pki_types::CertificateDer;

use super::clients;
use super::local::Local;
use super::peers::{self, Ended};
use super::refusal::{CloseCode, CloseReason};
use super::subject::{Role, Subject};

/// Takes in connections until the endpoint is closed.
pub(crate) async fn accept(local: Rc<Local>, endpoint: Endpoint) {
    let handshakes = Rc::new(Cell::new(0));
    while let Some(incoming) = endpoint.accept().await {
        if local.shared.is_stopping() {
            incoming.refuse();
        } else if handshakes.get() >= local.shared.net.handshakes_max {
            // A client or peer that can prove its address may come back in a moment; others cost nothing more.
            if incoming.may_retry() {
                let _ = incoming.retry();
            } else {
                incoming.refuse();
            }
        } else {
            tokio::task::spawn_local(welcome(local.clone(), incoming, handshakes.clone()));
        }
    }
}

async fn welcome(local: Rc<Local>, incoming: Incoming, handshakes: Rc<Cell<usize>>) {
    let address = incoming.remote_address();
    handshakes.set(handshakes.get() + 1);
    let shaken = incoming.await;
    handshakes.set(handshakes.get() - 1);
    let connection = match shaken {
        Ok(connection) => connection,
        Err(error) if went_away(&error) => return,
        Err(error) => {
            local.shared.metrics.connections_refused.inc();
            local.log_refusal(&address.ip().to_string(), address, &format!("TLS handshake failed: {error}"));
            return;
        }
    };
    let subject = match subject(&connection, &local) {
        Ok(subject) => subject,
        Err(reason) => return local.refuse(&connection, &address.ip().to_string(), &reason),
    };
    let who = subject.to_string();
    match (protocol(&connection).as_deref(), subject.role) {
        (Some(ALPN_CLIENT), Role::Node | Role::Client) => clients::serve(local, connection, &who).await,
        (Some(ALPN_PEER), Role::Node) => {
            let ended = peers::accept(&local, &connection, NodeId::of_name(&subject.name)).await;
            after(&local, &connection, &who, ended);
        }
        (protocol, _) => {
            let protocol = String::from_utf8_lossy(protocol.unwrap_or_default()).into_owned();
            let text = format!("the certificate of {who} does not allow protocol {protocol}");
            local.refuse(&connection, &who, &CloseReason::new(CloseCode::Identity, text));
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

/// Says why a conversation with a peer came to nothing, on either side of it.
pub(crate) fn after(local: &Local, connection: &Connection, who: &str, ended: Ended) {
    match ended {
        Ended::Refused(reason) => local.refuse(connection, who, &reason),
        Ended::Never(ConnectionError::ApplicationClosed(close)) if close.error_code.into_inner() != 0 => {
            let reason = format!("refused by the other side: {}", String::from_utf8_lossy(&close.reason));
            local.log_refusal(who, connection.remote_address(), &reason);
        }
        Ended::Never(error) => tracing::debug!(who, %error, "connection ended before hello"),
        Ended::Lost => {}
    }
}

/// Whom the other side's certificate names, if it is of this cluster. The handshake has verified the signature.
pub(crate) fn subject(connection: &Connection, local: &Local) -> Result<Subject, CloseReason> {
    let refuse = |text: String| CloseReason::new(CloseCode::Identity, text);
    let identity = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
    let leaf = identity.as_ref().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| refuse("no certificate was shown".to_owned()))?;
    let subject =
        Subject::of_certificate(leaf).map_err(|error| refuse(format!("the certificate cannot be used: {error}")))?;
    let ours = local.shared.topology.cluster();
    if subject.cluster != ours {
        return Err(refuse(format!("the certificate is of cluster {:?}, this is {ours:?}", subject.cluster)));
    }
    Ok(subject)
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}
