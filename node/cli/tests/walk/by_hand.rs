//! The cluster by hand of docs/configuration.md: certificates, files and processes as the page says, on free ports.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Walk;
use super::cluster_support::{driftless, free_ports, signal, wait};
use super::compare::{Numbers, difference};
use super::markdown::{Block, blocks, page, spans};
use super::samples;

const PAGE: &str = "docs/configuration.md";
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Three nodes that somebody has started by hand.
struct Nodes(Vec<Child>);

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.iter().for_each(|child| signal(child.id(), Signal::TERM));
        for child in &mut self.0 {
            if wait(child, Duration::from_secs(20)).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

#[test]
fn the_cluster_by_hand_of_the_configuration_page() {
    let text = page(PAGE);
    let all = blocks(&text);
    let section: Vec<&Block> = all.iter().filter(|block| block.heading == "A cluster by hand").collect();
    let languages: Vec<&str> = section.iter().map(|block| block.language.as_str()).collect();
    assert_eq!(languages, ["sh", "toml", "toml", "sh", "console"], "the walk follows this section");
    let [certificates, cluster, node, start, _] = section[..] else { unreachable!("has just been looked at") };
    let profile = all.iter().find(|block| block.heading == "Profiles" && block.language == "toml");
    let profile = profile.expect("the page shows a profile");

    // Somebody may take a port between looking and using it: then another try is made.
    for _ in 0..5 {
        let walk = Walk::new();
        let base = free_ports(3);
        certificates.commands().iter().for_each(|line| drop(walk.does(line)));
        write(&walk, "cluster.toml", &on_ports(cluster, base));
        for (name, admin) in NODES.into_iter().zip([8501, 8511, 8521]) {
            let text = node.lines.join("\n").replace("n1", name).replace("8501", &admin.to_string());
            write(&walk, &format!("{name}/node.toml"), &moved(&text, base));
        }
        let (serve, other): (Vec<_>, Vec<_>) =
            start.commands().into_iter().partition(|line| line.starts_with("driftless serve "));
        other.iter().for_each(|line| drop(walk.does(line)));
        assert_eq!(serve.len(), NODES.len(), "one for each node");
        let Some(_nodes) = started(&walk, &serve) else { continue };

        let spans = spans(&text);
        let greeting = spans.iter().find(|span| span.starts_with("ready: n1 serves")).expect("the page shows it");
        let said = said(&walk, "n1");
        assert_eq!(difference(std::slice::from_ref(greeting), &said, Numbers::Count), None);

        // The profile of the page has its files in a directory beside it, which must not be taken for the profile.
        fs::create_dir(walk.path("shop")).expect("can be made");
        walk.does("cp authority/ca.pem alice/alice.pem alice/alice.key shop/");
        write(&walk, "config.toml", &on_ports(profile, base));
        for sample in samples::by_hand() {
            walk.compares(sample, &[("127.0.0.1:8500", format!("127.0.0.1:{base}"))]);
        }
        let put = spans.iter().find(|span| span.starts_with("driftless --profile shop put ")).expect("is shown");
        assert_eq!(walk.does(put), "stored\n");
        let print = spans.iter().find(|span| span.ends_with("--print-config")).expect("is shown");
        let printed = walk.does(print);
        assert!(printed.contains("[limits]") && printed.contains("name = \"n1\""), "{printed}");
        return;
    }
    panic!("no cluster starts");
}

/// The nodes, once all of them say that they are ready; nothing if a port is taken.
fn started(walk: &Walk, lines: &[String]) -> Option<Nodes> {
    let mut nodes = Nodes(Vec::new());
    for (line, name) in lines.iter().zip(NODES) {
        let output = File::create(walk.path(&format!("{name}.txt"))).expect("can be made");
        let errors = output.try_clone().expect("can be shared");
        let mut command = driftless();
        command.args(line.split(' ').skip(1)).current_dir(walk.dir.path()).stdin(Stdio::null());
        nodes.0.push(command.stdout(output).stderr(errors).spawn().expect("the binary runs"));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = NODES.map(|name| said(walk, name));
        if said.iter().any(|said| said.contains("cannot listen")) {
            return None;
        }
        if said.iter().all(|said| said.contains("ready: ")) {
            return Some(nodes);
        }
        let ended = nodes.0.iter_mut().any(|child| child.try_wait().expect("can be asked").is_some());
        assert!(!ended && Instant::now() < deadline, "the nodes do not start: {said:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a node has said for people; its log is not.
fn said(walk: &Walk, name: &str) -> String {
    let all = fs::read_to_string(walk.path(&format!("{name}.txt"))).expect("is there");
    all.lines().filter(|line| line.starts_with("ready: ") || line.contains("cannot listen")).collect()
}

fn on_ports(block: &Block, base: u16) -> String {
    moved(&block.lines.join("\n"), base)
}

/// The same on the ports that are free.
fn moved(text: &str, base: u16) -> String {
    let ports = [8500, 8510, 8520].into_iter().flat_map(|port| [port, port + 1]);
    ports.fold(text.to_owned(), |text, port| {
        text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", base + (port - 8500)))
    })
}

fn write(walk: &Walk, name: &str, text: &str) {
    fs::write(walk.path(name), text).unwrap_or_else(|error| panic!("{name} can be written: {error}"));
}
