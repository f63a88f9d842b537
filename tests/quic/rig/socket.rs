//! The UDP socket that quinn gets: turmoil's, with the [`Network`]'s faults before it.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt as _;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use turmoil::net::UdpSocket;

use super::network::{Network, Packet};

/// A socket of one host.
pub(crate) struct SimulatedSocket {
    host: IpAddr,
    network: Network,
    inner: Mutex<Inner>,
    rebind: AtomicBool,
    deaf: AtomicBool,
}

struct Inner {
    socket: Arc<UdpSocket>,
    port: u16,
    receiving: Receiving,
    /// Waits for what arrives.
    reader: Option<Waker>,
}

/// Under way until something has arrived.
type Receiving = Pin<Box<dyn Future<Output = io::Result<(Vec<u8>, SocketAddr)>> + Send>>;

impl SimulatedSocket {
    /// To be called on that host. Port 0 is any.
    pub(crate) fn bind(network: &Network, host: IpAddr, port: u16) -> io::Result<Arc<SimulatedSocket>> {
        Ok(Arc::new(SimulatedSocket {
            host,
            network: network.clone(),
            inner: Mutex::new(Inner::bind(port)?),
            rebind: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        }))
    }

    /// Nothing that is sent to it is taken in any more.
    pub(crate) fn deafen(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// With its next packet the socket has another port, as if a router had forgotten the old one. What is on its way to
    /// the old one is lost.
    pub(crate) fn rebind(&self) {
        self.rebind.store(true, Ordering::Relaxed);
    }

    pub(crate) fn port(&self) -> u16 {
        self.lock().port
    }

    fn send(&self, to: SocketAddr, contents: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        if self.rebind.swap(false, Ordering::Relaxed) {
            *inner = Inner { reader: inner.reader.take(), ..Inner::bind(0)? };
            if let Some(reader) = &inner.reader {
                reader.wake_by_ref();
            }
        }
        let at = turmoil::sim_elapsed().unwrap_or_default();
        let packet = Packet { at, from: SocketAddr::new(self.host, inner.port), to, length: contents.len() };
        for arriving in self.network.pass(packet, contents) {
            // Nobody there is a packet lost, as on any network.
            let _ = inner.socket.try_send_to(&arriving, to);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for SimulatedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        transmit.contents.chunks(segment).try_for_each(|contents| self.send(transmit.destination, contents))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.deaf.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let mut inner = self.lock();
        let Poll::Ready(received) = inner.receiving.as_mut().poll(cx) else {
            inner.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        inner.receiving = receive(inner.socket.clone());
        let (bytes, addr) = received?;
        bufs[0][..bytes.len()].copy_from_slice(&bytes);
        meta[0] = RecvMeta { addr, len: bytes.len(), stride: bytes.len(), ecn: None, dst_ip: Some(self.host) };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(self.host, self.lock().port))
    }

    /// As on Linux: quinn looks for the path's largest packet.
    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for SimulatedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port())
    }
}

/// Turmoil takes whatever it is given.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Inner {
    fn bind(port: u16) -> io::Result<Inner> {
        let bound = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).now_or_never();
        let socket = Arc::new(bound.expect("turmoil binds at once")?);
        let port = socket.local_addr()?.port();
        Ok(Inner { receiving: receive(socket.clone()), socket, port, reader: None })
    }
}

fn receive(socket: Arc<UdpSocket>) -> Receiving {
    Box::pin(async move {
        let mut buffer = vec![0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).await?;
        buffer.truncate(length);
        Ok((buffer, from))
    })
}
