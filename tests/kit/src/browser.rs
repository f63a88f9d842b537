//! A real browser for tests of the status page, spoken to over a pipe: commands and events are JSON objects that end with a zero byte (the
//! DevTools protocol). Nothing but the browser's own program is needed for it, and without that nothing is tested, which is said.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// One that runs, with some pages open, of which one is asked.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Value,
    last: u64,
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens a page; says why not where there is no browser.
    pub fn open(url: &str) -> Option<Browser> {
        if !Path::new(PROGRAM).exists() {
            // Past what the tests' harness keeps back of a test that passes.
            let why = format_args!("not tested in a browser: there is no {PROGRAM} (Debian's package chromium)");
            writeln!(std::io::stderr(), "{why}").expect("somebody listens");
            return None;
        }
        let profile = tempfile::tempdir().expect("a temporary directory");
        // The browser reads commands from descriptor 3 and writes to 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", PROGRAM]);
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("there is a shell");
        let commands = child.stdin.take().expect("is a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("is a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while stdout.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).expect("it speaks JSON");
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, complaints) = (Value::Null, Vec::new());
        let mut browser = Browser { child, commands, messages, session, last: 0, complaints, _profile: profile };
        browser.open_another(url);
        Some(browser)
    }

    /// Opens one more page in a window of its own, so that none hides another, which is the one that is asked from now on, and says which it is.
    pub fn open_another(&mut self, url: &str) -> Value {
        self.session = Value::Null;
        let target =
            self.ask("Target.createTarget", json!({ "url": "about:blank", "newWindow": true }))["targetId"].clone();
        let attached = self.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        self.session = attached["sessionId"].clone();
        for method in ["Runtime.enable", "Log.enable", "Page.enable"] {
            self.ask(method, json!({}));
        }
        self.ask("Page.navigate", json!({ "url": url }));
        self.page()
    }

    /// The page that is asked.
    pub fn page(&self) -> Value {
        self.session.clone()
    }

    /// Which page is asked from now on.
    pub fn turn_to(&mut self, page: &Value) {
        self.session = page.clone();
    }

    /// What an expression comes to in the page; nothing in one that is being loaded.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.exchange("Runtime.evaluate", params)["result"]["result"]["value"].clone()
    }

    /// What the browser had to object to in the page: scripts that failed, and what the page's policy forbids. Not that a node was gone.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// A command of the protocol, to the page.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        let message = self.exchange(method, params);
        assert!(message["error"].is_null(), "{method}: {message}");
        message["result"].clone()
    }

    fn exchange(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        let mut bytes = serde_json::to_vec(&command).expect("is JSON");
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser runs");
        loop {
            let message = self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {method}"));
            if message["id"] == json!(self.last) {
                return message;
            }
            let entry = &message["params"]["entry"];
            let is_objection = message["method"] == "Runtime.exceptionThrown"
                || message["method"] == "Log.entryAdded" && entry["level"] == "error" && entry["source"] != "network";
            if is_objection {
                self.complaints.push(message["params"].to_string());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends in order where it can, with all its processes.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROGRAM: &str = "/usr/bin/chromium";

/// For a machine without a display, where tests may run as root; it asks for nothing that it is not told to.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

const PATIENCE: Duration = Duration::from_secs(60);
