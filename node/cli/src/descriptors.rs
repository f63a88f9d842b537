//! How many files and sockets this process may have open. A store that has too few left takes no writes, so the limit is raised as far
//! as the system allows before anything is opened.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to what the system allows without privileges; returns what it is then, `None` if there is none.
pub(crate) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        // As it was, then.
        Err(_) => current,
    }
}

/// What the system allows without privileges; `None` if there is no limit.
pub(crate) fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Below this a node may run out of them: its store keeps files of a large data set open, a few hundred at the most, beside
/// sockets, logs and the admin port's connections.
pub(crate) const ADVISED: u64 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_raised_to_what_is_allowed() {
        let raised = raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!((raised, current), (maximum, maximum));
    }
}
