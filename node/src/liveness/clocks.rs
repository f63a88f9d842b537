//! Whose clock is wrong: this node's, held against those of the nodes that it hears.
//!
//! Every datagram between nodes carries the sender's two clocks, and what the sender has last had from the receiver. So the
//! receiver knows how long the way was, and the other's wall clock to half of that:
//!
//! ```text
//!   sent │── sent, wall ─────────────────────────────▶│
//!        │                                            │ held
//!    now │◀─────────── sent', wall', echo(sent, held) ─│     round trip = now − sent − held
//!                                                           their clock now = wall' + round trip / 2
//! ```
//! - What is kept of a peer is not the difference between two wall clocks but what its wall clock shows when our *monotonic* one
//!   shows zero (`Epoch`). So a jump of our own wall clock is noticed by itself, before anything more is heard.
//! - **Which clock is wrong is decided by majority**, this node being one of the voters. A node that is further from the
//!   median than [`ClockSettings::off_max`] is `Off` and stamps nothing. Of an even number the two in the middle count, and
//!   everybody near either: two nodes that differ, or two against two, cannot know which is wrong. They say so and go on.
//! - A node that hears no other has no opinion. Nothing that is stored, or that a client has read, ever takes part in this.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use driftless_ring::NodeId;
use serde::{Deserialize, Serialize};

use crate::time::{Epoch, Instant, Now};

/// When a clock is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockSettings {
    /// How far from the median it may be. Well above what the ways between nodes and the drift of clocks come to.
    pub off_max: Duration,
}

/// What this node makes of its own clock.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Stance {
    /// It hears nobody, and has no opinion.
    #[default]
    Unheard,
    /// It is near the median.
    Agrees,
    /// It is far from others, and there is no majority to tell which is wrong.
    Disputed,
    /// It is far from a majority: it must not stamp.
    Off,
}

/// How the own clock stands now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Standing {
    /// What follows from it.
    pub stance: Stance,
    /// By how many milliseconds it is ahead of the median of the others, of both in the middle if there are two; below zero if
    /// it is behind. `None` if nobody is heard.
    pub ahead_ms: Option<i64>,
    /// How many others are heard.
    pub heard: usize,
}

/// What a majority allows the own clock to show. Engines hold it against the time of every single write, so that no write is
/// stamped between a jump of the clock and the next look at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockBounds {
    /// The clocks in the middle.
    earliest: Epoch,
    latest: Epoch,
    /// How far from them, in milliseconds.
    slack_ms: i64,
}

/// What the shell has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Tell the engines what the wall clock may show.
    Bounds(Option<ClockBounds>),
    /// Tell people: the stance has changed.
    Changed(Standing),
}

/// The clocks of all members, as far as they are heard.
#[derive(Debug)]
pub struct Clocks {
    settings: ClockSettings,
    peers: BTreeMap<NodeId, Peer>,
    bounds: Option<ClockBounds>,
    standing: Standing,
    /// As the own clock stood when it was looked at last, and when that was.
    looked_at: (Epoch, Instant),
    outputs: VecDeque<Output>,
}

#[derive(Default, Debug)]
struct Peer {
    /// What it sent last, by its monotonic clock, and when that came.
    last: Option<(u64, Instant)>,
    sample: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    epoch: Epoch,
    at: Instant,
}

/// What a datagram begins with.
#[derive(Serialize, Deserialize)]
struct Stamp {
    /// The sender's monotonic clock, in microseconds. It means nothing to anybody else.
    sent: u64,
    /// Its wall clock, in milliseconds since 1970.
    wall_ms: u64,
    echo: Option<Echo>,
}

/// What the sender has last had from the receiver.
#[derive(Serialize, Deserialize)]
struct Echo {
    sent: u64,
    /// For how many microseconds.
    held: u64,
}

impl Clocks {
    /// Nobody is heard yet.
    pub fn new(me: NodeId, members: impl IntoIterator<Item = NodeId>, settings: ClockSettings) -> Clocks {
        let others = members.into_iter().filter(|member| *member != me);
        Clocks {
            settings,
            peers: others.map(|member| (member, Peer::default())).collect(),
            bounds: None,
            standing: Standing::default(),
            looked_at: (Epoch(0), Instant::default()),
            outputs: VecDeque::new(),
        }
    }

    /// These are the members from now on: nobody else has a vote.
    pub fn handle_members(&mut self, now: Now, me: NodeId, members: &[NodeId]) {
        self.peers.retain(|peer, _| members.contains(peer));
        for member in members.iter().filter(|member| **member != me) {
            self.peers.entry(*member).or_default();
        }
        self.judge(now);
    }

    /// A datagram as it goes out.
    pub fn seal(&self, now: Now, to: NodeId, datagram: &[u8]) -> Bytes {
        let last = self.peers.get(&to).and_then(|peer| peer.last);
        let echo = last.map(|(sent, at)| Echo { sent, held: micros(now.instant.since(at)) });
        let stamp = Stamp { sent: now.instant.0, wall_ms: now.wall.millis(), echo };
        let bytes = Vec::with_capacity(datagram.len() + STAMP_BYTES_MAX);
        let mut bytes = postcard::to_extend(&stamp, bytes).expect("a stamp has no type that postcard cannot write");
        bytes.extend_from_slice(datagram);
        bytes.into()
    }

    /// What a datagram says beside the time; `None` if it does not begin with a stamp.
    pub fn open<'a>(&mut self, now: Now, from: NodeId, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (stamp, rest): (Stamp, _) = postcard::take_from_bytes(bytes).ok()?;
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.last = Some((stamp.sent, now.instant));
            // An echo of an earlier life of this process, or an echo that took too long to tell anything, is none.
            let taken = |echo: Echo| now.instant.0.checked_sub(echo.sent)?.checked_sub(echo.held);
            if let Some(round_trip) = stamp.echo.and_then(taken).map(Duration::from_micros)
                && round_trip <= self.settings.off_max / 4
            {
                let epoch = Epoch::of(stamp.wall_ms, now.instant - round_trip / 2);
                peer.sample = Some(Sample { epoch, at: now.instant });
            }
        }
        self.judge(now);
        Some(rest)
    }

    /// Looks at the own clock, if it has been set or not been looked at for a while. To be called in every turn.
    pub fn look(&mut self, now: Now) {
        let moved = now.epoch().0.abs_diff(self.looked_at.0.0);
        if now.instant >= self.looked_at.1 + LOOK_INTERVAL || moved > millis(self.settings.off_max).unsigned_abs() / 16
        {
            self.judge(now);
        }
    }

    fn judge(&mut self, now: Now) {
        self.looked_at = (now.epoch(), now.instant);
        let mut heard: Vec<i64> = Vec::with_capacity(self.peers.len());
        heard.extend(self.peers.values().filter_map(|peer| {
            let sample = peer.sample.filter(|sample| now.instant.since(sample.at) <= SAMPLE_AGE_MAX)?;
            Some(sample.epoch.0)
        }));
        heard.sort_unstable();
        let off_max = millis(self.settings.off_max);
        // A clock that was off, or in doubt, has to come clearly nearer.
        let slack = |was: bool| if was { off_max - off_max / 4 } else { off_max };
        let was = self.standing.stance;
        let bounds = bounds(&heard, slack(was == Stance::Off));
        let doubts = slack(matches!(was, Stance::Off | Stance::Disputed));
        let ahead_ms = middle(&heard).map(|(lower, upper)| ahead(now.epoch().0, lower, upper));
        let stance = match (ahead_ms, bounds.and_then(|bounds| bounds.ahead_ms(now))) {
            (None, _) => Stance::Unheard,
            (Some(_), Some(_)) => Stance::Off,
            (Some(ahead), None) if ahead.unsigned_abs() > doubts.unsigned_abs() => Stance::Disputed,
            (Some(_), None) => Stance::Agrees,
        };
        let is_news = stance != self.standing.stance;
        self.standing = Standing { stance, ahead_ms, heard: heard.len() };
        if is_news {
            self.outputs.push_back(Output::Changed(self.standing));
        }
        // Clocks drift and ways differ all the time: engines are told what matters.
        let differs = match (self.bounds, bounds) {
            (Some(before), Some(now)) => before.differs_by(now) > off_max.unsigned_abs() / 16,
            (before, now) => before != now,
        };
        if is_news || differs {
            self.bounds = bounds;
            self.outputs.push_back(Output::Bounds(bounds));
        }
    }

    /// How the own clock stood when it was looked at last.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

impl ClockBounds {
    /// By how many milliseconds the wall clock is ahead of what is in the middle, or behind if below zero, if that is too
    /// much.
    pub fn ahead_ms(self, now: Now) -> Option<i64> {
        let ahead = ahead(now.epoch().0, self.earliest.0, self.latest.0);
        (ahead.unsigned_abs() > self.slack_ms.unsigned_abs()).then_some(ahead)
    }

    fn differs_by(self, other: ClockBounds) -> u64 {
        let apart = |a: Epoch, b: Epoch| a.0.abs_diff(b.0);
        apart(self.earliest, other.earliest)
            .max(apart(self.latest, other.latest))
            .max(self.slack_ms.abs_diff(other.slack_ms))
    }
}

/// What the others' clocks allow: wherever within it the own one is, it is near the median of all, its own vote included.
/// `heard` is sorted.
fn bounds(heard: &[i64], slack: i64) -> Option<ClockBounds> {
    let voters = heard.len() + 1;
    // With the own clock above all others, or below, these are the upper and the lower one in the middle.
    let (upper, lower) = (voters / 2, ((voters - 1) / 2).checked_sub(1)?);
    let (earliest, latest) = (Epoch(*heard.get(lower)?), Epoch(*heard.get(upper)?));
    Some(ClockBounds { earliest, latest, slack_ms: slack })
}

/// Of sorted numbers the one in the middle, twice, or the two.
fn middle(sorted: &[i64]) -> Option<(i64, i64)> {
    Some((*sorted.get(sorted.len().checked_sub(1)? / 2)?, *sorted.get(sorted.len() / 2)?))
}

/// By how much a clock is ahead of both of these, or behind both if below zero.
fn ahead(own: i64, lower: i64, upper: i64) -> i64 {
    own.saturating_sub(own.clamp(lower, upper))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// For how long a clock that is not heard of any more has its vote. Only a clock that is set changes what is kept of it, and
/// a node that runs is heard again within seconds; longer would let the dead outvote the living.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(120);

/// What changes without anybody speaking is only that samples get too old.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Four numbers of ten bytes at most, and whether there are the last two.
const STAMP_BYTES_MAX: usize = 41;

#[cfg(test)]
mod tests;
