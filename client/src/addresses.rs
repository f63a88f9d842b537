//! The addresses of a name: all of them are tried, staggered, and the first that answers is taken (RFC 8305, "happy eyeballs").
//!
//! ```text
//! [::1]:7400      ├────────────────────────────────────── no answer
//! 127.0.0.1:7400           ├────── handshake ──▶ taken; the other attempt is dropped
//!                 │◀ delay ▶│        an attempt that fails lets the next one begin at once
//! ```
//! The order is the resolver's (RFC 6724), but the two families take turns, so that a machine without IPv6, or a node that does
//! not listen on it, costs one delay and not one per address.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep;

/// Makes attempts until one succeeds, the next one when the one before has failed or is not done after `delay`.
///
/// # Errors
/// Why each address failed, in the order in which they did; none if there were no addresses.
pub(crate) async fn first_of<T, E, A>(
    addresses: Vec<SocketAddr>,
    delay: Duration,
    attempt: impl Fn(SocketAddr) -> A,
) -> Result<T, Vec<(SocketAddr, E)>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut waiting = VecDeque::from(addresses);
    let mut under_way = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.pop_front() {
            let attempt = attempt(address);
            under_way.push(async move { (address, attempt.await) });
        }
        tokio::select! {
            biased;
            Some((address, result)) = under_way.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(failure) => failures.push((address, failure)),
            },
            () = sleep(delay), if !waiting.is_empty() => {}
            else => return Err(failures),
        }
    }
}

/// At what distance so many attempts begin, that the last of them has half of the time.
pub(crate) fn delay(addresses: usize, time: Duration) -> Duration {
    let even = time / 2 / u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    even.clamp(DELAY_MIN, DELAY_MAX)
}

/// The first so many addresses, each once, with the families taking turns; the resolver's first comes first.
pub(crate) fn in_turns(found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut first, mut other) = (VecDeque::new(), VecDeque::new());
    for address in found {
        let is_first = first.front().is_none_or(|leader: &SocketAddr| leader.is_ipv6() == address.is_ipv6());
        let family = if is_first { &mut first } else { &mut other };
        if !family.contains(&address) {
            family.push_back(address);
        }
    }
    let mut turns = Vec::new();
    while turns.len() < ADDRESSES_MAX
        && let Some(address) = first.pop_front().or_else(|| other.pop_front())
    {
        turns.push(address);
        std::mem::swap(&mut first, &mut other);
    }
    turns
}

/// A node has a few; a name with more is a list of nodes, of which any will do.
const ADDRESSES_MAX: usize = 16;

/// What RFC 8305 recommends at least. Its default of 250 ms would leave little of the time of an attempt.
const DELAY_MAX: Duration = Duration::from_millis(100);

/// What RFC 8305 allows at least.
const DELAY_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("is an address")
    }

    #[test]
    fn families_take_turns_and_the_resolvers_first_comes_first() {
        let found = ["[::1]:1", "[::2]:1", "[::1]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(address);
        let turns: Vec<String> = in_turns(found).iter().map(ToString::to_string).collect();
        assert_eq!(turns, ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "10.0.0.3:1"]);
        assert!(in_turns([]).is_empty());
        let many = (0..100).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        assert_eq!(in_turns(many).len(), ADDRESSES_MAX);
    }

    #[test]
    fn all_attempts_begin_within_half_of_the_time() {
        let second = Duration::from_secs(1);
        assert_eq!(delay(2, second), DELAY_MAX);
        assert!(delay(ADDRESSES_MAX, second) * ADDRESSES_MAX as u32 <= second / 2);
        assert_eq!(delay(0, Duration::ZERO), DELAY_MIN);
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_does_not_keep_the_next_one_waiting() {
        let (silent, good) = (address("[::1]:1"), address("10.0.0.1:1"));
        let begun = RefCell::new(Vec::new());
        let taken = first_of(vec![silent, good], DELAY_MIN, |address| {
            begun.borrow_mut().push(address);
            async move {
                if address == silent {
                    std::future::pending::<()>().await;
                }
                Ok::<_, ()>(address)
            }
        });
        assert_eq!(taken.await, Ok(good));
        assert_eq!(*begun.borrow(), [silent, good]);
    }

    #[tokio::test]
    async fn an_address_that_fails_lets_the_next_one_begin_at_once_and_all_failures_are_told() {
        let addresses = ["[::1]:1", "10.0.0.1:1"].map(address);
        let far = Duration::from_secs(3600);
        let failed = first_of(addresses.to_vec(), far, |address| async move { Err::<(), _>(address.port()) });
        assert_eq!(failed.await, Err(addresses.map(|address| (address, 1)).to_vec()));
        let none = first_of(Vec::new(), far, |_| async { Err::<(), _>(()) });
        assert_eq!(none.await, Err(Vec::new()));
    }

    #[tokio::test]
    async fn the_first_that_answers_is_taken_also_if_it_is_not_the_last_begun() {
        let (slow, silent) = (address("[::1]:1"), address("10.0.0.1:1"));
        let taken = first_of(vec![slow, silent], DELAY_MIN, |address| async move {
            if address == silent {
                std::future::pending::<()>().await;
            }
            sleep(DELAY_MIN * 3).await;
            Ok::<_, ()>(address)
        });
        assert_eq!(taken.await, Ok(slow));
    }
}
