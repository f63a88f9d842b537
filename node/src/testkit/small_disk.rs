//! A file system of its own with so little room that a test can fill it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system in memory. It is unmounted when this is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with the reason in the test's output, where this user may not mount.
    pub(crate) fn mount(at: &Path, bytes: u64) -> Option<SmallDisk> {
        fs::create_dir_all(at).expect("makes a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "driftless-test"]).arg(at);
        match mount.output() {
            Ok(done) if done.status.success() => Some(SmallDisk(at.into())),
            Ok(done) => skip(&String::from_utf8_lossy(&done.stderr)),
            Err(error) => skip(&error.to_string()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all room but so many bytes, to the last block if that is none.
    pub(crate) fn fill(&self, leave: u64) {
        let file = File::create(self.0.join(FILLING)).expect("makes a file");
        let mut file = io::BufWriter::with_capacity(4096, file);
        while self.free() > leave && file.write_all(&[1; 4096]).and_then(|()| file.flush()).is_ok() {}
        assert!(self.free() <= leave, "the disk is full");
        // What did not fit is not to be tried again.
        let _ = file.into_parts();
    }

    /// Gives back what was taken.
    pub(crate) fn relieve(&self) {
        fs::remove_file(self.0.join(FILLING)).expect("was filled");
    }

    /// Bytes that can still be written.
    pub(crate) fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.0).expect("answers");
        found.f_bavail * found.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[allow(clippy::print_stderr, reason = "says why a test was left out")]
fn skip(why: &str) -> Option<SmallDisk> {
    eprintln!("skipped: a small file system cannot be mounted here ({})", why.trim());
    None
}

const FILLING: &str = "filling";
