//! Client connections of the whole node: so many in all, and half of them for one certificate at most.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Places for connections.
pub(crate) struct ConnectionSlots {
    max: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// One place, until it is dropped.
pub(crate) struct ConnectionSlot<'a> {
    slots: &'a ConnectionSlots,
    who: String,
}

impl ConnectionSlots {
    pub(crate) fn new(max: usize) -> ConnectionSlots {
        ConnectionSlots { max, taken: Mutex::default() }
    }

    /// A place for whoever the certificate names.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn take(&self, who: &str) -> Result<ConnectionSlot<'_>, &'static str> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.max {
            return Err("this node has as many client connections as it may");
        }
        let own = taken.get(who).copied().unwrap_or(0);
        if own >= self.max.div_ceil(2) {
            return Err("this node has as many connections of this certificate as it may");
        }
        taken.insert(who.to_owned(), own + 1);
        Ok(ConnectionSlot { slots: self, who: who.to_owned() })
    }
}

impl Drop for ConnectionSlot<'_> {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_certificate_leaves_half_of_the_places_to_others() {
        let slots = ConnectionSlots::new(5);
        let take = |who, times| (0..times).filter_map(|_| slots.take(who).ok()).collect::<Vec<_>>();
        let greedy = take("greedy", 10);
        assert_eq!(greedy.len(), 3);
        let good = take("good", 10);
        assert_eq!(good.len(), 2);
        assert!(slots.take("another").is_err_and(|reason| reason.contains("as many client connections")));
        drop(greedy);
        assert_eq!(take("another", 10).len(), 3);
        drop(good);
        assert!(slots.taken.lock().unwrap().is_empty());
    }
}
