//! Nodes on machines where something is wrong that no setting makes so: a clock, a disk. Both are of the one process, and go with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::{Dev, driftless, signal, wait};

/// Starts a node whose clock is so many seconds ahead; says why not where that cannot be.
pub(crate) fn serve_ahead(dev: &Dev, name: &str, seconds: i64) -> Option<Child> {
    let (source, library) = (dev.file("clock.c"), dev.file("clock.so"));
    std::fs::write(&source, CLOCK).expect("writes");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        untested("with a wrong clock: cc makes no library");
        return None;
    }
    let mut command = driftless();
    command.args(["serve", "--config", &dev.text_of(name, "config")]);
    command.env("LD_PRELOAD", library).env("CLOCK_AHEAD_S", seconds.to_string());
    Some(dev.started(name, command))
}

/// Starts a node on a small disk in memory, with the data that it has; says why not where that cannot be. Nobody else sees the disk, and
/// so `dev` does not see that the node runs.
pub(crate) fn serve_on_small_disk(dev: &Dev, name: &str) -> Option<OnSmallDisk> {
    let apart = ["--mount", "--propagation", "private"];
    let mut attempt = Command::new("unshare");
    attempt.args(apart).args(["mount", "-t", "tmpfs", "none", "/mnt"]).stderr(Stdio::null());
    if !attempt.status().is_ok_and(|status| status.success()) {
        untested("with a full disk: it takes root and unshare");
        return None;
    }
    let data = dev.text_of(name, "data_dir");
    let binary = driftless();
    let mut command = Command::new("unshare");
    command.args(apart).args(["sh", "-c", ON_SMALL_DISK, "sh"]).arg(&data).arg(binary.get_program());
    command.args(["serve", "--config", &dev.text_of(name, "config"), "--set", "store.free_space_reserve=96MiB"]);
    let child = dev.spawned(name, command);
    let only_there = Path::new(&format!("/proc/{}/root{data}", child.id())).join("only-there");
    let node = OnSmallDisk { child, only_there };
    dev.eventually("the small disk is in its place", || node.only_there.is_dir());
    Some(node)
}

/// A node with its data on a disk of its own. It ends with this.
pub(crate) struct OnSmallDisk {
    child: Child,
    /// A directory that is on that disk alone: whoever fills another one by mistake fills everybody's.
    only_there: PathBuf,
}

impl OnSmallDisk {
    /// Takes the last block.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.only_there.join("filler")).expect("is made");
        let full = io::copy(&mut io::repeat(0).take(1 << 30), &mut file).expect_err("it is smaller than that");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    }

    pub(crate) fn relieve(&self) {
        std::fs::remove_file(self.only_there.join("filler")).expect("is there");
    }

    /// Stops the node in order.
    pub(crate) fn stop(mut self) {
        signal(self.child.id(), Signal::TERM);
        assert!(wait(&mut self.child, Duration::from_secs(20)).is_some_and(|status| status.success()));
    }
}

impl Drop for OnSmallDisk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells it past what the tests' harness keeps back of a test that passes.
fn untested(why: &str) {
    writeln!(io::stderr(), "not tested {why}").expect("somebody listens");
}

/// A library that the loader puts before libc: it shifts the time of day, and no other clock.
const CLOCK: &str = r#"
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    const char *ahead = getenv("CLOCK_AHEAD_S");
    if (result == 0 && clock == CLOCK_REALTIME && ahead)
        now->tv_sec += atol(ahead);
    return result;
}
"#;

/// The reserve that is there is of another size than the one that is asked for.
const ON_SMALL_DISK: &str = r#"
set -e
data=$1; shift
disk=$data.disk; mkdir "$disk"
mount -t tmpfs -o size=512m none "$disk"
cp -a "$data/." "$disk"
rm -f "$disk/store/reserve"
mkdir "$disk/only-there"
mount --bind "$disk" "$data"
exec "$@"
"#;
