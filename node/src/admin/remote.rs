//! The admin server for other machines: the same pages, over TLS.
//!
//! | asked for | by |
//! |---|---|
//! | `/health`, `/ready` | anybody: a prober has no certificate, and they say no more than whether the node serves |
//! | `/metrics`, `/status` | a certificate of this cluster that is not denied, of a node or of a client that may read |
//!
//! Certificates are those that the node shows its clients, also after they were changed.

#![allow(clippy::disallowed_methods, reason = "the admin server is a part of the shell, which spawns")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use driftless_proto::Role;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::serve::{ACCEPT_PAUSE, Bounds, converse};
use crate::net::node_context::NodeContext;
use crate::net::rights::grant;
use crate::net::verified::Verified;

/// Whom a connection has shown to be, if it has shown anything.
#[derive(Clone)]
struct Visitor(Option<Arc<Verified>>);

/// Serves for ever.
pub(super) async fn serve(shared: &Arc<NodeContext>, listener: &TcpListener, router: Router, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let for_pages = shared.clone();
    let guarded = axum::middleware::from_fn(move |request: Request, next: Next| {
        let shared = for_pages.clone();
        async move { Ok::<_, Infallible>(only_for_readers(&shared, request, next).await) }
    });
    let router = router.layer(guarded);
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, address)) => {
                let (shared, router) = (shared.clone(), router.clone());
                tokio::spawn(async move {
                    welcome(&shared, stream, address, router, bounds).await;
                    drop(place);
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
        Ok(Err(error)) => {
            shared.audit.refused(shared, &address.ip().to_string(), address, &format!("TLS handshake failed: {error}"));
            return;
        }
    };
    let visitor = Visitor(stream.get_ref().1.peer_certificates().and_then(|chain| verified(shared, chain)));
    converse(stream, router.layer(axum::Extension(visitor)), bounds).await;
}

/// Who holds the certificate, if it is one of this cluster. The handshake has verified the signatures.
fn verified(shared: &NodeContext, chain: &[CertificateDer<'_>]) -> Option<Arc<Verified>> {
    let verified = Verified::of_chain(chain).ok()?;
    (verified.subject.cluster == shared.topology.cluster()).then(|| Arc::new(verified))
}

async fn only_for_readers(shared: &NodeContext, request: Request, next: Next) -> Response {
    let refuse = |text: &'static str| (StatusCode::FORBIDDEN, text).into_response();
    if ["/health", "/ready"].contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let Some(Visitor(Some(verified))) = request.extensions().get::<Visitor>() else {
        return refuse("show a certificate of this cluster (`driftless cert client NAME --role reader`)\n");
    };
    let access = shared.credentials.access().1;
    if verified.denied_by(&access).is_some() || verified.is_expired((shared.environment.wall)()) {
        return refuse("this certificate does not count any more\n");
    }
    if grant(&access, &verified.subject).role < Role::Reader {
        return refuse("the role of this certificate does not allow reading\n");
    }
    next.run(request).await
}

/// From the connection to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
