//! How cost grows: keys, sizes of values, clients, nodes, siblings; and how long a start takes after `kill -9`.
//!
//! ```sh
//! cargo run --release -p driftless-tests --bin growth -- --axis clients
//! cargo run --release -p driftless-tests --bin growth -- --axis all --keys-max 10000000 --dir growth
//! cargo run --release -p driftless-tests --bin growth -- --starts 1000000x1024,10000000x100
//! ```
//! Each place on an axis is a new cluster of real processes in the temporary directory (`TMPDIR`), which must be on a disk.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

use std::path::PathBuf;
use std::process::ExitCode;

use driftless_tests::growth::{Axis, Plan, chart, keep, measure, starts, table};

const USAGE: &str = "usage: growth [--axis keys|size|clients|nodes|siblings|all] [--seconds 5] [--keys-max 1000000] \
                     [--starts KEYSxBYTES,…] [--dir DIRECTORY]";

fn main() -> ExitCode {
    let wanted = match Wanted::parse(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut cells = Vec::new();
    for axis in wanted.axes {
        let mut said = |cell: &driftless_tests::growth::Cell| {
            eprintln!("{} {}: {} {:.0}/s", axis.title(), axis.shown(cell.at), cell.op, cell.per_second);
        };
        cells.extend(measure(axis, &wanted.plan, &mut said));
        println!("{}\n", table(axis, &cells));
    }
    let mut started = Vec::new();
    for (keys, value_bytes) in wanted.starts {
        started.push(starts(keys, value_bytes));
    }
    if !started.is_empty() {
        println!("| keys, bytes | serves after | trees after | MiB |\n|---|---|---|---|");
        for start in &started {
            println!(
                "| {} × {} | {:.2} s | {:.1} s | {} |",
                Axis::Keys.shown(start.keys),
                start.value_bytes,
                start.serving_seconds,
                start.trees_seconds,
                start.resident_mib
            );
        }
    }
    if let Some(dir) = wanted.dir {
        let charts = Axis::ALL.into_iter().filter(|axis| cells.iter().any(|cell| cell.axis == *axis));
        let kept = std::fs::create_dir_all(&dir)
            .and_then(|()| keep(&dir.join("growth.json"), &cells, &started))
            .and_then(|()| {
                charts.into_iter().try_for_each(|axis| {
                    std::fs::write(dir.join(format!("growth-{}.svg", axis.name())), chart(axis, &cells))
                })
            });
        if let Err(e) = kept {
            eprintln!("cannot write to {}: {e}", dir.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

struct Wanted {
    axes: Vec<Axis>,
    plan: Plan,
    starts: Vec<(u64, u64)>,
    dir: Option<PathBuf>,
}

impl Wanted {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Wanted, String> {
        let plan = Plan { seconds: 5, keys_max: 1_000_000 };
        let mut wanted = Wanted { axes: Vec::new(), plan, starts: Vec::new(), dir: None };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{word} needs a number, not {value:?}"));
            match word.as_str() {
                "--axis" if value == "all" => wanted.axes = Axis::ALL.into(),
                "--axis" => {
                    let axis = Axis::ALL.into_iter().find(|axis| axis.name() == value);
                    wanted.axes.push(axis.ok_or_else(|| format!("there is no axis {value:?}"))?);
                }
                "--seconds" => wanted.plan.seconds = number()?.clamp(1, 3_600) as u32,
                "--keys-max" => wanted.plan.keys_max = number()?.max(10_000),
                "--dir" => wanted.dir = Some(value.into()),
                "--starts" => {
                    for start in value.split(',') {
                        let pair = start
                            .split_once('x')
                            .and_then(|(keys, bytes)| Some((keys.parse().ok()?, bytes.parse().ok()?)));
                        wanted.starts.push(pair.ok_or_else(|| format!("{start:?} is no KEYSxBYTES"))?);
                    }
                }
                _ => return Err(format!("unknown option {word}")),
            }
        }
        if wanted.axes.is_empty() && wanted.starts.is_empty() {
            return Err("nothing to measure".into());
        }
        Ok(wanted)
    }
}
