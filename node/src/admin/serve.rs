//! Taking in connections: so many at once, each for so long, whatever happens to any of them.
//!
//! ```text
//! place free ──▶ accept ──▶ one request, its head within 2 s, its answer read within 10 s ──▶ closed ──▶ place free
//!                  │                                    └── or for as long as it goes on, and is read (`events`)
//!                  └── out of descriptors, or whatever else: a line, a pause, and on
//! ```
//! Connections beyond that wait in the kernel, where they take no descriptor of this process: the store needs those. If no place becomes free
//! for longer than anybody takes who does not hold on to one, those that wait are told so: a browser would only spin.

#![allow(clippy::disallowed_methods, reason = "the admin server is a part of the shell, which spawns")]

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What connections may take.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// At once.
    pub(super) connections: usize,
    /// From the connection to the end of the request's head. On loopback it is there at once.
    head: Duration,
    /// From the connection to the end of the answer; of one that goes on without an end, between two parts of it.
    whole: Duration,
    /// For a place.
    patience: Duration,
}

impl Bounds {
    /// A scraper, a probe or two, and some people. Who says nothing has been shown out before those that wait lose their patience.
    pub(super) const USUAL: Bounds = Bounds {
        connections: 32,
        head: Duration::from_secs(2),
        whole: Duration::from_secs(10),
        patience: Duration::from_secs(3),
    };

    /// Of a connection that is told that there is no place.
    const TURNED_AWAY: Bounds = Bounds {
        connections: 8,
        head: Duration::from_millis(500),
        whole: Duration::from_secs(1),
        patience: Duration::ZERO,
    };
}

/// The places for connections.
pub(super) struct Places {
    served: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    /// Patience has run out, and no place was free since: whoever comes is turned away at once, and not one after the other.
    is_full: AtomicBool,
    bounds: Bounds,
}

impl Places {
    pub(super) fn new(bounds: Bounds) -> Places {
        let turned_away = Arc::new(Semaphore::new(Bounds::TURNED_AWAY.connections));
        Places {
            served: Arc::new(Semaphore::new(bounds.connections)),
            turned_away,
            is_full: AtomicBool::new(false),
            bounds,
        }
    }

    /// Waits until a connection may be taken in.
    pub(super) async fn next(&self) -> Place {
        const OPEN: &str = "the semaphore is never closed";
        if let Some(place) = self.free() {
            return Place::Served(place);
        }
        if !self.is_full.load(Ordering::Relaxed) {
            match tokio::time::timeout(self.bounds.patience, self.served.clone().acquire_owned()).await {
                Ok(place) => return Place::Served(place.expect(OPEN)),
                Err(_) => self.is_full.store(true, Ordering::Relaxed),
            }
        }
        Place::TurnedAway(self.turned_away.clone().acquire_owned().await.expect(OPEN))
    }

    /// A place, if there is one at once.
    fn free(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.served.clone().try_acquire_owned().ok()?;
        self.is_full.store(false, Ordering::Relaxed);
        Some(place)
    }

    /// What the connection is told that has come, and within which bounds. A place may have become free before it came.
    pub(super) fn seat(&self, place: Place, pages: &Router) -> (OwnedSemaphorePermit, Router, Bounds) {
        let turned_away = match place {
            Place::Served(place) => return (place, pages.clone(), self.bounds),
            Place::TurnedAway(turned_away) => turned_away,
        };
        if let Some(place) = self.free() {
            return (place, pages.clone(), self.bounds);
        }
        let count = self.bounds.connections;
        let text = format!(
            "{count} connections to this port are open, and more may not be: close some, such as status pages\n"
        );
        let answer = move || async move { (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], text) };
        (turned_away, Router::new().fallback(answer), Bounds::TURNED_AWAY)
    }
}

/// Of one connection; given back when it is dropped.
pub(super) enum Place {
    Served(OwnedSemaphorePermit),
    TurnedAway(OwnedSemaphorePermit),
}

/// Serves for ever.
pub(super) async fn serve(node: &str, listener: &TcpListener, router: Router, bounds: Bounds) {
    let places = Places::new(bounds);
    loop {
        let place = places.next().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (place, router, bounds) = places.seat(place, &router);
                tokio::spawn(async move {
                    converse(stream, router, bounds).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(node, %error, "an admin connection cannot be taken in; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

pub(super) async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, bounds: Bounds) {
    let mut http = http1::Builder::new();
    // One request a connection: an idle one would hold a place.
    http.timer(TokioTimer::new()).header_read_timeout(bounds.head).keep_alive(false);
    let pulse = Arc::new(Pulse::default());
    let router = router.layer(axum::Extension(pulse.clone()));
    let mut conversation = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let mut beats = 0;
    // What went wrong is the other side's to know.
    while tokio::time::timeout(bounds.whole, &mut conversation).await.is_err() {
        let before = std::mem::replace(&mut beats, pulse.beats());
        if before == beats {
            return;
        }
    }
}

/// Shows that an answer which has no end goes on, and is read: it has been asked for its next part.
#[derive(Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Refuses whoever asks for this port under somebody's name: a page of that name, in a browser of this machine, that lets the
/// name point here (DNS rebinding).
pub(super) async fn asked_for_by_address(request: Request, next: Next) -> Result<Response, Infallible> {
    match foreign_name(request.headers()) {
        None => Ok(next.run(request).await),
        Some(name) => {
            let text = format!(
                "this is the admin port of a Driftless node: ask for it by its address or as localhost, not as {name:?}\n"
            );
            Ok((StatusCode::MISDIRECTED_REQUEST, text).into_response())
        }
    }
}

/// The name in the header `Host`, unless it is an address or localhost.
fn foreign_name(headers: &HeaderMap) -> Option<String> {
    let host = String::from_utf8_lossy(headers.get(header::HOST)?.as_bytes()).into_owned();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_ours = bare.parse::<IpAddr>().is_ok() || bare.eq_ignore_ascii_case("localhost");
    (!is_ours).then(|| name.to_owned())
}

/// When nothing can be accepted, trying at once again would only take a core.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::routing::get;
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn foreign(host: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        foreign_name(&headers)
    }

    #[test]
    fn the_admin_port_is_asked_for_by_address_or_as_localhost() {
        for host in ["127.0.0.1", "127.0.0.1:7401", "localhost:7401", "LOCALHOST", "[::1]:7401", "[::1]"] {
            assert_eq!(foreign(host), None, "{host}");
        }
        assert_eq!(foreign("evil.example:7401").as_deref(), Some("evil.example"));
        assert_eq!(foreign("localhost.evil.example").as_deref(), Some("localhost.evil.example"));
        assert_eq!(foreign_name(&HeaderMap::new()), None, "HTTP/1.0 has none");
    }

    async fn ask(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Answers for as long as is asked for, a line at a time.
    fn endless(parts: usize) -> Router {
        let answer = move |axum::Extension(pulse): axum::Extension<Arc<Pulse>>| async move {
            let lines = futures::stream::unfold(parts, move |left| {
                let pulse = pulse.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    pulse.beat();
                    let left = left.checked_sub(1)?;
                    Some((Ok::<_, Infallible>(format!("{left}\n")), left))
                }
            });
            axum::body::Body::from_stream(lines)
        };
        Router::new().route("/", get(answer))
    }

    const BRIEF: Bounds = Bounds {
        connections: 4,
        head: Duration::from_millis(200),
        whole: Duration::from_millis(200),
        patience: Duration::from_secs(3600),
    };

    #[tokio::test]
    async fn an_answer_that_goes_on_is_not_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { serve("n1", &listener, endless(50), BRIEF).await });
        let answer = ask(address).await;
        // In chunks; the last one is the end.
        assert!(answer.contains("\n0\n") && answer.ends_with("0\r\n\r\n"), "{answer}");
        server.abort();
    }

    /// Pages took all places with what has no end, and the next browser span for ever.
    #[tokio::test]
    async fn who_finds_no_place_for_long_is_told_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounds = Bounds { patience: Duration::from_millis(50), ..BRIEF };
        let server = tokio::spawn(async move { serve("n1", &listener, endless(usize::MAX), bounds).await });
        let mut watchers = Vec::new();
        for _ in 0..bounds.connections {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut begun = [0; 12];
            stream.read_exact(&mut begun).await.unwrap();
            assert_eq!(&begun, b"HTTP/1.1 200");
            // What comes is read, so that none is cut.
            watchers.push(tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await }));
        }
        for _ in 0..3 {
            let answer = ask(address).await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("4 connections to this port"), "{answer}");
        }
        watchers.pop().unwrap().abort();
        let seated = async {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                let mut begun = [0; 12];
                stream.read_exact(&mut begun).await.unwrap();
                if &begun == b"HTTP/1.1 200" {
                    break;
                }
            }
        };
        let noticed = tokio::time::timeout(Duration::from_secs(60), seated).await;
        noticed.expect("a place is free again once the end of that one has been noticed");
        server.abort();
    }

    /// Each had its own three seconds, so that the tenth heard of it after thirty.
    #[tokio::test]
    async fn once_patience_has_run_out_nobody_else_waits_until_a_place_was_free() {
        let places = Places::new(Bounds { connections: 1, patience: Duration::from_millis(1), ..BRIEF });
        let Place::Served(only) = places.next().await else { panic!("there is a place") };
        assert!(matches!(places.next().await, Place::TurnedAway(_)));
        assert!(matches!(places.next().now_or_never(), Some(Place::TurnedAway(_))), "at once");
        drop(only);
        let Some(Place::Served(only)) = places.next().now_or_never() else { panic!("there is a place again") };
        assert!(places.next().now_or_never().is_none(), "and patience with it");
        drop(only);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_cut() {
        let (mut client, server) = tokio::io::duplex(256);
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        // Comes to an end, though the answer does not and the client is there.
        converse(server, endless(usize::MAX), BRIEF).await;
        drop(client);
    }

    /// A local user opens many connections and says nothing, or half of something.
    #[tokio::test]
    async fn connections_that_say_nothing_leave_their_places_to_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "well" }));
        let bounds = Bounds { head: Duration::from_millis(50), whole: Duration::from_secs(10), ..BRIEF };
        let server = tokio::spawn(async move { serve("n1", &listener, router, bounds).await });
        let mut idle = Vec::new();
        for number in 0..3 * bounds.connections {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: lo").await.unwrap();
            }
            idle.push(stream);
        }
        // Behind all of them, it is answered all the same: a place is free again when its connection says nothing in time.
        assert!(ask(address).await.ends_with("well"));
        for mut stream in idle {
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said).await;
            assert!(!String::from_utf8_lossy(&said).contains("well"), "it was shown out");
        }
        assert!(!server.is_finished());
        server.abort();
    }
}
