//! What stands in node/packaging: the unit as systemd's own tools see it and as a node fulfils it, and the files of nodes in it. Packages
//! and images are not built here.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use super::Walk;
use super::cluster_support::{Done, driftless, finish, free_ports, signal, wait};
use super::markdown::{page, repository};

const UNIT: &str = "node/packaging/systemd/driftless.service";

/// systemd itself does not run here: this is what it would be told, read at its end of the socket.
#[test]
fn a_unit_is_told_that_its_node_is_ready_turns_reads_again_and_stops() {
    assert!(page(UNIT).contains("\nType=notify\n") && page(UNIT).contains("\nWatchdogSec="));
    let walk = Walk::new();
    let port = free_ports(1);
    walk.does("driftless cert ca --cluster shop --out .");
    walk.does("driftless cert node n1");
    std::fs::write(
        walk.path("cluster.toml"),
        format!("cluster = \"shop\"\n[[member]]\nname = \"n1\"\naddress = \"127.0.0.1:{port}\"\n"),
    )
    .expect("can be written");
    let config = "name = \"n1\"\nadmin = \"off\"\n[tls]\ncert = \"n1.pem\"\nkey = \"n1.key\"\n";
    std::fs::write(walk.path("node.toml"), config).expect("can be written");

    let manager = Manager::listen(&walk);
    let mut node = driftless()
        .args(["serve", "--init", "--exit-with-parent", "--config"])
        .arg(walk.path("node.toml"))
        .env("NOTIFY_SOCKET", walk.path("notify"))
        .env("WATCHDOG_USEC", "300000")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let before = manager.hears_until("READY=1");
    assert!(before.contains(&"STATUS=opening the store".to_owned()), "{before:?}");
    manager.hears_until("STATUS=ready");
    for _ in 0..3 {
        manager.hears_until("WATCHDOG=1");
    }
    signal(node.id(), Signal::HUP);
    let reloading = manager.hears_until("RELOADING=1");
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    manager.hears_until("READY=1");
    // A file that is never read to its end, as on a disk that does not answer, holds up the reload alone.
    let file = walk.path("node.toml");
    std::fs::remove_file(&file).expect("is there");
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("can be made");
    signal(node.id(), Signal::HUP);
    manager.hears_until("RELOADING=1");
    for _ in 0..3 {
        manager.hears_until("WATCHDOG=1");
    }
    signal(node.id(), Signal::TERM);
    manager.hears_until("STOPPING=1");
    manager.hears_until("STATUS=finishing what is under way");
    let status = wait(&mut node, Duration::from_secs(30)).expect("stops when asked to");
    assert!(status.success(), "{status}");
}

/// systemd's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(walk: &Walk) -> Manager {
        let socket = UnixDatagram::bind(walk.path("notify")).expect("can be bound");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("can be set");
        Manager(socket)
    }

    /// All that is said up to this line, which has to come, and with it in its message.
    fn hears_until(&self, line: &str) -> Vec<String> {
        let mut heard: Vec<String> = Vec::new();
        while !heard.iter().any(|heard| heard == line) {
            let mut message = [0; 4096];
            let length = self.0.recv(&mut message).unwrap_or_else(|error| panic!("no {line}: {error}; {heard:?}"));
            let text = String::from_utf8(message[..length].to_vec()).expect("is text");
            heard.extend(text.lines().map(str::to_owned));
        }
        heard
    }
}

#[test]
fn the_unit_is_one_that_systemd_understands_and_shuts_in() {
    let walk = Walk::new();
    // The binary is not installed here, nor is its user.
    let unit = page(UNIT).replace("/usr/bin/driftless", env!("CARGO_BIN_EXE_driftless"));
    let file = walk.path("driftless.service");
    std::fs::write(&file, unit).expect("can be written");
    for words in [&["verify", "--man=no"][..], &["security", "--offline=true", "--threshold=20"]] {
        let mut command = Command::new("systemd-analyze");
        match command.args(words).arg(&file).output() {
            Ok(done) => assert!(
                done.status.success() && (words[0] != "verify" || done.stderr.is_empty()),
                "{words:?}: {}{}",
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr)
            ),
            // Not by a macro, of which nobody would see anything where the test succeeds.
            Err(error) => {
                writeln!(
                    std::io::stderr(),
                    "skipped: {words:?} of the unit, since systemd-analyze cannot be run ({error})"
                )
                .expect("can be written");
            }
        }
    }
}

/// A key that is none is an error.
#[test]
fn the_files_of_nodes_in_packages_and_images_are_understood() {
    let debian = page("node/packaging/debian/node.toml").replace("\n#name", "\nname").replace("\n#cert", "\ncert");
    let kubernetes = page("node/packaging/kubernetes/driftless.yaml");
    let (_, kubernetes) = kubernetes.split_once("  node.toml: |\n").expect("has the file");
    let (kubernetes, _) = kubernetes.split_once("\n---").expect("ends");
    let kubernetes: Vec<&str> = kubernetes.lines().map(|line| line.trim_start_matches("    ")).collect();
    let walk = Walk::new();
    for (text, name) in [
        (debian.replace("\n#key", "\nkey"), "n1"),
        (page("node/packaging/docker/node.toml"), "n2"),
        (kubernetes.join("\n"), "driftless-0"),
    ] {
        std::fs::write(walk.path("node.toml"), &text).expect("can be written");
        let Done { code, stdout, stderr } = shows(&walk, name);
        let shown = String::from_utf8(stdout).expect("is text");
        assert_eq!(code, Some(0), "{text}\n{stderr}");
        assert!(shown.contains("/var/lib/driftless/data") && shown.contains(&format!("{name}.pem")), "{shown}");
    }
}

/// Nobody builds the package here: what it takes from the repository is there, at least.
#[test]
fn the_package_takes_files_that_are_there() {
    let manifest: toml::Table = toml::from_str(&page("node/cli/Cargo.toml")).expect("is TOML");
    let deb = &manifest["package"]["metadata"]["deb"];
    let text = |value: &toml::Value| value.as_str().expect("is text").to_owned();
    let assets = deb["assets"].as_array().expect("a list").iter().map(|asset| text(&asset[0]));
    let named = [&deb["license-file"][0], &deb["maintainer-scripts"], &deb["systemd-units"]["unit-scripts"]];
    let folder = repository().join("node/cli");
    for source in assets.chain(named.map(text)).filter(|source| !source.starts_with("target/")) {
        let path = folder.join(source.rsplit_once("/*").map_or(source.as_str(), |(folder, _)| folder));
        assert!(path.exists(), "{source} is in the package, and not in the repository");
    }
}

/// What a node would go by, with the variables that containers set.
fn shows(walk: &Walk, name: &str) -> Done {
    let mut command = driftless();
    command.args(["serve", "--print-config", "--config"]).arg(walk.path("node.toml"));
    command.env("DRIFTLESS__NAME", name);
    command.env("DRIFTLESS__TLS__CERT", format!("/keys/{name}.pem"));
    command.env("DRIFTLESS__TLS__KEY", format!("/keys/{name}.key"));
    finish(command, b"")
}
