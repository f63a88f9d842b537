//! `driftless dev`: a whole cluster on this machine in one command.
//!
//! It starts real peer processes and watches them. It never restarts one: a person who kills a node wants to see what
//! happens then. A node whose directory comes to be while it runs (`dev add`) it starts; one that has left the cluster it stops.

mod add;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::exit::{Failure, Result};
use super::local::{DirectoryLock, Event, Layout, Leavers, LocalCluster, Plan, SPACING, StopSignal, spaced_ports};
use super::output::{self, Tone, paint};

/// Ports are 7400, 7410, … (UDP) and 7401, 7411, … (TCP, for metrics and status), all on the loopback interface.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many nodes found the cluster [default: 3, or as many as have founded that in DIR]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: Option<u16>,
    /// Keep everything here and go on from it next time [default: a temporary directory]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// First port [default: 7400, or what DIR has]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// Threads of each node that own a part of its data [default: 1, or what DIR has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SPACING)))]
    shards: Option<u16>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Make one more node beside the cluster in --dir, and start it
    ///
    /// It gets a certificate, a configuration, free ports and an empty data directory in DIR/NAME. The `dev` that runs there starts
    /// it, now and every time that it is started again. It calls the cluster and holds nothing until `driftless cluster join`
    /// and `commit` let it in: what to type is printed.
    Add(add::Args),
}

/// Runs the cluster until Ctrl-C or SIGTERM, or until its terminal closes.
pub(crate) fn run(args: &Args) -> Result {
    if let Some(Command::Add(add)) = &args.command {
        let given = [("--nodes", args.nodes), ("--base-port", args.base_port), ("--shards", args.shards)];
        return match given.into_iter().find(|(_, value)| value.is_some()) {
            Some((flag, _)) => Err(Failure::usage(format_args!("{flag} before `add` means nothing to it"))
                .hint("what is meant for the new node stands behind `add`")),
            None => add::run(add, args.dir.as_deref()),
        };
    }
    let stop = StopSignal::install()?;
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(temporary_dir()?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => unreachable!("without --dir a temporary directory was made"),
    };
    let layout = layout(args, dir)?;
    let founders: Vec<String> = layout.remaining_founders().map(|node| node.name.clone()).collect();
    let _lock = DirectoryLock::take(&layout.dir)?;
    output::note(format_args!("starting {} in {} …", nodes(layout.nodes.len()), layout.dir.display()));
    let mut cluster = LocalCluster::start(layout, stop.clone())?;
    cluster.wait_ready(READY_PATIENCE)?;
    greet(&cluster, temporary.is_some())?;

    let (mut looked, mut listened) = (Instant::now(), Instant::now());
    let mut leavers = Leavers::of(founders);
    while !stop.is_set() {
        let mut events = cluster.poll()?;
        if looked.elapsed() >= LOOK_INTERVAL {
            events.extend(cluster.adopt()?);
            looked = Instant::now();
        }
        for event in events {
            tell(&cluster, &event);
        }
        if listened.elapsed() >= LISTEN_INTERVAL {
            for name in leavers.look(&cluster.views()) {
                retire(&mut cluster, &name)?;
            }
            listened = Instant::now();
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
    output::note("stopping …");
    for name in cluster.stop(STOP_PATIENCE)? {
        output::warning(format_args!("{name} did not stop within {} s and was killed", STOP_PATIENCE.as_secs()));
    }
    let mut others = false;
    for (node, pid) in cluster.started_by_others() {
        output::note(format_args!("{} still runs: somebody else started it; stop it with `kill {pid}`", node.name));
        others = true;
    }
    match temporary {
        Some(temporary) if others => {
            output::note(format_args!("its files stay in {}", temporary.keep().display()));
        }
        Some(_) => {}
        None => output::note(format_args!(
            "stopped; everything is kept: `driftless dev --dir {}` goes on from here",
            dir.display()
        )),
    }
    Ok(())
}

/// A directory that only its owner may enter, and that goes with the value.
pub(crate) fn temporary_dir() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("driftless-")
        .tempdir()
        .map_err(|error| Failure::failed(format_args!("cannot make a temporary directory: {error}")))
}

fn layout(args: &Args, dir: &Path) -> Result<Layout> {
    if !Layout::exists(dir) {
        let nodes = usize::from(args.nodes.unwrap_or(NODES_DEFAULT));
        let ports = spaced_ports(args.base_port.unwrap_or(BASE_PORT_DEFAULT), nodes)?;
        return Layout::create(dir, &Plan { ports, shards: args.shards.unwrap_or(1) });
    }
    let layout = Layout::open(dir)?;
    check_as_made(&layout, args)?;
    Ok(layout)
}

/// A cluster stays as it was made: what is asked for must be what there is.
fn check_as_made(layout: &Layout, args: &Args) -> Result {
    let differs = |has: std::fmt::Arguments<'_>| {
        Err(Failure::usage(format_args!("the cluster in {} has {has}", layout.dir.display()))
            .hint("leave the option out to go on with it, or make a new cluster in another --dir"))
    };
    let (founders, shards) = (layout.founders.len(), layout.shards);
    if let Some(wanted) = args.nodes.filter(|wanted| usize::from(*wanted) != founders) {
        return differs(format_args!("--nodes {founders}, not {wanted}"));
    }
    if let Some(wanted) = args.shards.filter(|wanted| *wanted != shards) {
        return differs(format_args!("--shards {shards}, not {wanted}"));
    }
    let Some(base) = args.base_port else { return Ok(()) };
    let ports = spaced_ports(base, founders)?.into_iter().map(|(port, _)| port);
    if ports.eq(layout.founders.iter().copied()) {
        return Ok(());
    }
    let has: Vec<String> = layout.founders.iter().map(u16::to_string).collect();
    let has = has.join(", ");
    differs(format_args!("its founders at {has}, which is not what --base-port {base} gives"))
}

fn greet(cluster: &LocalCluster, temporary: bool) -> Result {
    let layout = cluster.layout();
    let dir = layout.dir.display();
    let rows = cluster.all_running();
    let rows = rows.map(|node| vec![node.name.clone(), node.listen.to_string(), node.admin.to_string()]);
    let rows: Vec<Vec<String>> = rows.collect();
    // One that was added and has not joined runs as well, and serves nobody.
    let verb = match (cluster.all_running().any(|node| node.is_added), rows.len()) {
        (true, 1) => "runs",
        (true, _) => "run",
        (false, 1) => "serves",
        (false, _) => "serve",
    };
    output::line(format_args!("{} {} {verb}.\n", paint(Tone::Good, "ready:"), nodes(rows.len())))?;
    output::line(output::table(&["node", "listens on (udp)", "admin (http)"], rows))?;
    if let Some(node) = cluster.all_running().find(|node| !node.is_added) {
        output::line(format_args!("\nStatus page, of all nodes: http://{}/", node.admin))?;
    }
    output::line(format_args!("\nEach has its log.txt, data and node.toml in {dir}/NODE."))?;
    output::line("\nIn another shell:\n")?;
    for command in ["put greeting hello", "get greeting", "status", "load FILE.jsonl", "bench --seconds 5"] {
        output::line(format_args!("  {}", paint(Tone::Strong, format!("driftless --profile {dir} {command}"))))?;
    }
    let ending = if temporary { "stops the nodes and removes their data" } else { "stops the nodes; their data stays" };
    output::line(format_args!("\nProcess ids are in {dir}/nodes.json.\nCtrl-C {ending}."))
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

/// Stops a node that is no member any more. One that is down has been declared lost, or somebody has stopped it already: started
/// again it would be refused.
fn retire(cluster: &mut LocalCluster, name: &str) -> Result {
    let Some(node) = cluster.layout().nodes.iter().position(|node| node.name == name) else { return Ok(()) };
    let is_ours = cluster.running(name).is_some();
    let others = cluster.started_by_others().find(|(node, _)| node.name == name).map(|(_, pid)| pid);
    cluster.retire(node, STOP_PATIENCE)?;
    let home = cluster.layout().dir.join(name);
    let home = home.display();
    output::note(match others {
        _ if is_ours => format!(
            "{name} has left the cluster and holds nothing of it: it is stopped, and not started again. Delete {home} when you like"
        ),
        Some(pid) => format!(
            "{name} has left the cluster, and is not started again. Somebody else runs it: stop it with `kill {pid}`, and delete {home} \
             when you like"
        ),
        None => format!("{name} has left the cluster, and is not started again. Delete {home} when you like"),
    });
    Ok(())
}

fn tell(cluster: &LocalCluster, event: &Event) {
    match event {
        Event::Exited { node, how } => {
            output::warning(cluster.layout().nodes[*node].has_ended(how));
        }
        Event::StartedByOthers { node, pid } => {
            output::note(format_args!("{} runs again (process {pid})", cluster.layout().nodes[*node].name));
        }
        Event::Added { node } => {
            let node = &cluster.layout().nodes[*node];
            output::note(format_args!(
                "{} was added, listens on {} and calls the cluster: `driftless --profile {} cluster join {}` lets it in",
                node.name,
                node.listen,
                cluster.layout().dir.display(),
                node.name
            ));
        }
    }
}

/// As many as a default bucket has replicas.
const NODES_DEFAULT: u16 = 3;

/// Above the ports that need rights, below the ephemeral ones, and free on most machines.
const BASE_PORT_DEFAULT: u16 = 7400;

/// A node opens its store in well under a second; recovery after a crash may take a while.
pub(crate) const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Draining requests and a last sync.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// A node that was added runs after this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Leaving takes longer, and each time every node is asked.
const LISTEN_INTERVAL: Duration = Duration::from_secs(5);

/// `nodes.json` is true up to this.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn args(nodes: Option<u16>, base_port: Option<u16>, shards: Option<u16>) -> Args {
        Args { command: None, nodes, dir: None, base_port, shards }
    }

    /// Once n1 had left, the port that the cluster was made with was refused, and that of n2 taken for it.
    #[test]
    fn a_cluster_goes_on_with_what_it_was_made_with_and_with_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = layout(&args(Some(2), Some(7500), Some(2)), dir.path()).expect("can be made");
        std::fs::write(dir.path().join("n1/left"), "").expect("can be written");
        let again = |args: &Args| layout(args, dir.path()).map_err(|failure| failure.message().to_owned());
        assert_eq!(again(&args(None, None, None)).expect("is there").nodes.len(), 1);
        assert_eq!(again(&args(Some(2), Some(7500), Some(2))).expect("is the same").dir, made.dir);
        let says = |args: &Args| again(args).expect_err("differs").replace(&made.dir.display().to_string(), "D");
        assert_eq!(says(&args(Some(1), None, None)), "the cluster in D has --nodes 2, not 1");
        assert_eq!(says(&args(None, None, Some(1))), "the cluster in D has --shards 2, not 1");
        assert_eq!(
            says(&args(None, Some(7510), None)),
            "the cluster in D has its founders at 7500, 7510, which is not what --base-port 7510 gives"
        );
    }
}
