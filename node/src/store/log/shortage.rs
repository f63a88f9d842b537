//! Tells shortage from damage. What failed because something has run out is as it was, and works when there is some again: so it is
//! waited out, or refused. What failed otherwise may have been half done, and the store stops.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// An error that may come of a shortage.
pub(crate) trait Shortage {
    /// What has run out, in words.
    fn shortage(&self) -> Option<&'static str>;
}

impl Shortage for io::Error {
    fn shortage(&self) -> Option<&'static str> {
        match Errno::from_io_error(self)? {
            Errno::MFILE => Some("this process has as many files open as it may (EMFILE)"),
            Errno::NFILE => Some("the system has as many files open as it can (ENFILE)"),
            Errno::NOMEM => Some("the system has no memory left (ENOMEM)"),
            Errno::DQUOT => Some("the quota of this user is used up (EDQUOT)"),
            Errno::NOSPC => Some("no room is left on the device (ENOSPC)"),
            _ => None,
        }
    }
}

/// Tries again while something is short, for [`PATIENCE`] at most. For what changes nothing if it fails: reading.
pub(super) fn wait_out<T>(what: &'static str, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut begun = None;
    loop {
        let error = match attempt() {
            Err(error) => error,
            done => return done,
        };
        let Some(shortage) = error.shortage() else { return Err(error) };
        let since = *begun.get_or_insert_with(|| {
            tracing::warn!(what, shortage, "something is short: waiting until it is there again");
            Instant::now()
        });
        if since.elapsed() >= PATIENCE {
            return Err(error);
        }
        std::thread::sleep(STEP);
    }
}

/// How long a shard waits for what is short. Longer is no help to anybody: requests end before it, and a
/// node that starts again begins with nothing open.
const PATIENCE: Duration = Duration::from_secs(30);

const STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_waited_out_and_damage_is_not() {
        for short in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::DQUOT, Errno::NOSPC] {
            let mut attempts = 0;
            let done = wait_out("test", || {
                attempts += 1;
                if attempts < 3 { Err(io::Error::from(short)) } else { Ok(attempts) }
            });
            assert_eq!(done.expect("it passed"), 3, "{short:?}");
        }
        for damage in [Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::BADF] {
            let mut attempts = 0;
            let failed = wait_out("test", || {
                attempts += 1;
                Err::<(), _>(io::Error::from(damage))
            });
            assert_eq!((failed.is_err(), attempts), (true, 1), "{damage:?}");
        }
        assert!(io::Error::other("in words").shortage().is_none());
    }
}
