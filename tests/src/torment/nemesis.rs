//! Carries out the steps of the plan, and sees that each fault bites and is healed.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;

use super::changes::Changes;
use super::plan::{Fault, Step};
use super::shape::RESERVE;
use crate::fleet::{Fleet, Node, Operator, alarms, power_cut};
use crate::processes::cluster::TICK;
use crate::processes::fault::SLOW;
use crate::processes::strace::{Attached, SYNCS};
use crate::processes::wires;

/// Reads through the node of a name; what came of it.
type ReadThrough = Box<dyn Fn(&str) -> Result<(), String>>;

/// Has the cluster in its hands.
pub(super) struct Nemesis {
    pub(super) fleet: Fleet,
    /// Numbers of those that are members.
    pub(super) members: Vec<usize>,
    /// Who changes that.
    pub(super) operator: Arc<Operator>,
    pub(super) runtime: Handle,
    /// How changes of members went.
    pub(super) changes: Changes,
    pub(super) rng: StdRng,
    /// strace at work, by the number of the node.
    attached: Vec<(usize, Attached)>,
    /// Nodes that this fault may end.
    pub(super) may_end: Vec<usize>,
    /// Called again and again while something is waited for.
    meanwhile: Box<dyn FnMut(&str)>,
    /// Called when a disk is about to be lost whose node comes back under its name.
    disk_lost: Box<dyn Fn()>,
    /// Looks whether a node still answers reads.
    read_through: ReadThrough,
    /// What is under way, in words.
    pub(super) doing: String,
}

/// What the nemesis says and asks meanwhile.
pub(super) struct Ears {
    /// Called again and again while something is waited for.
    pub(super) meanwhile: Box<dyn FnMut(&str)>,
    /// Called when a disk is about to be lost whose node comes back under its name.
    pub(super) disk_lost: Box<dyn Fn()>,
    /// Looks whether a node still answers reads.
    pub(super) read_through: ReadThrough,
}

impl Nemesis {
    /// Of a cluster whose first so many nodes are its members.
    pub(super) fn new(
        fleet: Fleet,
        members: usize,
        operator: Operator,
        runtime: Handle,
        seed: u64,
        ears: Ears,
    ) -> Nemesis {
        let Ears { meanwhile, disk_lost, read_through } = ears;
        Nemesis {
            fleet,
            members: (0..members).collect(),
            operator: Arc::new(operator),
            runtime,
            changes: Changes::default(),
            rng: StdRng::seed_from_u64(seed ^ 1),
            attached: Vec::new(),
            may_end: Vec::new(),
            meanwhile,
            disk_lost,
            read_through,
            doing: "calm".to_owned(),
        }
    }

    /// One step from its beginning to its end. An error breaks the run off: a promise was not kept.
    pub(super) fn carry_out(&mut self, step: &Step) -> Result<(), String> {
        self.doing = self.describe(step);
        if let Some(changing) = &step.changing {
            self.change(changing)?;
            self.doing = "rest".to_owned();
            return self.hold(step.rest);
        }
        let began = Instant::now();
        self.strike(step.fault, &step.nodes)?;
        if let Some((fault, node)) = step.beside {
            self.hold(step.lasts / 3)?;
            self.strike(fault, &[node])?;
        }
        self.hold(step.lasts.saturating_sub(began.elapsed().min(step.lasts / 3)))?;
        if matches!(step.fault, Fault::DiskFull | Fault::WriteNoSpace) {
            self.expect_refusals(&step.nodes)?;
        }
        if let Some((fault, node)) = step.beside {
            self.heal(fault, &[node])?;
        }
        self.heal(step.fault, &step.nodes)?;
        self.doing = "rest".to_owned();
        self.hold(step.rest)
    }

    /// Waits, and watches: a node that ends meanwhile had a reason, or the run is over.
    pub(super) fn hold(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            (self.meanwhile)(&self.doing);
            for (number, node) in self.fleet.nodes.iter_mut().enumerate() {
                if !self.may_end.contains(&number)
                    && let Some(status) = node.ended()
                {
                    return Err(format!("{} ended by itself ({status}):\n{}", node.name, node.log_tail()));
                }
            }
            if Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Lines of logs that tell of a bug, and counters that must stay 0.
    pub(super) fn alarms(&self) -> Vec<String> {
        self.members.iter().flat_map(|number| alarms(&self.fleet.nodes[*number])).collect()
    }

    /// Names of the members.
    pub(super) fn names(&self) -> Vec<String> {
        self.members.iter().map(|number| self.name(*number)).collect()
    }

    /// The name of a node.
    pub(super) fn name(&self, number: usize) -> String {
        self.fleet.nodes[number].name.clone()
    }

    /// What a step does, in words.
    pub(super) fn describe(&self, step: &Step) -> String {
        let name = |number: &usize| self.fleet.nodes[*number].name.as_str();
        let nodes: Vec<&str> = step.nodes.iter().map(name).collect();
        let beside = step.beside.map_or(String::new(), |(fault, node)| format!(" + {} {}", fault.name(), name(&node)));
        if let Some(changing) = &step.changing {
            return self.describe_change(step.fault, changing);
        }
        match step.nodes.len() {
            all if all == self.members.len() => format!("{}{beside}", step.fault.name()),
            _ => format!("{} {}{beside}", step.fault.name(), nodes.join(" ")),
        }
    }

    pub(super) fn strike(&mut self, fault: Fault, nodes: &[usize]) -> Result<(), String> {
        let first = nodes[0];
        match fault {
            Fault::Kill | Fault::KillInRecovery => self.kill(first),
            Fault::KillAll => {
                self.may_end.extend(nodes);
                // All are gone before any is waited for.
                nodes.iter().for_each(|number| self.fleet.nodes[*number].pause());
                nodes.iter().for_each(|number| self.fleet.nodes[*number].kill());
            }
            Fault::Pause => self.fleet.nodes[first].pause(),
            Fault::Partition => {
                for (one, other) in self.pairs(|one, other| nodes.contains(&one) && !nodes.contains(&other)) {
                    wires::cut(one, other);
                    wires::cut(other, one);
                }
            }
            Fault::OneWay => {
                self.pairs(|one, _| one == first).into_iter().for_each(|(one, other)| wires::cut(one, other));
            }
            Fault::SlowSync => self.attach(first, SYNCS, SLOW, false),
            Fault::SyncError => self.fail(first, SYNCS, "error=EIO", false)?,
            Fault::WriteError => self.fail(first, WRITES, "error=EIO", true)?,
            Fault::WriteNoSpace => self.attach(first, WRITES, "error=ENOSPC", true),
            Fault::DiskFull => self.fill(first, LEFT_WHEN_FULL)?,
            Fault::DiskPacked => {
                self.may_end.push(first);
                self.fill(first, 0)?;
            }
            Fault::PowerCut | Fault::PowerCutAll => self.cut_power(nodes)?,
            Fault::RollingRestart => {
                for number in nodes {
                    self.may_end.push(*number);
                    self.fleet.nodes[*number].stop()?;
                    self.start(*number)?;
                    self.hold(Duration::from_millis(700))?;
                }
            }
            Fault::DiskLoss => {
                (self.disk_lost)();
                self.kill(first);
                let node = &self.fleet.nodes[first];
                let gone = std::fs::remove_dir_all(node.data());
                gone.map_err(|error| format!("the data of {} cannot be deleted: {error}", node.name))?;
            }
            // Changes of members are carried out, not struck with.
            Fault::Join
            | Fault::Leave
            | Fault::Swap
            | Fault::Cancel
            | Fault::Replace
            | Fault::LeaveLost
            | Fault::Double => {}
        }
        Ok(())
    }

    pub(super) fn heal(&mut self, fault: Fault, nodes: &[usize]) -> Result<(), String> {
        match fault {
            Fault::Kill | Fault::DiskLoss => self.start(nodes[0]),
            Fault::KillInRecovery => {
                for _ in 0..2 {
                    self.fleet.nodes[nodes[0]].start();
                    // From the first page that it reads to just about ready.
                    std::thread::sleep(Duration::from_millis(self.rng.random_range(1..400)));
                    self.fleet.nodes[nodes[0]].kill();
                }
                self.start(nodes[0])
            }
            Fault::KillAll => self.start_all(nodes),
            Fault::PowerCut | Fault::PowerCutAll => {
                if self.rng.random_bool(0.5) {
                    nodes.iter().for_each(|number| self.fleet.nodes[*number].start());
                    std::thread::sleep(Duration::from_millis(self.rng.random_range(1..400)));
                    self.cut_power(nodes)?;
                }
                self.start_all(nodes)
            }
            Fault::Pause => {
                self.fleet.nodes[nodes[0]].resume();
                Ok(())
            }
            Fault::Partition | Fault::OneWay => {
                wires::mend();
                Ok(())
            }
            Fault::SlowSync | Fault::WriteNoSpace => {
                self.attached.retain(|(number, _)| *number != nodes[0]);
                Ok(())
            }
            Fault::SyncError | Fault::WriteError => {
                self.attached.retain(|(number, _)| *number != nodes[0]);
                self.start(nodes[0])
            }
            Fault::DiskFull | Fault::DiskPacked => {
                let node = &mut self.fleet.nodes[nodes[0]];
                let relieved = node.disk.as_ref().expect("it has a disk").relieve();
                relieved.map_err(|error| format!("the disk of {} cannot be relieved: {error}", node.name))?;
                match node.ended() {
                    Some(status) => {
                        expect_reason(node, status)?;
                        self.start(nodes[0])
                    }
                    None => {
                        self.may_end.retain(|other| *other != nodes[0]);
                        Ok(())
                    }
                }
            }
            Fault::RollingRestart => Ok(()),
            Fault::Join
            | Fault::Leave
            | Fault::Swap
            | Fault::Cancel
            | Fault::Replace
            | Fault::LeaveLost
            | Fault::Double => Ok(()),
        }
    }

    pub(super) fn kill(&mut self, number: usize) {
        self.may_end.push(number);
        self.fleet.nodes[number].kill();
    }

    fn start(&mut self, number: usize) -> Result<(), String> {
        self.fleet.nodes[number].start();
        self.wait_serving(number)
    }

    fn start_all(&mut self, nodes: &[usize]) -> Result<(), String> {
        nodes.iter().for_each(|number| self.fleet.nodes[*number].start());
        nodes.iter().try_for_each(|number| self.wait_serving(*number))
    }

    /// Of half of the cuts some files are written that were not synced.
    fn cut_power(&mut self, nodes: &[usize]) -> Result<(), String> {
        self.may_end.extend(nodes);
        let share = if self.rng.random_bool(0.5) { 0.3 } else { 0.0 };
        let (rng, fleet) = (&mut self.rng, &mut self.fleet);
        let struck = fleet.nodes.iter_mut().enumerate().filter(|(number, _)| nodes.contains(number));
        power_cut::cut(&mut struck.map(|(_, node)| node).collect::<Vec<_>>(), |_| rng.random_bool(share))
    }

    fn fill(&mut self, number: usize, leave: u64) -> Result<(), String> {
        let node = &self.fleet.nodes[number];
        let filled = node.disk.as_ref().expect("it has a disk").fill(leave);
        filled.map_err(|error| format!("the disk of {} cannot be filled: {error}", node.name))
    }

    fn wait_serving(&mut self, number: usize) -> Result<(), String> {
        self.fleet.nodes[number].wait_serving()?;
        self.may_end.retain(|other| *other != number);
        Ok(())
    }

    fn attach(&mut self, number: usize, calls: &str, injection: &str, segments_only: bool) {
        let node = &self.fleet.nodes[number];
        let files = if segments_only { segments(node) } else { Vec::new() };
        let pid = node.pid().expect("one step ends before the next begins");
        self.attached.push((number, Attached::to(pid, calls, injection, &files)));
    }

    /// Lets calls of a node fail, and waits until it has stopped by itself, saying why.
    fn fail(&mut self, number: usize, calls: &str, injection: &str, segments_only: bool) -> Result<(), String> {
        self.may_end.push(number);
        self.attach(number, calls, injection, segments_only);
        let (began, mut attached) = (Instant::now(), Instant::now());
        while began.elapsed() < FAIL_STOP_MAX {
            (self.meanwhile)(&self.doing);
            let node = &mut self.fleet.nodes[number];
            if let Some(status) = node.ended() {
                return expect_reason(node, status);
            }
            if segments_only && attached.elapsed() > REATTACH {
                // The store has made another segment meanwhile.
                self.attached.retain(|(other, _)| *other != number);
                self.attach(number, calls, injection, segments_only);
                attached = Instant::now();
            }
            std::thread::sleep(TICK);
        }
        let node = &self.fleet.nodes[number];
        Err(format!("{} goes on {FAIL_STOP_MAX:?} after its disk has begun to fail:\n{}", node.name, node.log_tail()))
    }

    /// A full disk must have been noticed.
    fn expect_refusals(&self, nodes: &[usize]) -> Result<(), String> {
        let node = &self.fleet.nodes[nodes[0]];
        // By the condition's name, which is for programs: its words change.
        if node.log().contains("condition=\"store_short\"") {
            // It takes no writes, and answers all the same.
            return (self.read_through)(&node.name);
        }
        let space = node.disk.as_ref().and_then(|disk| disk.space().ok());
        Err(format!("{} has refused nothing for lack of room, with {space:?} free:\n{}", node.name, node.log_tail()))
    }

    fn pairs(&self, wanted: impl Fn(usize, usize) -> bool) -> Vec<(std::net::SocketAddr, std::net::SocketAddr)> {
        let nodes = || self.fleet.nodes.iter().enumerate();
        let all = nodes().flat_map(|one| nodes().map(move |other| (one, other)));
        let chosen = all.filter(|((one, _), (other, _))| one != other && wanted(*one, *other));
        chosen.map(|((_, one), (_, other))| (one.listen, other.listen)).collect()
    }
}

/// A node that has stopped by itself must have said why.
fn expect_reason(node: &Node, status: ExitStatus) -> Result<(), String> {
    if !status.success() && node.log().contains("the store has failed") {
        return Ok(());
    }
    Err(format!("{} stopped ({status}) without saying why:\n{}", node.name, node.log_tail()))
}

/// Files that the store appends to. Others are waited on and written to by the runtime, and no disk fails those.
fn segments(node: &Node) -> Vec<String> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "segment");
    let found: Vec<_> = node.files().into_iter().filter(is_segment).map(|path| path.display().to_string()).collect();
    // strace without any file would let every write fail.
    assert!(!found.is_empty(), "{} has no segment", node.name);
    found
}

const WRITES: &str = "write,pwrite64,writev,pwritev,pwritev2";

/// Less than the store's reserve, and more than the half of it that removals may use: hints go on being delivered.
const LEFT_WHEN_FULL: u64 = RESERVE * 5 / 8;

/// Clients write to each node all the time.
const FAIL_STOP_MAX: Duration = Duration::from_secs(20);

const REATTACH: Duration = Duration::from_secs(4);
