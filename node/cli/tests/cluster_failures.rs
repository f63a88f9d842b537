//! One node is killed; the others go on with what a quorum of two allows, and say clearly what it does not.

#![allow(clippy::disallowed_methods, reason = "it is measured how long a refusal takes")]

mod cluster_support;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use cluster_support::bad_machine::{serve_ahead, serve_on_small_disk};
use cluster_support::{Dev, is_alive, signal, text, wait};
use driftless_testkit::browser::Browser;
use rustix::process::Signal;
use serde_json::json;

#[test]
fn two_of_three_go_on_and_the_third_catches_up() {
    let dev = Dev::start();
    dev.ok(&["put", "before", "1"]);
    dev.kill("n3");
    dev.eventually("dev says that n3 is gone, and how to start it", || {
        dev.said().contains("n3 was ended by signal 9") && dev.said().contains("driftless serve --config")
    });

    // r and w of 2 answer; 3 are refused, or time out, with words to go by.
    assert_eq!(dev.json(&["get", "before", "-r", "2"])["values"], json!(["1"]));
    for i in 0..10 {
        dev.ok(&["put", &format!("during-{i}"), "2"]);
    }
    for args in [&["get", "before", "-r", "3"][..], &["put", "more", "x", "-w", "3"]] {
        let started = Instant::now();
        let done = dev.run(args);
        assert!(args[0] == "put" || started.elapsed() < Duration::from_secs(4), "{args:?}: {:?}", started.elapsed());
        assert!(matches!(done.code, Some(3 | 4)), "{args:?}: {:?} {}", done.code, done.stderr);
        assert!(done.stderr.contains("not enough replicas") || done.stderr.contains("timed out"), "{}", done.stderr);
    }
    dev.eventually("it is known that n3 is gone, and a refusal does not take long then", || {
        let started = Instant::now();
        let done = dev.run(&["get", "before", "-r", "3"]);
        done.code == Some(3) && started.elapsed() < Duration::from_secs(2)
    });
    dev.eventually("everybody thinks n3 down", || dev.json(&["status"])["nodes"][2]["state"] == json!("down"));
    let status = dev.json(&["status"]);
    assert_eq!((&status["healthy"], &status["nodes"][2]["name"]), (&json!(false), &json!("n3")));
    assert!(text(&status, "summary").contains("n3"));
    assert_eq!(dev.run(&["status", "--check"]).code, Some(1));

    // A person starts it again, with the command that was printed.
    let mut by_hand = dev.serve("n3");
    let endpoint = dev.endpoints().remove(2);
    dev.eventually("n3 answers", || dev.run(&["--endpoint", &endpoint, "get", "before", "-r", "3"]).code == Some(0));
    for i in 0..10 {
        assert_eq!(dev.json(&["get", &format!("during-{i}"), "-r", "3"])["values"], json!(["2"]));
    }
    dev.eventually("read repair has filled in what n3 missed", || {
        (0..10).all(|i| {
            let read = dev.json(&["get", &format!("during-{i}"), "--explain"]);
            let replicas = read["explanation"]["read"]["replicas"].as_array().cloned().unwrap_or_default();
            replicas.len() == 3 && replicas.iter().all(|replica| replica["repaired"] == json!(false))
        })
    });
    dev.eventually("all is well", || dev.json(&["status"])["healthy"] == json!(true));
    signal(by_hand.id(), Signal::TERM);
    let status = wait(&mut by_hand, Duration::from_secs(30)).expect("stops when asked to");
    assert!(status.success(), "{status}");

    // It knew that it had been killed; the next start will know that it has stopped in order.
    let crashed = "did not stop in order";
    assert!(std::fs::read_to_string(dev.file("n3.txt")).expect("is there").contains(crashed));
    let first = std::fs::read_to_string(dev.cluster().join("n1/log.txt")).expect("is there");
    assert!(!first.contains(crashed), "{first}");
    let running = |name: &str| {
        let identity = dev.cluster().join(name).join("data/identity.json");
        std::fs::read_to_string(identity).expect("is there").contains("\"running\": true")
    };
    assert_eq!((running("n1"), running("n3")), (true, false));
}

#[test]
fn a_status_that_nobody_answers_names_those_who_should() {
    let dev = Dev::start();
    dev.kill_all();
    let status = dev.json(&["status"]);
    assert_eq!(status["healthy"], json!(false));
    let expected = "No node answers: nothing can be read or written. To do: start them, or see whether they can be reached from here.";
    assert_eq!(status["summary"], json!(expected));
    let nodes = status["nodes"].as_array().expect("a list");
    assert_eq!(nodes.iter().map(|node| text(node, "name")).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    assert!(nodes.iter().all(|node| node["state"] == json!("down")), "{nodes:?}");
    assert_eq!(dev.run(&["status", "--check"]).code, Some(1));
    // Of one endpoint that does not answer nothing follows for the others.
    dev.fails(1, &["status", "--endpoint", "127.0.0.1:9"], &["nothing answers at 127.0.0.1:9", "hint:"]);
}

/// What n1 and n2 think of n3.
fn opinions_of_third(dev: &Dev) -> Vec<String> {
    let status = dev.json(&["status"]);
    let nodes = status["nodes"].as_array().expect("a list").clone();
    let peers = nodes.iter().take(2).flat_map(|node| node["peers"].as_array().cloned().unwrap_or_default());
    peers.filter(|peer| peer["name"] == json!("n3")).map(|peer| text(&peer, "liveness")).collect()
}

#[test]
fn a_process_that_stands_still_is_missed_and_comes_back() {
    let dev = Dev::start();
    dev.eventually("all are alive", || opinions_of_third(&dev) == ["alive", "alive"]);
    let (_, pid) = dev.pids().into_iter().find(|(name, _)| name == "n3").expect("is a node");
    let pid = pid.expect("runs");

    // Its sockets take what is sent, its connections stay: only that it says nothing tells.
    signal(pid, Signal::STOP);
    dev.eventually("n3 is missed", || opinions_of_third(&dev).iter().all(|opinion| opinion != "alive"));
    dev.eventually("n3 is thought down", || opinions_of_third(&dev) == ["down", "down"]);
    assert_eq!(dev.json(&["status"])["nodes"][2]["state"], json!("down"));
    assert_eq!(dev.run(&["status", "--check"]).code, Some(1));
    dev.ok(&["put", "during", "1"]);

    signal(pid, Signal::CONT);
    dev.eventually("n3 is alive again", || opinions_of_third(&dev) == ["alive", "alive"]);
    dev.eventually("and all is well", || dev.json(&["status"])["healthy"] == json!(true));
    // Nor does it blame the others for its own silence.
    assert_eq!(dev.json(&["get", "during", "-r", "3"])["values"], json!(["1"]));
}

#[test]
fn nodes_do_not_outlive_a_dev_that_is_killed() {
    let mut dev = Dev::start();
    let pids: Vec<u32> = dev.pids().into_iter().filter_map(|(_, pid)| pid).collect();
    assert_eq!(pids.len(), 3);
    dev.crash();
    dev.eventually("the nodes have stopped", || !pids.iter().any(|&pid| is_alive(pid)));
    dev.up();
    dev.ok(&["put", "k", "v"]);
}

/// The terminal of a `dev` was closed, and a gigabyte of certificates and data stayed in /tmp.
#[test]
fn a_temporary_dev_leaves_nothing_behind_when_its_terminal_closes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let said = dir.path().join("said.txt");
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).expect("is made");
    let log = std::fs::File::create(&said).expect("can be written");
    let mut command = cluster_support::driftless();
    command.args(["dev", "--nodes", "1", "--base-port", &cluster_support::free_ports(1).to_string()]);
    command.env("TMPDIR", &temporary).stdin(std::process::Stdio::null());
    let mut child =
        command.stdout(log.try_clone().expect("can be shared")).stderr(log).spawn().expect("the binary runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    let text = || std::fs::read_to_string(&said).unwrap_or_default();
    while !text().contains("Process ids are in") {
        assert!(Instant::now() < deadline && matches!(child.try_wait(), Ok(None)), "is ready: {}", text());
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(child.id(), Signal::HUP);
    let status = wait(&mut child, Duration::from_secs(30)).expect("stops");
    assert!(status.success(), "{status}: {}", text());
    let left: Vec<_> = std::fs::read_dir(&temporary).expect("is there").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// In a real browser: what its policy forbids, and what a script does wrong, nobody else notices.
#[test]
fn the_status_page_shows_who_is_up_and_who_is_gone_and_comes_back_to_a_node_that_does() {
    let dev = Dev::start();
    let url = format!("http://{}/", text(&dev.nodes()[0], "admin"));
    let Some(browser) = Browser::open(&url) else { return };
    let browser = RefCell::new(browser);
    let shown = |expression: &str| browser.borrow_mut().evaluate(expression);
    let verdict = || shown("document.querySelector('h1').textContent");
    let states =
        || shown("[...document.querySelectorAll('#nodes tbody .state')].map((state) => state.textContent).join()");
    dev.eventually("all is well", || verdict() == json!("All is well: all 3 nodes are up and connected."));
    assert_eq!(states(), json!("up,up,up"));
    assert_eq!(shown("document.querySelector('h1').dataset.tone"), json!("well"));
    let partitions = shown("document.getElementById('ring-words').textContent");
    assert!(
        partitions.as_str().is_some_and(|words| words.starts_with("256 partitions, each with 3 owners: n1 33.3 %"))
    );

    dev.ok(&["put", "asked", "for"]);
    let puts = "[...document.querySelectorAll('#operations tr')].find((row) => row.cells[0].textContent === 'put').cells[2].textContent";
    dev.eventually("a put is counted", || shown(puts).as_str().is_some_and(|time| time.ends_with('s')));

    dev.kill("n3");
    let is_gone = || verdict().as_str().is_some_and(|said| said.starts_with("1 of 3 nodes is down (n3)"));
    dev.eventually("the page says that n3 is down", is_gone);
    assert_eq!(states(), json!("up,up,down"));
    let remedy = shown("document.getElementById('remedy').textContent");
    assert!(remedy.as_str().is_some_and(|todo| todo.contains("driftless cluster replace n3 --with NAME")), "{remedy}");
    assert!(shown("document.querySelectorAll('#ring-picture .owned.lost').length").as_u64() > Some(0));

    // The node that is looked at goes as well, and comes back.
    dev.kill("n1");
    let is_stale = || shown("document.body.classList.contains('stale')") == json!(true);
    dev.eventually("the page says that its node sends nothing", is_stale);
    let mut by_hand = dev.serve("n1");
    dev.eventually("the page is fed again", || !is_stale() && is_gone());
    assert_eq!(browser.borrow().complaints(), &[] as &[String]);
    signal(by_hand.id(), Signal::TERM);
    wait(&mut by_hand, Duration::from_secs(20)).expect("stops");
}

/// The two that nobody had looked at: what the page called "clock off" had "+7199999 ms" beside it, which pushed the table out of its frame, and
/// hints for a node without room waited, it said, since that "was away, or late".
#[test]
fn the_status_page_shows_a_full_disk_and_a_wrong_clock_and_when_they_are_over() {
    let dev = Dev::start();
    let Some(browser) = Browser::open(&format!("http://{}/", dev.text_of("n1", "admin"))) else { return };
    let browser = RefCell::new(browser);
    let shown = |expression: &str| browser.borrow_mut().evaluate(expression).as_str().unwrap_or_default().to_owned();
    let verdict = || shown("document.querySelector('h1').textContent");
    let states =
        || shown("[...document.querySelectorAll('#nodes tbody .state')].map((state) => state.textContent).join()");
    // Of the row of a node what stands under a heading, and whether it is marked.
    let cell = |row: usize, heading: &str| {
        shown(&format!(
            "(() => {{ const table = document.getElementById('nodes'), at = [...table.tHead.rows[0].cells].findIndex((cell) => \
             cell.textContent === '{heading}'), cell = table.tBodies[0].rows[{row}].cells[at]; \
             return cell.textContent + (cell.classList.contains('short') ? ', marked' : ''); }})()"
        ))
    };
    dev.eventually("all is well", || verdict() == "All is well: all 3 nodes are up and connected.");
    assert!(!cell(2, "clock").contains("marked"), "{}", cell(2, "clock"));

    dev.stop("n3");
    let Some(mut ahead) = serve_ahead(&dev, "n3", 7200) else { return };
    dev.eventually("the page says whose clock is wrong, and by how much", || {
        verdict().starts_with("n3: the clock of this node is 2h ahead of those of most others, so it takes no puts")
    });
    assert_eq!(shown("document.querySelector('h1').dataset.tone"), "critical");
    assert_eq!(
        shown("document.getElementById('remedy').textContent"),
        "To do: set the clock of this machine right (NTP)."
    );
    assert_eq!((states().as_str(), cell(2, "clock").as_str()), ("up,up,clock off", "+2 h, marked"));

    dev.stop("n2");
    dev.eventually("n2 is missed", || states() != "up,up,clock off");
    let Some(full) = serve_on_small_disk(&dev, "n2") else { return };
    dev.eventually("n2 is back", || states() == "up,up,clock off");
    full.fill();
    dev.eventually("the page says that n2 has no room", || states() == "up,store short,clock off");
    let troubles = || shown("document.getElementById('troubles-list').textContent");
    dev.eventually("and what to do", || {
        troubles().contains("n2 the store of this node is short, so it takes no writes: ")
            && troubles().contains("(store.free_space_reserve)")
            && troubles().contains("To do: make room on the disk of its data")
    });
    assert!(cell(1, "disk free").ends_with(" %), marked"), "{}", cell(1, "disk free"));
    let tasks = || shown("document.getElementById('tasks').textContent");
    for i in 0..10 {
        dev.ok(&["put", &format!("without-{i}"), "room"]);
    }
    dev.eventually("what waits for n2 waits for room", || tasks().contains("n2 takes no writes: until it has room"));

    full.relieve();
    dev.eventually("n2 has room", || states() == "up,up,clock off");
    signal(ahead.id(), Signal::TERM);
    assert!(wait(&mut ahead, Duration::from_secs(20)).is_some_and(|status| status.success()));
    let mut right = dev.serve("n3");
    // n2 stays where it is: what is beneath its small disk is an older copy by now.
    dev.eventually("all is well again", || verdict().starts_with("All is well"));
    assert_eq!((cell(1, "disk free").contains("marked"), cell(2, "clock").contains("marked")), (false, false));
    assert_eq!(browser.borrow().complaints(), &[] as &[String]);
    full.stop();
    signal(right.id(), Signal::TERM);
    wait(&mut right, Duration::from_secs(20)).expect("stops");
}
