//! `status --watch` in a real terminal, beside real nodes; and what it does where there is none.

#![allow(clippy::disallowed_methods, reason = "a screen is waited for, within a time")]

mod cluster_support;

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_support::{Dev, driftless, signal, wait};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

/// A terminal with the command in it, and what is to be seen on it.
struct Screen {
    child: Child,
    keyboard: File,
    /// Kept open, so that it can be looked at when the command has ended.
    terminal: File,
    shown: Arc<Mutex<vt100::Parser>>,
}

impl Screen {
    fn open(dev: &Dev, watch: &str) -> Screen {
        let (rows, columns) = (30, 100);
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
        grantpt(&keyboard).expect("is ours");
        unlockpt(&keyboard).expect("is ours");
        let name = ptsname(&keyboard, Vec::new()).expect("has a name").into_string().expect("is text");
        tcsetwinsize(&keyboard, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
            .expect("has a size");
        let terminal = File::options().read(true).write(true).open(name).expect("opens");
        let end = || Stdio::from(terminal.try_clone().expect("can be shared"));
        let mut command = driftless();
        command.arg("--profile").arg(dev.cluster()).args(["status", watch]);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the binary runs");
        drop(command);
        let keyboard = File::from(keyboard);
        let shown = Arc::new(Mutex::new(vt100::Parser::new(
            NonZero::new(rows).expect("has some"),
            NonZero::new(columns).expect("has some"),
            0,
        )));
        let (mut output, parser) = (keyboard.try_clone().expect("can be shared"), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        Screen { child, keyboard, terminal, shown }
    }

    fn text(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    fn shows(&self, parts: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while !parts.iter().all(|part| self.text().contains(part)) {
            assert!(Instant::now() < deadline, "{parts:?} is to be seen in\n{}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("is taken");
    }

    /// Whether the terminal is as it was: what is typed is seen and comes line by line, with a cursor, on the screen of the shell.
    fn is_given_back(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("is one").local_modes;
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = shown.screen();
        modes.contains(LocalModes::ICANON | LocalModes::ECHO) && !screen.alternate_screen() && !screen.hide_cursor()
    }

    fn ends(&mut self, dev: &Dev, code: i32) {
        let status = wait(&mut self.child, Duration::from_secs(20)).expect("ends");
        assert_eq!(status.code(), Some(code), "{}", self.text());
        dev.eventually("the terminal is given back", || self.is_given_back());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_view_follows_nodes_that_go_and_come_and_gives_the_terminal_back() {
    let dev = Dev::start();
    let mut screen = Screen::open(&dev, "--watch=0.2");
    screen.shows(&["All is well: all 3 nodes are up and connected.", "[Nodes]", "n3    up", "q quit"]);
    assert!(!screen.is_given_back());

    dev.ok(&["put", "asked", "for"]);
    dev.kill("n3");
    screen.shows(&["1 of 3 nodes is down (n3)", "n3    down", "To do: start it"]);
    for number in 0..20 {
        dev.ok(&["put", &format!("missed-{number}"), "v", "-w", "2"]);
    }
    screen.shows(&["holds hints", "→ n3"]);
    let by_hand = RefCell::new(dev.serve("n3"));
    screen.shows(&["n3    up"]);
    screen.types("t");
    screen.shows(&["[Keys]", "t: [hot] large siblings", "OVER BY", "default"]);
    screen.types("\t");
    screen.shows(&["[Events]", "n3 is down", "n3 answers"]);
    screen.types("p");
    screen.shows(&["PAUSED"]);
    screen.types("q");
    screen.ends(&dev, 0);

    // Ctrl-C is a key, and SIGTERM none.
    let mut screen = Screen::open(&dev, "--watch");
    screen.shows(&["n3    up"]);
    screen.types("\x03");
    screen.ends(&dev, 0);
    let mut screen = Screen::open(&dev, "--watch");
    screen.shows(&["n3    up"]);
    signal(screen.child.id(), Signal::TERM);
    screen.ends(&dev, 0);

    signal(by_hand.borrow().id(), Signal::TERM);
    wait(&mut by_hand.borrow_mut(), Duration::from_secs(20)).expect("stops");
}

#[test]
fn a_cluster_of_which_nobody_answers_is_watched_until_somebody_does() {
    let mut dev = Dev::start();
    dev.kill_all();
    let mut screen = Screen::open(&dev, "--watch");
    screen.shows(&["No node answers: nothing can be read or written.", "n1    down", "n3    down"]);
    dev.crash();
    dev.up();
    screen.shows(&["All is well"]);
    screen.types("\x1b");
    screen.ends(&dev, 0);
}

#[test]
fn where_there_is_no_terminal_programs_have_lines() {
    let dev = Dev::start();
    let says = ["--watch draws on a terminal", "hint: `driftless status --format json` prints it once"];
    dev.fails(2, &["status", "--watch"], &says);
    dev.fails(2, &["status", "--watch=0"], &["expected seconds from 0.2 to 3600"]);
    dev.fails(2, &["status", "--watch", "--check"], &["cannot be used with"]);

    let dir = dev.cluster();
    let line = format!("driftless --profile {} status --watch=0.2 --format json | head -3", dir.display());
    let done = cluster_support::shell(&line, dir.as_path());
    let text = String::from_utf8(done.stdout).expect("is text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("each is JSON")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines.iter().all(|line| line["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3)), "{text}");

    // Who nobody answers is told so in the same fields.
    let ca = |file: &str| dir.join(file).display().to_string();
    let mut command = driftless();
    command.args(["status", "--watch", "--format", "json", "--endpoint", "127.0.0.1:9"]);
    command.args(["--ca", &ca("ca.pem"), "--cert", &ca("client.pem"), "--client-key", &ca("client.key")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("is a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("is text");
    let said: Value = serde_json::from_str(&line).expect("is JSON");
    assert_eq!((&said["nodes"], &said["healthy"]), (&json!([]), &json!(false)), "{said}");
    assert!(said["summary"].as_str().is_some_and(|why| why.contains("127.0.0.1:9")), "{said}");
    let _ = child.kill();
    let _ = child.wait();
}
