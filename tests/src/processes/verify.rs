//! What is found in the end, replica by replica.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use driftless_client::{Bucket, Client, Read};
use futures::stream::{self, StreamExt as _};

use super::history::History;
use super::load::{union, value_of};

/// What reading every replica showed.
#[derive(Clone, Default, Debug)]
pub struct Verdict {
    /// From the end of the load until nobody held anything for another node any more; `None`: it did not come to that.
    pub handed_off: Option<Duration>,
    /// Acknowledged writes that no read finds.
    pub lost: Vec<String>,
    /// Keys that at least one primary lacked, or held otherwise than the others, when it was read.
    pub incomplete: Vec<String>,
    /// Keys that could not be read.
    pub unread: Vec<String>,
    /// Keys read.
    pub read: usize,
}

impl Verdict {
    /// Whether nothing is lost and every replica is complete.
    pub fn holds(&self) -> bool {
        self.handed_off.is_some() && self.lost.is_empty() && self.incomplete.is_empty() && self.unread.is_empty()
    }
}

/// Waits until all hints have been delivered, then reads everything that was acknowledged, once, from all replicas. A
/// read repairs what it finds lacking, so nothing is read twice.
pub(super) async fn verify(client: &Client, names: &[String], history: &History) -> Verdict {
    let mut verdict = Verdict { handed_off: handed_off(client, names).await, ..Verdict::default() };
    let bucket = client.bucket("default");
    let sets = history.elements.iter().map(|(key, elements)| (key.clone(), Expected::Set(elements.clone())));
    let own = history.keys.iter().map(|key| (key.clone(), Expected::Value(value_of(key))));
    let mut reads = stream::iter(sets.chain(own))
        .map(|(key, expected)| {
            let bucket = bucket.clone();
            async move { (read(&bucket, &key).await, key, expected) }
        })
        .buffer_unordered(READS_AT_ONCE);
    while let Some((read, key, expected)) = reads.next().await {
        verdict.read += 1;
        match read {
            Err(error) => verdict.unread.push(format!("{key}: {error}")),
            Ok(read) => {
                verdict.lost.extend(expected.missing_in(&read).map(|what| format!("{key}: {what}")));
                verdict.incomplete.extend(difference(&read, &expected).map(|how| format!("{key}: {how}")));
            }
        }
    }
    verdict
}

async fn read(bucket: &Bucket, key: &str) -> Result<Read, driftless_client::GetError> {
    bucket.get(key).r(3).sloppy(false).explain().send().await
}

/// How long it took until no node held a hint, and none thought of another as gone.
pub(crate) async fn handed_off(client: &Client, names: &[String]) -> Option<Duration> {
    let began = Instant::now();
    let mut quiet_since = None;
    while began.elapsed() < HANDOFF_MAX {
        let mut quiet = true;
        for name in names {
            quiet &= client
                .status(name)
                .await
                .is_ok_and(|status| status.hints.unwrap_or(0) == 0 && status.peers.iter().all(|peer| peer.connected));
        }
        let since = *quiet_since.get_or_insert(began.elapsed());
        if !quiet {
            quiet_since = None;
        } else if began.elapsed() >= since + QUIET {
            return Some(since);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

enum Expected {
    Value(String),
    Set(BTreeSet<String>),
}

impl Expected {
    fn missing_in(&self, read: &Read) -> Option<String> {
        match self {
            Expected::Value(value) if read.one().is_ok_and(|found| found.is_some_and(|found| found == value)) => None,
            Expected::Value(_) => Some(format!("its value is not the only one of {}", read.siblings().len())),
            Expected::Set(elements) => {
                let found = union(read.siblings());
                let missing: Vec<_> = elements.difference(&found).cloned().collect();
                (!missing.is_empty()).then(|| format!("elements {}", missing.join(" ")))
            }
        }
    }
}

/// In what the three primaries differ. A key that is written once may have been stamped twice, if its first coordinator was killed
/// before it had told everybody: nothing of that stamp was acknowledged and nobody owes it, so it spreads with anti-entropy, and
/// a replica is complete that holds either.
fn difference(read: &Read, expected: &Expected) -> Option<String> {
    let Some(phase) = read.explanation().and_then(|explanation| explanation.read.as_ref()) else {
        return Some("the read was not explained".to_owned());
    };
    let primaries: Vec<_> = phase.replicas.iter().filter(|replica| replica.stands_in_for.is_none()).collect();
    let states: BTreeSet<_> = primaries.iter().map(|replica| replica.state()).collect();
    let live = |state: &Option<&str>| state.and_then(|state| state.split_once(LIVE)).map(|(_, live)| live.to_owned());
    let alike = match expected {
        Expected::Value(_) => states.iter().all(|state| live(state).is_some_and(|live| !live.is_empty())),
        Expected::Set(_) => states.len() == 1 && states.iter().all(|state| state.is_some()),
    };
    let agree = primaries.len() == 3 && alike;
    (!agree).then(|| {
        let said = primaries.iter().map(|replica| format!("{} {:?}", replica.node, replica.state()));
        said.collect::<Vec<_>>().join(", ")
    })
}

/// Stands before the dots of values in an explained state.
const LIVE: &str = "| live ";

/// Hints of what the last requests missed are made when their attempts time out, a moment after the load has ended.
const QUIET: Duration = Duration::from_secs(1);

/// Ten thousand keys shall be delivered within half of it.
const HANDOFF_MAX: Duration = Duration::from_secs(60);

const READS_AT_ONCE: usize = 64;
