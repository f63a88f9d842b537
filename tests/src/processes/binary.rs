//! Where the `driftless` binary is.
//!
//! Cargo tells only the tests of a binary's own package. For all others it lies beside this executable, if it was
//! built with it, as `cargo test --workspace` does. One that is missing, or older than a source file, is built first: a
//! test of yesterday's binary would prove nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The binary, of the same profile as this executable.
pub(crate) fn driftless() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let own = std::env::current_exe().expect("a running program has a path");
        let beside = own.parent().expect("it lies in a directory");
        let profile = if beside.ends_with("deps") { beside.parent().expect("of a target directory") } else { beside };
        let binary = profile.join("driftless");
        if changed(&binary).is_none_or(|built| built < newest_source()) {
            build(profile);
        }
        assert!(binary.is_file(), "there is no {}; build it with `cargo build --bin driftless`", binary.display());
        binary
    })
}

fn build(profile: &Path) {
    let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile's directory has its name");
    let target = profile.parent().expect("it lies in the target directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--package", "driftless", "--bin", "driftless", "--profile"])
        .arg(if name == "debug" { "dev" } else { name })
        .arg("--target-dir")
        .arg(target)
        .current_dir(WORKSPACE)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "`cargo build --bin driftless` failed");
}

fn newest_source() -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut folders: Vec<PathBuf> = ["ring", "proto", "antientropy", "client", "node", "node/cli"]
        .map(|name| Path::new(WORKSPACE).join(name).join("src"))
        .into();
    while let Some(folder) = folders.pop() {
        // Where there are no sources, as on a machine that got the binaries only, nothing can be newer.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                newest = newest.max(changed(&path).unwrap_or(newest));
            }
        }
    }
    newest
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
