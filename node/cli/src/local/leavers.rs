//! Who is no member any more, by what the others say.
//!
//! A member that has left is in nobody's list any more once it holds nothing. But a list may be short for another reason: a node that
//! has not joined lists few, and one that is cut off may know of an old state. So most of those that were members must say the same,
//! more than once.

use std::collections::{BTreeMap, BTreeSet};

/// Looks at what nodes say, from time to time.
#[derive(Debug, Default)]
pub(crate) struct Leavers {
    /// Whoever was listed by most.
    members: BTreeSet<String>,
    /// Since how many looks most have not listed it.
    missing: BTreeMap<String, u32>,
}

impl Leavers {
    /// These are members to begin with.
    pub(crate) fn of(members: impl IntoIterator<Item = String>) -> Leavers {
        Leavers { members: members.into_iter().collect(), ..Leavers::default() }
    }

    /// Takes in what each node that answers lists beside itself, and gives those that have left now.
    pub(crate) fn look(&mut self, views: &[(String, BTreeSet<String>)]) -> Vec<String> {
        let mut left = Vec::new();
        for name in self.members.clone() {
            let judges: Vec<_> =
                views.iter().filter(|(viewer, _)| *viewer != name && self.members.contains(viewer)).collect();
            let are_most = judges.len() * 2 > self.members.len() - 1;
            if !are_most || judges.iter().any(|(_, listed)| listed.contains(&name)) {
                self.missing.remove(&name);
                continue;
            }
            let looks = self.missing.entry(name.clone()).or_default();
            *looks += 1;
            if *looks >= LOOKS {
                left.push(name);
            }
        }
        for name in &left {
            self.members.remove(name);
            self.missing.remove(name);
        }
        for name in views.iter().flat_map(|(_, listed)| listed) {
            let listing = views.iter().filter(|(_, listed)| listed.contains(name)).count();
            if listing * 2 > views.len().saturating_sub(1) && !left.contains(name) {
                self.members.insert(name.clone());
            }
        }
        left
    }
}

/// A list that is short for a moment only is no reason to stop anybody.
const LOOKS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn views(lists: &[(&str, &str)]) -> Vec<(String, BTreeSet<String>)> {
        let names = |listed: &str| listed.split_whitespace().map(str::to_owned).collect();
        lists.iter().map(|&(viewer, listed)| (viewer.to_owned(), names(listed))).collect()
    }

    #[test]
    fn who_was_a_member_and_is_in_no_list_any_more_has_left() {
        let mut leavers = Leavers::default();
        let before = views(&[("n1", "n2 n3"), ("n2", "n1 n3"), ("n3", "n1 n2")]);
        let after = views(&[("n1", "n3"), ("n2", "n1 n3"), ("n3", "n1")]);
        assert_eq!(leavers.look(&before), Vec::<String>::new());
        assert_eq!(leavers.look(&after), Vec::<String>::new(), "once may be chance");
        assert_eq!(leavers.look(&after), ["n2"]);
        assert_eq!(leavers.look(&after), Vec::<String>::new(), "it is said once");
    }

    #[test]
    fn nodes_that_are_gone_or_have_not_joined_stop_nobody() {
        let mut leavers = Leavers::default();
        let all = [("n1", "n2 n3"), ("n2", "n1 n3"), ("n3", "n1 n2"), ("n4", "")];
        for _ in 0..5 {
            assert_eq!(leavers.look(&views(&all)), Vec::<String>::new(), "n4 lists nobody and is in no list");
        }
        for _ in 0..5 {
            assert_eq!(leavers.look(&views(&[("n2", "n1 n3"), ("n4", "")])), Vec::<String>::new(), "two are down");
            assert_eq!(
                leavers.look(&views(&[("n3", "n1"), ("n2", "n1 n3")])),
                Vec::<String>::new(),
                "one is half of two"
            );
            assert_eq!(leavers.look(&[]), Vec::<String>::new());
        }
    }
}
