//! foca, and what lies between it and us: randomness, timers, outputs.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use driftless_ring::NodeId;
use foca::{
    Codec, Config, Foca, Header, Member, Message, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec,
    Runtime, Timer,
};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::life::Life;
use super::{DetectorSettings, Output};
use crate::time::Instant;

/// The protocol proper.
pub(super) type Swim = Foca<Life, PostcardCodec, Dice, NoCustomBroadcast>;

pub(super) fn new(me: Life, settings: &DetectorSettings, seed: [u8; 32]) -> Swim {
    let config = Config {
        probe_period: settings.probe_period,
        probe_rtt: settings.probe_rtt,
        num_indirect_probes: INDIRECT_PROBES,
        max_transmissions: TRANSMISSIONS,
        suspect_to_down_after: settings.suspect_to_down,
        // Lives are forgotten when the next one is met, and there are no more nodes than members.
        remove_down_after: None,
        max_packet_size: DATAGRAM_MAX,
        notify_down_members: true,
        periodic_announce: None,
        // The detector announces by itself: foca stops to once nobody is left.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: settings.probe_period / 2, num_members: INDIRECT_PROBES }),
    };
    Foca::new(me, config, Dice(StdRng::from_seed(seed)), PostcardCodec)
}

/// A datagram that tells a member what is said of it, as foca would. `None` cannot happen: it is short.
pub(super) fn rumour(me: Life, about: Member<Life>) -> Option<Bytes> {
    // Taken for "at least zero": foca does not say how often this node has contradicted.
    let header = Header { src: me, src_incarnation: 0, dst: *about.id(), message: Message::Gossip };
    let mut bytes = BytesMut::new();
    PostcardCodec.encode_header(&header, &mut bytes).ok()?;
    bytes.put_u16(1);
    PostcardCodec.encode_member(&about, &mut bytes).ok()?;
    Some(bytes.freeze())
}

/// A datagram with other news in the place of its own: what is before them stays as it is.
pub(super) fn with_news(head: &[u8], news: &[Member<Life>]) -> Option<Bytes> {
    let mut bytes = BytesMut::from(head);
    bytes.put_u16(u16::try_from(news.len()).ok()?);
    for member in news {
        PostcardCodec.encode_member(member, &mut bytes).ok()?;
    }
    Some(bytes.freeze())
}

/// What foca wants to be told, and when, in the detector's own time.
#[derive(Default)]
pub(super) struct Timers {
    queue: BTreeMap<(Instant, u64), Timer<Life>>,
    submitted: u64,
}

impl Timers {
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer<Life>> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Takes away half of the probe under way: at its end foca finds it incomplete, and begins another without blaming
    /// anybody.
    pub(super) fn forgive(&mut self) {
        self.queue.retain(|_, timer| !matches!(timer, Timer::SendIndirectProbe { .. }));
    }
}

/// Where foca's effects go.
pub(super) struct Effects<'a> {
    pub(super) me: NodeId,
    pub(super) now: Instant,
    pub(super) timers: &'a mut Timers,
    pub(super) outputs: &'a mut VecDeque<Output>,
}

impl Runtime<Life> for Effects<'_> {
    /// States are read where they are, since of suspicion there is no notification.
    fn notify(&mut self, _: Notification<'_, Life>) {}

    fn send_to(&mut self, to: Life, data: &[u8]) {
        // foca knows earlier lives of this node as members like others.
        if to.node != self.me {
            self.outputs.push_back(Output::Send { to: to.node, bytes: Bytes::copy_from_slice(data) });
        }
    }

    fn submit_after(&mut self, timer: Timer<Life>, after: Duration) {
        self.timers.submitted += 1;
        self.timers.queue.insert((self.now + after, self.timers.submitted), timer);
    }
}

/// Our generator, as foca's generation of `rand` wants it.
pub(super) struct Dice(StdRng);

impl rand_core::TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

/// How many others are asked to try, when a member does not answer; also how many are told of a change at a time.
const INDIRECT_PROBES: NonZeroUsize = NonZeroUsize::new(3).expect("is not zero");

/// How often a node passes a change on: enough to reach everybody among some tens.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(8).expect("is not zero");

/// Fits into a QUIC datagram on every path: packets have 1,200 bytes at least.
pub(super) const DATAGRAM_MAX: NonZeroUsize = NonZeroUsize::new(1_100).expect("is not zero");
