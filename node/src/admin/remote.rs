//! The admin server for other machines: the same pages, over TLS.
//!
//! | asked for | by |
//! |---|---|
//! | `/health`, `/ready` | anybody: a prober has no certificate, and is told no more than whether the node serves |
//! | all of it, and what is the matter | a certificate of this cluster that is not denied, of a node or of a client that may read |
//!
//! Certificates are those that the node shows its clients, also after they were changed.

#![allow(clippy::disallowed_methods, reason = "the admin server is a part of the shell, which spawns")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use driftless_proto::Role;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::serve::{ACCEPT_PAUSE, Bounds, Places, converse};
use crate::net::node_context::NodeContext;
use crate::net::verified::Verified;

/// Who asks, from where: whom a connection has shown to be, if it has shown anything.
#[derive(Clone)]
pub(super) struct Visitor {
    verified: Option<Arc<Verified>>,
    address: SocketAddr,
}

/// Connections by address, so that nobody takes all places. A place is given back when this is dropped.
struct Visit {
    by_address: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    ip: IpAddr,
}

impl Visit {
    /// Nothing if there are half as many from there as there may be in all.
    fn begin(by_address: &Arc<Mutex<BTreeMap<IpAddr, usize>>>, ip: IpAddr, bounds: Bounds) -> Option<Visit> {
        let mut visits = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = visits.entry(ip).or_default();
        if *count >= bounds.connections / 2 {
            return None;
        }
        *count += 1;
        Some(Visit { by_address: by_address.clone(), ip })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut visits = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = visits.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                visits.remove(&self.ip);
            }
        }
    }
}

/// Serves for ever.
pub(super) async fn serve(shared: &Arc<NodeContext>, listener: &TcpListener, router: Router, bounds: Bounds) {
    let places = Places::new(bounds);
    let by_address = Arc::default();
    let for_pages = shared.clone();
    let guarded = axum::middleware::from_fn(move |request: Request, next: Next| {
        let shared = for_pages.clone();
        async move { Ok::<_, Infallible>(only_for_readers(&shared, request, next).await) }
    });
    let router = router.layer(guarded);
    loop {
        let place = places.next().await;
        match listener.accept().await {
            Ok((stream, address)) => {
                let Some(visit) = Visit::begin(&by_address, address.ip(), bounds) else { continue };
                let (place, router, bounds) = places.seat(place, &router);
                let shared = shared.clone();
                tokio::spawn(async move {
                    welcome(&shared, stream, address, router, bounds).await;
                    drop((place, visit));
                });
            }
            Err(error) => {
                tracing::warn!(node = shared.name, %error, "an admin connection cannot be taken in; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(shared: &NodeContext, stream: TcpStream, address: SocketAddr, router: Router, bounds: Bounds) {
    let acceptor = TlsAcceptor::from(shared.credentials.shown().admin);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        // It has stopped speaking: there is nobody to tell.
        Err(_) => return,
        // A port scan, or a balancer that looks whether anybody listens.
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return,
        Ok(Err(error)) => {
            shared.audit.refused(shared, &address.ip().to_string(), address, &format!("TLS handshake failed: {error}"));
            return;
        }
    };
    let verified = stream.get_ref().1.peer_certificates().and_then(|chain| verified(shared, chain));
    let visitor = Visitor { verified, address };
    converse(stream, router.layer(axum::Extension(visitor)), bounds).await;
}

/// Who holds the certificate, if it is one of this cluster. The handshake has verified the signatures.
fn verified(shared: &NodeContext, chain: &[CertificateDer<'_>]) -> Option<Arc<Verified>> {
    let verified = Verified::of_chain(chain).ok()?;
    (verified.subject.cluster == shared.cluster).then(|| Arc::new(verified))
}

async fn only_for_readers(shared: &NodeContext, request: Request, next: Next) -> Response {
    let refused = match request.extensions().get::<Visitor>() {
        Some(visitor) => refusal(shared, visitor),
        None => Some(NO_CERTIFICATE),
    };
    let is_for_anybody = ["/health", "/ready"].contains(&request.uri().path());
    match refused {
        None => next.run(request).await,
        Some(_) if is_for_anybody => {
            let answered = next.run(request).await;
            if answered.status().is_success() { answered } else { (answered.status(), NOT_SERVING).into_response() }
        }
        Some(text) => (StatusCode::FORBIDDEN, text).into_response(),
    }
}

/// Why the visitor may not read, if that is so. Of one that has shown a certificate it is written down.
pub(super) fn refusal(shared: &NodeContext, visitor: &Visitor) -> Option<&'static str> {
    let Some(verified) = &visitor.verified else { return Some(NO_CERTIFICATE) };
    let allowed = shared.credentials.allowed().1;
    let text = if verified.denied_by(&allowed).is_some() || verified.is_expired((shared.environment.wall)()) {
        "this certificate does not count any more\n"
    } else if allowed.grant(&verified.subject).role < Role::Reader {
        "the role of this certificate does not allow reading\n"
    } else {
        return None;
    };
    shared.audit.refused(shared, &verified.subject.to_string(), visitor.address, text.trim_end());
    Some(text)
}

const NO_CERTIFICATE: &str = "show a certificate of this cluster (`driftless cert client NAME --role reader`)\n";

/// What those are told that may not read.
const NOT_SERVING: &str = "not now: ask with a certificate that may read for what is the matter\n";

/// From the connection to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
