//! `driftless dev add`: one more node beside a `dev` cluster, which joins it once an operator says so.

use std::path::Path;
use std::time::{Duration, Instant};

use driftless_node::config::WEIGHT_MAX;

use crate::exit::{Failure, Result};
use crate::local::{Addition, DirectoryLock, Layout, NodeFiles, SPACING, next_ports, read_nodes};
use crate::members::{parse_plain_name, parse_zone};
use crate::output::{self, Tone, paint};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Its name [default: the next free one, as in n4]
    #[arg(value_parser = parse_plain_name)]
    name: Option<String>,
    /// What fails together with it
    #[arg(long, default_value = "default", value_parser = parse_zone)]
    zone: String,
    /// Its share of the data, relative to the others
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(WEIGHT_MAX)))]
    weight: u32,
    /// Threads that own a part of its data [default: as many as the others have]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SPACING)))]
    shards: Option<u16>,
}

/// Makes its directory. The `dev` that runs there starts it.
pub(super) fn run(args: &Args, dir: Option<&Path>) -> Result {
    let dir = dir.ok_or_else(|| {
        Failure::usage("which cluster? --dir is missing").hint("it is the directory that `driftless dev` printed")
    })?;
    if !Layout::exists(dir) {
        return Err(Failure::usage(format_args!("there is no dev cluster in {}", dir.display()))
            .hint(format_args!("`driftless dev --dir {}` makes one", dir.display())));
    }
    let layout = Layout::open(dir)?;
    let name = args.name.clone().unwrap_or_else(|| next_name(&layout));
    let shards = args.shards.unwrap_or(layout.shards);
    let ports = next_ports(&layout)?;
    let addition = Addition { name, ports, zone: args.zone.clone(), weight: args.weight, shards };
    let node = layout.add(&addition)?;
    let runs = DirectoryLock::is_taken(&layout.dir);
    if runs {
        wait_started(&layout.dir, &node)?;
    }
    greet(&layout, &node, runs)
}

fn greet(layout: &Layout, node: &NodeFiles, runs: bool) -> Result {
    let (dir, name, listen) = (layout.dir.display(), &node.name, node.listen);
    if runs {
        output::line(format_args!(
            "{} {name} runs, listens on {listen} and calls the cluster.\n\nIn this shell, to let it join:\n",
            paint(Tone::Good, "added:")
        ))?;
    } else {
        output::line(format_args!("{} {name} is made and will listen on {listen}.", paint(Tone::Good, "added:")))?;
        output::warning(format_args!("no dev runs in {dir}, so nothing was started"));
        output::line("\nTo start it with the others, and then in another shell to let it join:\n")?;
        output::line(format_args!("  {}", paint(Tone::Strong, format!("driftless dev --dir {dir}"))))?;
    }
    let join = format!("cluster join {name}");
    for command in [join.as_str(), "cluster plan", "cluster commit PLAN", "transfers --watch"] {
        output::line(format_args!("  {}", paint(Tone::Strong, format!("driftless --profile {dir} {command}"))))?;
    }
    output::line("\nPLAN is the name that `cluster plan` prints.")
}

/// Waits until the `dev` that runs there has started it.
fn wait_started(dir: &Path, node: &NodeFiles) -> Result {
    let deadline = Instant::now() + START_PATIENCE;
    let mut seen = None;
    loop {
        let nodes = read_nodes(dir).map_err(Failure::failed)?;
        let entry = nodes.iter().find(|entry| entry.name == node.name);
        let ended = entry.is_some_and(|entry| entry.pid.is_none());
        if ended {
            let failure = Failure::failed(format_args!(
                "{} was started and has ended; the end of {}:\n{}",
                node.name,
                node.log.display(),
                node.log_tail()
            ));
            return Err(failure.hint(format_args!(
                "it stays there as it is. Mend what it says; `driftless serve --config {}` starts it then, and so does the next \
                 `driftless dev --dir {}`",
                node.config.display(),
                dir.display()
            )));
        }
        // One that cannot use its configuration says so at once.
        if entry.is_some() && seen.get_or_insert_with(Instant::now).elapsed() >= SETTLES {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed(format_args!("the dev in {} has not started {}", dir.display(), node.name))
                .hint("see what it prints; it may be of an older release, then stop it and start it again"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first of n1, n2, … that nobody has or has had.
fn next_name(layout: &Layout) -> String {
    let taken = |name: &String| layout.dir.join(name).exists() || layout.nodes.iter().any(|node| node.name == *name);
    (layout.founders.len() + 1..).map(|i| format!("n{i}")).find(|name| !taken(name)).unwrap_or_default()
}

/// A `dev` looks each second.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Long enough for a node to read its files.
const SETTLES: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Plan;

    #[test]
    fn the_next_name_is_one_that_nobody_has_had() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports = vec![(7400, 7401), (7410, 7411)];
        let layout = Layout::create(dir.path(), &Plan { ports, shards: 1 }).expect("can be made");
        assert_eq!(next_name(&layout), "n3");
        let addition = |name: &str| Addition {
            name: name.to_owned(),
            ports: (7420, 7421),
            zone: "default".to_owned(),
            weight: 1,
            shards: 1,
        };
        layout.add(&addition("n3")).expect("can be added");
        assert_eq!(next_name(&layout), "n4", "its directory is there");
    }

    #[test]
    fn where_no_cluster_is_nothing_is_added() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let args = Args { name: None, zone: "default".to_owned(), weight: 1, shards: None };
        assert!(run(&args, None).expect_err("which?").to_string().contains("--dir"));
        assert!(run(&args, Some(dir.path())).expect_err("empty").to_string().contains("no dev cluster"));
    }
}
