//! A whole cluster on this machine, of real processes: what `dev` and `demo` have in common.
//!
//! ```text
//! layout.rs    the files in its directory: certificates, configuration, nodes.json, profile.toml
//! leavers.rs   who is no member any more, by what the others say
//! lock.rs      one `dev` for each directory
//! ports.rs     which ports are free
//! process.rs   one node's process: start, signal, wait; its life ends with ours
//! http.rs      asking a node's admin server whether it is ready
//! stop.rs      Ctrl-C, SIGTERM and a closed terminal as a flag
//! ```

pub(crate) mod http;
mod layout;
mod leavers;
mod lock;
mod ports;
mod process;
mod stop;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use driftless_proto::client::NodeStatus;

pub(crate) use layout::{Addition, CLUSTER_FILE, Layout, NodeFiles, NodeState, Plan, read_nodes};
pub(crate) use leavers::Leavers;
pub(crate) use lock::DirectoryLock;
pub(crate) use ports::{SPACING, free_ports, next_ports, spaced_ports};
pub(crate) use stop::StopSignal;

use super::exit::{Failure, Result};
use super::output;
use process::NodeProcess;

/// The processes of a local cluster. When this value goes, so do they.
pub(crate) struct LocalCluster {
    layout: Layout,
    nodes: Vec<Slot>,
    stop: StopSignal,
    /// Directories that look like a node's and cannot be used.
    passed_over: BTreeSet<String>,
}

/// Something happened to a node that this program did not ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A process ended.
    Exited {
        /// Which node.
        node: usize,
        /// How it ended.
        how: String,
    },
    /// Somebody started it again.
    StartedByOthers {
        /// Which node.
        node: usize,
        /// The new process.
        pid: u32,
    },
    /// Its directory was found, and it was started.
    Added {
        /// Which node.
        node: usize,
    },
}

enum Slot {
    Ours(NodeProcess),
    Others(u32),
    Gone,
}

impl LocalCluster {
    /// Starts every node of a layout. If a node cannot be started, the nodes before it are stopped again. Waiting
    /// ends early when the signal comes.
    pub(crate) fn start(layout: Layout, stop: StopSignal) -> Result<LocalCluster> {
        ports::check_free(&layout)?;
        let mut cluster = LocalCluster { nodes: Vec::new(), layout, stop, passed_over: BTreeSet::new() };
        for i in 0..cluster.layout.nodes.len() {
            let process = NodeProcess::start(&cluster.layout.nodes[i])?;
            cluster.nodes.push(Slot::Ours(process));
        }
        cluster.record()?;
        Ok(cluster)
    }

    /// Where its files are.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Waits until every member that runs says that it is ready to serve, and sees all others that run. A node that
    /// ends meanwhile is a failure, unless it was added later.
    pub(crate) fn wait_ready(&mut self, patience: Duration) -> Result {
        let deadline = Instant::now() + patience;
        for node in 0..self.nodes.len() {
            while !matches!(self.nodes[node], Slot::Gone) {
                self.stop.check()?;
                self.check_alive()?;
                let files = &self.layout.nodes[node];
                let Err(reason) = self.is_ready(node) else { break };
                if self.is_no_member(node) {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(Failure::failed(format_args!(
                        "node {} is not ready in time ({reason}); the end of {}:\n{}",
                        files.name,
                        files.log.display(),
                        files.log_tail()
                    )));
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }

    /// Whether a node is ready and has a connection to each of the other members that run; if not, why.
    fn is_ready(&self, node: usize) -> std::result::Result<(), String> {
        let status = self.status(node)?;
        let runs = |name: &str| {
            let mut nodes = self.layout.nodes.iter().zip(&self.nodes);
            nodes.any(|(files, slot)| files.name == name && !matches!(slot, Slot::Gone))
        };
        match status.peers.iter().find(|peer| !peer.connected && runs(&peer.name)) {
            Some(peer) => Err(format!("it has no connection to {}", peer.name)),
            None => Ok(()),
        }
    }

    /// What a node says of itself if it is ready.
    fn status(&self, node: usize) -> std::result::Result<NodeStatus, String> {
        let ask = |path| match http::get(self.layout.nodes[node].admin, path, ADMIN_PATIENCE) {
            Ok((200, body)) => Ok(body),
            Ok((code, body)) => Err(format!("HTTP {code}: {}", body.trim())),
            Err(error) => Err(error.to_string()),
        };
        ask("/ready")?;
        serde_json::from_str(&ask("/status")?).map_err(|error| error.to_string())
    }

    /// Whether others are ready and do not know of this node: it has not joined yet, or has left.
    fn is_no_member(&self, node: usize) -> bool {
        let name = &self.layout.nodes[node].name;
        let views = self.views();
        let mut others = views.iter().filter(|(viewer, _)| viewer != name).peekable();
        others.peek().is_some() && others.all(|(_, peers)| !peers.contains(name))
    }

    /// Of each node that is ready, its name and whom it takes for members beside itself.
    pub(crate) fn views(&self) -> Vec<(String, BTreeSet<String>)> {
        let running = (0..self.nodes.len()).filter(|&node| !matches!(self.nodes[node], Slot::Gone));
        running
            .filter_map(|node| {
                let status = self.status(node).ok()?;
                Some((status.name, status.peers.into_iter().map(|peer| peer.name).collect()))
            })
            .collect()
    }

    /// Reports those of our processes that have ended. Keeps `nodes.json` true.
    fn check_alive(&mut self) -> Result {
        let mut ended = Vec::new();
        for (node, slot) in self.nodes.iter_mut().enumerate() {
            let Slot::Ours(process) = slot else { continue };
            let Some(how) = process.exited() else { continue };
            *slot = Slot::Gone;
            ended.push((node, how));
        }
        if !ended.is_empty() {
            self.record()?;
        }
        for (node, how) in ended {
            let files = &self.layout.nodes[node];
            if files.is_added {
                // The others do without it, as they did before.
                output::warning(files.has_ended(&how));
                continue;
            }
            return Err(Failure::failed(format_args!(
                "node {} {how} before all were ready; the end of {}:\n{}",
                files.name,
                files.log.display(),
                files.log_tail()
            )));
        }
        Ok(())
    }

    /// What has happened to the processes since the last call. Keeps `nodes.json` true.
    pub(crate) fn poll(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for (node, slot) in self.nodes.iter_mut().enumerate() {
            let files = &self.layout.nodes[node];
            match slot {
                Slot::Ours(process) => {
                    if let Some(how) = process.exited() {
                        *slot = Slot::Gone;
                        events.push(Event::Exited { node, how });
                    }
                }
                Slot::Others(pid) => {
                    if !process::is_alive(*pid) {
                        *slot = Slot::Gone;
                        events.push(Event::Exited { node, how: "ended".to_owned() });
                    }
                }
                Slot::Gone => {
                    if let Some(pid) = files.pid_of_lock().filter(|&pid| process::is_alive(pid)) {
                        *slot = Slot::Others(pid);
                        events.push(Event::StartedByOthers { node, pid });
                    }
                }
            }
        }
        if !events.is_empty() {
            self.record()?;
        }
        Ok(events)
    }

    /// Starts the nodes whose directories were made since the last call. Keeps `nodes.json` true.
    pub(crate) fn adopt(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for name in self.layout.unknown_names()? {
            if self.passed_over.contains(&name) {
                continue;
            }
            let started = self.layout.read_added(&name).and_then(|files| Ok((NodeProcess::start(&files)?, files)));
            match started {
                Ok((process, files)) => {
                    events.push(Event::Added { node: self.nodes.len() });
                    self.layout.nodes.push(files);
                    self.nodes.push(Slot::Ours(process));
                }
                Err(failure) => {
                    output::warning(failure.about(format_args!("{name} cannot be started")));
                    self.passed_over.insert(name);
                }
            }
        }
        if !events.is_empty() {
            self.record()?;
        }
        Ok(events)
    }

    /// Ends a node that has left, and sees to it that it is not started again.
    pub(crate) fn retire(&mut self, node: usize, patience: Duration) -> Result {
        self.layout.nodes[node].mark_left()?;
        self.terminate(node, patience)
    }

    /// Asks one node to stop, waits, and kills it if it does not.
    fn terminate(&mut self, node: usize, patience: Duration) -> Result {
        if let Slot::Ours(process) = &mut self.nodes[node] {
            process.terminate();
            process.wait(Instant::now() + patience);
            self.nodes[node] = Slot::Gone;
        }
        self.record()
    }

    /// The nodes that run.
    pub(crate) fn all_running(&self) -> impl Iterator<Item = &NodeFiles> + '_ {
        let all = self.layout.nodes.iter().zip(&self.nodes);
        all.filter(|(_, slot)| !matches!(slot, Slot::Gone)).map(|(files, _)| files)
    }

    /// A node by its name, if it runs.
    pub(crate) fn running(&self, name: &str) -> Option<usize> {
        let mut nodes = self.layout.nodes.iter().zip(&self.nodes);
        nodes.position(|(files, slot)| files.name == name && matches!(slot, Slot::Ours(_)))
    }

    /// Kills one node with SIGKILL, as a crash would.
    pub(crate) fn kill(&mut self, node: usize) -> Result {
        if let Slot::Ours(process) = &mut self.nodes[node] {
            process.kill();
            self.nodes[node] = Slot::Gone;
        }
        self.record()
    }

    /// Starts one node again and waits until all that run are ready.
    pub(crate) fn restart(&mut self, node: usize, patience: Duration) -> Result {
        self.nodes[node] = Slot::Ours(NodeProcess::start(&self.layout.nodes[node])?);
        self.record()?;
        self.wait_ready(patience)
    }

    /// Starts all that are gone and waits until they are ready.
    pub(crate) fn restart_all(&mut self, patience: Duration) -> Result {
        for (node, slot) in self.nodes.iter_mut().enumerate() {
            if matches!(slot, Slot::Gone) {
                *slot = Slot::Ours(NodeProcess::start(&self.layout.nodes[node])?);
            }
        }
        self.record()?;
        self.wait_ready(patience)
    }

    /// Asks every node that we started to stop, waits, and kills the nodes that did not. Returns their names.
    pub(crate) fn stop(&mut self, patience: Duration) -> Result<Vec<String>> {
        for slot in &mut self.nodes {
            if let Slot::Ours(process) = slot {
                process.terminate();
            }
        }
        let deadline = Instant::now() + patience;
        let mut killed = Vec::new();
        for (node, slot) in self.nodes.iter_mut().enumerate() {
            let Slot::Ours(process) = slot else { continue };
            if !process.wait(deadline) {
                killed.push(self.layout.nodes[node].name.clone());
            }
            *slot = Slot::Gone;
        }
        self.record()?;
        Ok(killed)
    }

    /// Nodes that run and that somebody else started.
    pub(crate) fn started_by_others(&self) -> impl Iterator<Item = (&NodeFiles, u32)> + '_ {
        self.layout.nodes.iter().zip(&self.nodes).filter_map(|(files, slot)| match slot {
            Slot::Others(pid) => Some((files, *pid)),
            _ => None,
        })
    }

    fn record(&self) -> Result {
        let states = self.nodes.iter().map(|slot| match slot {
            Slot::Ours(process) => NodeState::Running(process.pid()),
            Slot::Others(pid) => NodeState::Running(*pid),
            Slot::Gone => NodeState::Exited,
        });
        self.layout.write_nodes(&states.collect::<Vec<_>>())
    }
}

/// Also where a start has failed: `nodes.json` must not go on to name processes that are no more.
impl Drop for LocalCluster {
    fn drop(&mut self) {
        let mut has_killed = false;
        for slot in &mut self.nodes {
            if let Slot::Ours(process) = slot {
                process.kill();
                (*slot, has_killed) = (Slot::Gone, true);
            }
        }
        if has_killed && let Err(failure) = self.record() {
            output::warning(failure);
        }
    }
}

/// Short enough that nobody notices, long enough to cost nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(30);

/// How long an admin server on this machine may take to answer.
const ADMIN_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that had been started when another could not be were killed, and went on to be called running.
    #[test]
    fn nobody_is_called_running_once_a_start_has_failed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = free_ports(2).expect("there are some");
        let layout = Layout::create(dir.path(), &Plan { ports, shards: 1 }).expect("can be made");
        let states = || -> Vec<_> {
            let nodes = read_nodes(dir.path()).expect("is written");
            nodes.into_iter().map(|node| (node.name, node.pid.is_some(), node.state)).collect()
        };
        let exited = ["n1", "n2"].map(|name| (name.to_owned(), false, "exited".to_owned()));
        // As when one of them is not ready in time.
        drop(LocalCluster::start(layout, StopSignal::default()).expect("starts"));
        assert_eq!(states(), exited);

        let layout = Layout::open(dir.path()).expect("can be read");
        layout.write_nodes(&[NodeState::Running(1), NodeState::Running(2)]).expect("can be written");
        let log = &layout.nodes[1].log;
        // Not there if the process has not come to write one.
        let _ = std::fs::remove_file(log);
        std::fs::create_dir(log).expect("can be made");
        let failed = LocalCluster::start(layout, StopSignal::default()).err().expect("has no log");
        assert!(failed.message().contains("log.txt"), "{}", failed.message());
        assert_eq!(states(), exited);
    }

    /// It went on to be called running, under a number that another process may have by now.
    #[test]
    fn an_added_node_that_ends_before_all_are_ready_is_written_down() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = free_ports(2).expect("there are some");
        let layout = Layout::create(dir.path(), &Plan { ports: ports[..1].to_vec(), shards: 1 }).expect("can be made");
        let zone = "default".to_owned();
        let addition = Addition { name: "n2".to_owned(), ports: ports[1], zone, weight: 1, shards: 1 };
        layout.add(&addition).expect("can be added");
        std::fs::write(dir.path().join("n1/left"), "").expect("can be written");
        let layout = Layout::open(dir.path()).expect("can be read");
        // What is started is this test, which knows no `serve` and ends at once.
        let mut cluster = LocalCluster::start(layout, StopSignal::default()).expect("starts");
        cluster.wait_ready(Duration::from_secs(60)).expect("nobody is waited for");
        let nodes = read_nodes(dir.path()).expect("is written");
        let said: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.pid, node.state.as_str())).collect();
        assert_eq!(said, [("n2", None, "exited")]);
        let said = cluster.layout().nodes[0].has_ended("exited with code 1");
        assert!(said.contains("log.txt. Start it again with `driftless serve --config "), "{said}");

        // If it has been declared lost meanwhile, nothing has to be stopped, and it is not started again either.
        cluster.retire(0, Duration::ZERO).expect("can be written");
        assert!(Layout::open(dir.path()).expect("can be read").nodes.is_empty());
    }
}
