//! Driftless beside etcd and Redis: the same load, one system after the other, on one machine. See docs/benchmarks.md.
//!
//! ```text
//! options                the command line
//! rounds                 which system runs when
//!   systems/             each as three processes, and the way of one client to it
//!     processes            what is started, and that it ends with us
//!   load                 clients, the measured time, what they count
//!     workload             keys and values
//!     usage                processor time and memory, from /proc
//! result  summary  table what is kept, what it comes to, and what is printed
//! ```

#![forbid(unsafe_code)]

mod disk;
mod load;
mod options;
mod processes;
mod progress;
mod result;
mod rounds;
mod summary;
mod systems;
mod table;
mod usage;
mod workload;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{Format, Options};
use crate::progress::note;
use crate::result::{Absent, Described, Machine, Report, Settings};
use crate::systems::{Name, Program, driftless, installed, redis};

fn main() -> ExitCode {
    let options = Options::parse();
    match compare(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every request of every system succeeded.
fn compare(options: &Options) -> Result<bool> {
    let parent = options.dir.clone().unwrap_or_else(|| repository().join("target"));
    std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let parent = parent.canonicalize().with_context(|| format!("cannot enter {}", parent.display()))?;
    let in_memory = disk::in_memory(&parent)?;
    if in_memory && !options.in_memory {
        bail!(
            "{} is in memory, where a sync costs nothing: name a directory on a disk with --dir, or go on with --in-memory",
            parent.display()
        );
    }
    let (programs, absent) = find(options);
    for absent in &absent {
        note(format_args!("{} is left out: {}", absent.system.title(), absent.why));
    }
    if programs.is_empty() {
        bail!("there is nothing to measure");
    }

    let dir = tempfile::Builder::new().prefix("compare-").disable_cleanup(options.keep).tempdir_in(&parent);
    let dir = dir.with_context(|| format!("cannot make a directory in {}", parent.display()))?;
    let settings = settings(options);
    let mut report = Report {
        unix_seconds: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        machine: machine(dir.path(), in_memory)?,
        systems: programs.iter().map(|(name, program)| described(*name, program, &settings)).collect(),
        settings,
        absent,
        runs: Vec::new(),
        cells: Vec::new(),
        cut_short: None,
    };
    let output = options.output.clone().unwrap_or_else(|| parent.join(format!("compare-{}.json", report.unix_seconds)));
    let keep = |report: &Report| {
        let text = serde_json::to_vec_pretty(report).context("results cannot be written")?;
        std::fs::write(&output, text).with_context(|| format!("cannot write {}", output.display()))
    };
    // Before it takes minutes.
    keep(&report)?;

    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = rounds::run(&programs, dir.path(), &mut report, options.keep, keep) => ended,
            () = interrupted() => bail!("interrupted"),
        }
    });
    if let Err(error) = ended {
        note(format_args!("error: {error:#}"));
        report.cut_short = Some(format!("{error:#}"));
    }
    // Before the directory goes: the clients of the load.
    drop(runtime);
    keep(&report)?;
    note(format_args!("all results are in {}", output.display()));
    if options.keep {
        note(format_args!("data and logs are in {}", dir.path().display()));
    }
    let text = match options.format {
        Format::Table => table::markdown(&report),
        Format::Json => serde_json::to_string_pretty(&report).context("results cannot be written")? + "\n",
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot print")?;
    Ok(report.is_clean())
}

/// Ctrl-C, or a polite kill, or the end of the terminal.
async fn interrupted() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

/// The programs that there are, and why the others are not.
fn find(options: &Options) -> (Vec<(Name, Program)>, Vec<Absent>) {
    let (mut programs, mut absent) = (Vec::new(), Vec::new());
    for name in Name::ALL {
        let found = match name {
            _ if !options.only.is_empty() && !options.only.contains(&name) => Err("not asked for".to_owned()),
            Name::Driftless => driftless::program(options.driftless.as_deref()),
            Name::Etcd if !cfg!(feature = "etcd") => Err("this was built without the feature `etcd`".to_owned()),
            Name::Etcd => installed("etcd", "etcd-server"),
            Name::Redis => installed("redis-server", "redis-server")
                .and_then(|program| redis::cannot_wait(&program, options.redis_wait).map_or(Ok(program), Err)),
        };
        match found {
            Ok(program) => programs.push((name, program)),
            Err(why) => absent.push(Absent { system: name, why }),
        }
    }
    (programs, absent)
}

fn described(name: Name, program: &Program, settings: &Settings) -> Described {
    let meaning = match name {
        Name::Driftless => driftless::meaning(settings.read_before_put),
        #[cfg(feature = "etcd")]
        Name::Etcd => systems::etcd::meaning(settings.etcd_connections, settings.etcd_members),
        #[cfg(not(feature = "etcd"))]
        Name::Etcd => unreachable!("it has been left out"),
        Name::Redis => redis::meaning(settings.redis_connections, settings.redis_wait),
    };
    Described { system: name, program: program.path.clone(), version: program.version.clone(), meaning }
}

fn settings(options: &Options) -> Settings {
    Settings {
        rounds: options.rounds,
        ops: once(&options.op),
        clients: once(&options.clients),
        warmup_seconds: options.warmup,
        seconds: options.seconds,
        keys: options.keys,
        value_bytes: options.value_size,
        etcd_members: options.etcd_members,
        etcd_connections: options.etcd_connections,
        redis_connections: options.redis_connections,
        redis_wait: options.redis_wait,
        read_before_put: options.read_before_put,
    }
}

/// Each in the place where it comes first: twice the same would be one row.
fn once<T: PartialEq + Copy>(all: &[T]) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(one) {
            found.push(*one);
        }
    }
    found
}

fn machine(dir: &Path, in_memory: bool) -> Result<Machine> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(Machine {
        processor: name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        dir: dir.to_owned(),
        in_memory,
        sync_us: disk::sync_time(dir)?.as_secs_f64() * 1e6,
    })
}

/// Where this was built from.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it is in benches/compare").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_that_are_not_there_or_not_asked_for_are_left_out_with_the_reason() {
        let options = Options::try_parse_from(["compare", "--only", "driftless", "--driftless", "/not/there"])
            .expect("they are right");
        let (programs, absent) = find(&options);
        assert_eq!(programs, []);
        let whys: Vec<_> = absent.iter().map(|absent| (absent.system, absent.why.as_str())).collect();
        assert_eq!(
            whys,
            [
                (Name::Driftless, "there is no file /not/there"),
                (Name::Etcd, "not asked for"),
                (Name::Redis, "not asked for")
            ]
        );
    }

    #[test]
    fn what_is_named_twice_is_measured_once() {
        assert_eq!(once(&[64, 1, 64]), [64, 1]);
    }
}
