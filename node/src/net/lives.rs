//! Which life of its data this node says it is, and when it may take a later one.
//!
//! ```text
//! a directory made while the clock was behind        a peer that met its predecessor
//!   │── Hello { life 1,700,000,007, … } ─────────────────▶│ older than 1,700,086,403, which it has seen
//!   │◀────────── Hello { …, knows: life 1,700,086,403 } ──│ and closes
//!   │ that peer has never admitted this directory:
//!   │ life 1,700,086,404, written down first
//!   │── Hello { life 1,700,086,404, … } ─────────────────▶│ admitted; this is written down as well
//! ```
//! Lives count on from the second in which the directory was made. That a clock was behind then, or had been ahead before, must
//! not lock the node out. But an older copy of a directory must stay outside, or two processes would go on as one node. The
//! difference is whether the peer that refuses has ever admitted this very directory: a copy made since knows that it has.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use driftless_proto::Hlc;

use super::refusal::{CloseCode, CloseReason};
use crate::conditions::{DiskRoom, Filling};
use crate::peer::Incarnation;
use crate::plausible;
#[cfg(feature = "disk")]
use crate::store::directory::DataDirectory;

/// Keeps what is known of a node's life, and of the data that it is a life of, where it outlives the process.
pub trait LifeKeeper: Send + Sync + fmt::Debug {
    /// A peer has admitted the present life. Durable when this returns.
    ///
    /// # Errors
    /// In words, if it could not be written down.
    fn admitted_by(&self, peer: &str) -> Result<(), String>;

    /// A peer knows a life up to this one, and takes the present one for older. The life to go on with, above that and durable;
    /// `None` if that peer has admitted the data before: then it is right.
    ///
    /// # Errors
    /// In words, if it could not be written down.
    fn life_above(&self, peer: &str, known: u64) -> Result<Option<u64>, String>;

    /// Every life of this data is above this one; those up to it are of what was there before.
    fn first_life(&self) -> u64;

    /// How far data that was begun anew has come to be what other nodes hold; `None` if it has, once.
    fn filling(&self) -> Option<Filling> {
        None
    }

    /// Writes that down.
    ///
    /// # Errors
    /// In words, if it could not be.
    fn note_filling(&self, _filling: Option<Filling>) -> Result<(), String> {
        Ok(())
    }

    /// How full the disk is, if there is one.
    fn disk_room(&self) -> Option<DiskRoom> {
        None
    }
}

#[cfg(feature = "disk")]
impl LifeKeeper for DataDirectory {
    fn admitted_by(&self, peer: &str) -> Result<(), String> {
        DataDirectory::admitted_by(self, peer).map_err(|error| error.to_string())
    }

    fn life_above(&self, peer: &str, known: u64) -> Result<Option<u64>, String> {
        DataDirectory::life_above(self, peer, known).map_err(|error| error.to_string())
    }

    fn first_life(&self) -> u64 {
        DataDirectory::first_life(self)
    }

    fn filling(&self) -> Option<Filling> {
        DataDirectory::filling(self)
    }

    fn note_filling(&self, filling: Option<Filling>) -> Result<(), String> {
        DataDirectory::note_filling(self, filling).map_err(|error| error.to_string())
    }

    fn disk_room(&self) -> Option<DiskRoom> {
        DataDirectory::disk_room(self)
    }
}

/// The present life, shared by the shards.
#[derive(Debug)]
pub(crate) struct Lives {
    state: Mutex<State>,
    keeper: Option<Arc<dyn LifeKeeper>>,
}

#[derive(Debug)]
struct State {
    current: Incarnation,
    /// Peers that are written down already.
    admitted_by: BTreeSet<String>,
    /// How far data that was begun anew has come, and whether that is written down.
    filling: Option<Filling>,
    is_written: bool,
}

impl Lives {
    /// Begins with what the store was opened as. Without a keeper that is the only life.
    pub(crate) fn new(current: Incarnation, keeper: Option<Arc<dyn LifeKeeper>>) -> Lives {
        let filling = keeper.as_ref().and_then(|keeper| keeper.filling());
        let state = State { current, admitted_by: BTreeSet::new(), filling, is_written: true };
        Lives { state: Mutex::new(state), keeper }
    }

    /// How far data that was begun anew has come; `None` if there is nothing to say of it.
    pub(crate) fn filling(&self) -> Option<Filling> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).filling
    }

    /// Other nodes hold what this one lacks. Blocks for a sync of the directory, once in its existence.
    pub(crate) fn note_lost(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.note_lost(self.keeper.as_deref());
    }

    /// It holds what other nodes do. Blocks for a sync of the directory, once in its existence.
    pub(crate) fn note_whole(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.set_filling(None, self.keeper.as_deref());
    }

    /// Writes down what could not be before. To be called now and then.
    pub(crate) fn write_again(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_written {
            let filling = state.filling;
            state.set_filling(filling, self.keeper.as_deref());
        }
    }

    /// How full the disk is, if there is one.
    pub(crate) fn disk_room(&self) -> Option<DiskRoom> {
        self.keeper.as_ref()?.disk_room()
    }

    /// What to say in a hello.
    pub(crate) fn current(&self) -> Incarnation {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).current
    }

    /// A peer has answered to a hello with life `said`: it `knows` this life of us. Writes down that it admits it, or takes a
    /// later one if it does not and that is allowed. Blocks for a sync of the directory, a few times in its existence.
    ///
    /// # Errors
    /// Why to part: with a later life the next attempt will do.
    pub(crate) fn handle_known(
        &self,
        peer: &str,
        said: Incarnation,
        knows: Option<Incarnation>,
        wall: Hlc,
    ) -> Result<(), CloseReason> {
        let part = |text: String| Err(CloseReason::new(CloseCode::Incarnation, text));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(known), Some(keeper)) = (knows, &self.keeper)
            && known.starts <= keeper.first_life()
        {
            // Before this peer is written down: it knows the present life from now on, and could not tell again.
            state.note_lost(Some(keeper.as_ref()));
        }
        let Some(known) = knows.filter(|known| known.is_newer_than(said)) else {
            if let Some(keeper) = &self.keeper
                && state.admitted_by.insert(peer.to_owned())
                && let Err(error) = keeper.admitted_by(peer)
            {
                // Tried again with the next connection.
                state.admitted_by.remove(peer);
                tracing::warn!(peer, error, "cannot write down who has admitted this directory");
            }
            return Ok(());
        };
        if known.starts > plausible::latest_life(wall) {
            // It would be the last but few that this node can ever take.
            return part(format!(
                "life {} of this node begins more than ten years from now: it has not been that",
                known.starts
            ));
        }
        if state.current.starts > known.starts {
            return part(format!("this node goes on as life {}", state.current.starts));
        }
        match self.keeper.as_ref().map_or(Ok(None), |keeper| keeper.life_above(peer, known.starts)) {
            Ok(Some(starts)) => {
                let (from, nonce) = (state.current.starts, state.current.nonce);
                tracing::warn!(
                    peer,
                    from,
                    to = starts,
                    "this data directory was made while the clock was behind that of an \
                    earlier one: its life is counted on from what others have seen"
                );
                state.current = Incarnation { starts, nonce };
                state.note_lost(self.keeper.as_deref());
                part(format!("this node goes on as life {starts}"))
            }
            Ok(None) if said.starts == known.starts => part(format!(
                "this is one of two copies of the node: {peer} has seen another process in life {} of it. Stop the one whose data is \
                 older, and never start a node on a copy of its data; if the newer data is lost, start it with an empty directory",
                said.starts
            )),
            Ok(None) => part(format!(
                "this is an older copy of the node: life {} of it, and {peer} has seen life {}. Stop it, and never start a node \
                 on a copy of its data; if the newer data is lost, start it with an empty directory",
                said.starts, known.starts
            )),
            Err(error) => part(format!("a later life cannot be written down: {error}")),
        }
    }
}

impl State {
    /// Only data that has not been whole can be short of what another held before it.
    fn note_lost(&mut self, keeper: Option<&dyn LifeKeeper>) {
        if self.filling == Some(Filling::New) {
            self.set_filling(Some(Filling::Lost), keeper);
        }
    }

    /// It counts at once, whether it can be written down or not.
    fn set_filling(&mut self, filling: Option<Filling>, keeper: Option<&dyn LifeKeeper>) {
        self.filling = filling;
        let written = keeper.map_or(Ok(()), |keeper| keeper.note_filling(filling));
        if let Err(error) = &written {
            tracing::warn!(error, "cannot write down how far this directory is from what others hold");
        }
        self.is_written = written.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Hlc = Hlc::from_millis(1_800_000_000_000);

    fn life(starts: u64, nonce: u64) -> Incarnation {
        Incarnation { starts, nonce }
    }

    /// A directory in memory.
    #[derive(Debug)]
    struct Memory {
        /// So often it cannot be written to.
        fails: Mutex<u32>,
        admitted_by: Mutex<Vec<String>>,
        life: Mutex<u64>,
        filling: Mutex<Option<Filling>>,
    }

    impl Default for Memory {
        fn default() -> Memory {
            let filling = Mutex::new(Some(Filling::New));
            Memory { fails: Mutex::default(), admitted_by: Mutex::default(), life: Mutex::default(), filling }
        }
    }

    impl Memory {
        fn write(&self) -> Result<(), String> {
            let mut fails = self.fails.lock().expect("not poisoned");
            if *fails == 0 {
                return Ok(());
            }
            *fails -= 1;
            Err("no room is left on the device".to_owned())
        }
    }

    impl LifeKeeper for Memory {
        fn admitted_by(&self, peer: &str) -> Result<(), String> {
            self.write()?;
            self.admitted_by.lock().expect("not poisoned").push(peer.to_owned());
            Ok(())
        }

        fn life_above(&self, peer: &str, known: u64) -> Result<Option<u64>, String> {
            if self.admitted_by.lock().expect("not poisoned").iter().any(|by| by == peer) {
                return Ok(None);
            }
            *self.life.lock().expect("not poisoned") = known + 1;
            Ok(Some(known + 1))
        }

        fn first_life(&self) -> u64 {
            6
        }

        fn filling(&self) -> Option<Filling> {
            *self.filling.lock().expect("not poisoned")
        }

        fn note_filling(&self, filling: Option<Filling>) -> Result<(), String> {
            self.write()?;
            *self.filling.lock().expect("not poisoned") = filling;
            Ok(())
        }
    }

    #[test]
    fn a_directory_that_a_peer_has_never_admitted_goes_on_above_what_it_knows() {
        let keeper = Arc::new(Memory::default());
        let lives = Lives::new(life(7, 70), Some(keeper.clone()));
        // Others admit it, and that does not bind it towards the peer that met its predecessor.
        assert_eq!(lives.handle_known("c", life(7, 70), None, NOW), Ok(()));
        let told = lives.handle_known("b", life(7, 70), Some(life(9, 90)), NOW);
        assert!(told.is_err_and(|reason| reason.text.contains("life 10")));
        assert_eq!(lives.current(), life(10, 70));
        assert_eq!(*keeper.life.lock().expect("not poisoned"), 10, "durable before it is said");
        assert_eq!(lives.handle_known("b", life(10, 70), Some(life(9, 90)), NOW), Ok(()));
        assert_eq!(*keeper.admitted_by.lock().expect("not poisoned"), ["c", "b"]);
    }

    #[test]
    fn who_has_admitted_a_directory_is_written_down_with_the_next_hello_if_it_cannot_be_with_this_one() {
        let keeper = Arc::new(Memory { fails: Mutex::new(1), ..Memory::default() });
        let lives = Lives::new(life(7, 70), Some(keeper.clone()));
        for written in [0, 1, 1] {
            assert_eq!(lives.handle_known("b", life(7, 70), None, NOW), Ok(()));
            assert_eq!(keeper.admitted_by.lock().expect("not poisoned").len(), written);
        }
    }

    /// A life is never taken back, so a peer must not make this node take one that leaves none above it.
    #[test]
    fn no_peer_drives_this_node_to_a_life_of_the_next_century() {
        let keeper = Arc::new(Memory::default());
        let lives = Lives::new(life(1_800_000_007, 70), Some(keeper.clone()));
        for starts in [5_000_000_000, u64::MAX - 1, u64::MAX] {
            assert!(lives.handle_known("b", life(1_800_000_007, 70), Some(life(starts, 66)), NOW).is_err());
        }
        assert_eq!(lives.current(), life(1_800_000_007, 70));
        assert_eq!(*keeper.life.lock().expect("not poisoned"), 0, "nothing was written down");
        // One that was made while a clock was a year ahead is another matter.
        assert!(lives.handle_known("b", life(1_800_000_007, 70), Some(life(1_831_000_000, 90)), NOW).is_err());
        assert_eq!(lives.current(), life(1_831_000_001, 70));
    }

    #[test]
    fn a_life_from_before_this_data_tells_that_something_is_lost_whether_that_can_be_written_down_or_not() {
        let told = |known, fails| {
            let keeper = Arc::new(Memory { fails: Mutex::new(fails), ..Memory::default() });
            let lives = Lives::new(life(7, 70), Some(keeper.clone()));
            assert_eq!(lives.filling(), Some(Filling::New));
            let _ = lives.handle_known("b", life(7, 70), known, NOW);
            let first = (lives.filling(), *keeper.filling.lock().expect("not poisoned"));
            lives.write_again();
            assert_eq!(*keeper.filling.lock().expect("not poisoned"), lives.filling(), "written down in the end");
            first
        };
        let (new, lost) = (Some(Filling::New), Some(Filling::Lost));
        assert_eq!(told(None, 0), (new, new), "a peer that has just started knows nothing");
        assert_eq!(told(Some(life(7, 70)), 0), (new, new));
        assert_eq!(told(Some(life(6, 60)), 0), (lost, lost));
        assert_eq!(told(Some(life(2, 20)), 1), (lost, new));
        assert_eq!(told(Some(life(9, 90)), 0), (lost, lost), "a later one that is not of this directory");
    }

    #[test]
    fn what_was_whole_once_is_not_lost_by_what_a_peer_says() {
        let keeper = Arc::new(Memory::default());
        let lives = Lives::new(life(7, 70), Some(keeper.clone()));
        lives.note_whole();
        assert_eq!(lives.handle_known("b", life(7, 70), Some(life(6, 60)), NOW), Ok(()));
        lives.note_lost();
        assert_eq!((lives.filling(), *keeper.filling.lock().expect("not poisoned")), (None, None));
    }

    #[test]
    fn two_shards_that_are_told_at_once_go_on_as_one_life() {
        let keeper = Arc::new(Memory::default());
        let lives = Lives::new(life(7, 70), Some(keeper));
        for _ in 0..2 {
            // Both had said life 7.
            assert!(lives.handle_known("b", life(7, 70), Some(life(9, 90)), NOW).is_err());
        }
        assert_eq!(lives.current(), life(10, 70));
    }

    #[test]
    fn a_directory_made_in_the_very_second_of_an_earlier_start_is_told_apart_from_it() {
        let lives = Lives::new(life(7, 70), Some(Arc::new(Memory::default())));
        assert!(lives.handle_known("b", life(7, 70), Some(life(7, 90)), NOW).is_err());
        assert_eq!(lives.current(), life(8, 70));
    }

    #[test]
    fn an_older_copy_of_what_a_peer_has_admitted_stays_refused() {
        let keeper = Arc::new(Memory::default());
        let lives = Lives::new(life(7, 70), Some(keeper.clone()));
        assert_eq!(lives.handle_known("b", life(7, 70), Some(life(7, 70)), NOW), Ok(()));
        let old = Lives::new(life(8, 80), Some(keeper));
        let told = old.handle_known("b", life(8, 80), Some(life(9, 90)), NOW);
        assert!(told.is_err_and(|reason| reason.text.contains("an older copy")));
        assert_eq!(old.current(), life(8, 80));
        let nobody_keeps_it = Lives::new(life(8, 80), None);
        assert!(nobody_keeps_it.handle_known("b", life(8, 80), Some(life(9, 90)), NOW).is_err());
        assert_eq!(nobody_keeps_it.current(), life(8, 80));
    }
}
