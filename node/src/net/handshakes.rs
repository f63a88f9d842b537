//! Who may shake hands: the costliest thing that a stranger can ask for, so it is bounded, and nobody takes another's share.
//!
//! ```text
//! first packet ──few are unproven──▶ welcome: one round trip less
//!      └──more than that──▶ Retry: come back with what was sent to your address; nothing is kept meanwhile
//! comes back with it ──▶ welcome, unless as many as may are proven, or half of them are from this address
//!                        └── a member's address has places of its own beyond that
//! ```
//! A flood from made-up addresses ends at the Retry (RFC 9000, section 8.1.2): it costs a packet for a packet, and those that do
//! receive at their address are let in beside it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

/// The handshakes of one shard.
pub(crate) struct Handshakes {
    proven_max: usize,
    /// Under way with addresses that have shown nothing yet.
    unproven: Cell<usize>,
    /// Under way with addresses that receive what is sent to them, by address.
    proven: RefCell<BTreeMap<IpAddr, usize>>,
}

/// One of them, until it is dropped.
pub(crate) struct Handshake {
    of: Rc<Handshakes>,
    address: Option<IpAddr>,
}

/// What is said to a first packet.
pub(crate) enum Admission {
    /// Go on.
    Welcome(Handshake),
    /// Show first that you receive at this address.
    Prove,
    /// Not now.
    Refused,
}

impl Handshakes {
    /// So many proven ones at once, and an eighth as many others.
    pub(crate) fn new(proven_max: usize) -> Rc<Handshakes> {
        Rc::new(Handshakes { proven_max, unproven: Cell::new(0), proven: RefCell::default() })
    }

    /// Whether a handshake may begin. `is_member`: the address is a member's.
    pub(crate) fn admit(self: &Rc<Self>, address: IpAddr, is_proven: bool, is_member: bool) -> Admission {
        if !is_proven {
            if self.unproven.get() >= (self.proven_max / UNPROVEN_SHARE).max(1) {
                return Admission::Prove;
            }
            self.unproven.set(self.unproven.get() + 1);
            return Admission::Welcome(Handshake { of: self.clone(), address: None });
        }
        let mut proven = self.proven.borrow_mut();
        let (all, own) = (proven.values().sum::<usize>(), proven.get(&address).copied().unwrap_or(0));
        let (all_max, own_max) = match is_member {
            true => (self.proven_max + self.proven_max / 2, self.proven_max),
            false => (self.proven_max, self.proven_max.div_ceil(2)),
        };
        if all >= all_max || own >= own_max {
            return Admission::Refused;
        }
        *proven.entry(address).or_default() += 1;
        Admission::Welcome(Handshake { of: self.clone(), address: Some(address) })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let Some(address) = self.address else {
            return self.of.unproven.set(self.of.unproven.get() - 1);
        };
        let mut proven = self.of.proven.borrow_mut();
        if let Some(count) = proven.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                proven.remove(&address);
            }
        }
    }
}

/// Most connections begin in peace, and one round trip is what a client notices.
const UNPROVEN_SHARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// As many as are let in.
    fn flood(handshakes: &Rc<Handshakes>, from: IpAddr, is_proven: bool, is_member: bool) -> Vec<Handshake> {
        let admit = |_| match handshakes.admit(from, is_proven, is_member) {
            Admission::Welcome(handshake) => Some(handshake),
            Admission::Prove | Admission::Refused => None,
        };
        (0..1000).filter_map(admit).collect()
    }

    #[test]
    fn a_flood_that_proves_nothing_keeps_out_nobody_who_does() {
        let handshakes = Handshakes::new(MAX);
        let flood = flood(&handshakes, address(1), false, false);
        assert_eq!(flood.len(), MAX / UNPROVEN_SHARE);
        assert!(matches!(handshakes.admit(address(2), false, false), Admission::Prove));
        assert!(matches!(handshakes.admit(address(2), true, false), Admission::Welcome(_)));
    }

    #[test]
    fn one_address_leaves_half_to_others_and_all_leave_some_to_members() {
        let handshakes = Handshakes::new(MAX);
        let one = flood(&handshakes, address(1), true, false);
        assert_eq!(one.len(), MAX / 2);
        let other = flood(&handshakes, address(2), true, false);
        assert_eq!(other.len(), MAX / 2);
        assert!(matches!(handshakes.admit(address(3), true, false), Admission::Refused));
        assert_eq!(flood(&handshakes, address(3), true, true).len(), MAX / 2);
    }

    #[test]
    fn a_place_is_free_again_when_its_handshake_is_over() {
        let handshakes = Handshakes::new(MAX);
        for is_proven in [false, true] {
            let most = flood(&handshakes, address(1), is_proven, false).len();
            assert_eq!(flood(&handshakes, address(1), is_proven, false).len(), most);
        }
        assert!(handshakes.proven.borrow().is_empty() && handshakes.unproven.get() == 0);
    }
}
