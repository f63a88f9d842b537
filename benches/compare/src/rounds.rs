//! Which system runs when: in each round all of them, one after the other, each begun anew. Every round begins with another one, so
//! that none always follows the same.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::load::{Load, measure, preload};
use crate::progress::note;
use crate::result::{Cell, Report, Run};
use crate::systems::{Name, Program, System, driftless, redis};
use crate::workload::Values;

/// All rounds. What is measured is in the report at once, and `kept` is told after each system, so that nothing is lost if it ends early.
pub(crate) async fn run(
    programs: &[(Name, Program)],
    dir: &Path,
    report: &mut Report,
    keep_data: bool,
    kept: impl Fn(&Report) -> Result<()>,
) -> Result<()> {
    for round in 1..=report.settings.rounds {
        for (name, program) in in_turn(programs, round) {
            let dir = dir.join(format!("round-{round}-{}", name.word()));
            std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            one(*name, program, round, &dir, report)
                .await
                .with_context(|| format!("round {round}, {}", name.title()))?;
            kept(report)?;
            if !keep_data {
                std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            }
            // The next one should not pay for what this one has left to be written.
            rustix::fs::sync();
        }
    }
    Ok(())
}

fn in_turn<T>(systems: &[T], round: u32) -> impl Iterator<Item = &T> {
    let first = (round as usize - 1) % systems.len().max(1);
    systems[first..].iter().chain(&systems[..first])
}

async fn one(name: Name, program: &Program, round: u32, dir: &Path, report: &mut Report) -> Result<()> {
    let settings = report.settings.clone();
    note(format_args!("round {round} of {}: {} starts …", settings.rounds, name.title()));
    let began = Instant::now();
    match name {
        Name::Driftless => {
            let system = driftless::start(program, dir, settings.keys.into(), settings.read_before_put).await?;
            all_cells(system, name, round, began.elapsed(), report).await
        }
        #[cfg(feature = "etcd")]
        Name::Etcd => {
            let system =
                crate::systems::etcd::start(program, dir, settings.etcd_connections.into(), settings.etcd_members)
                    .await?;
            all_cells(system, name, round, began.elapsed(), report).await
        }
        #[cfg(not(feature = "etcd"))]
        Name::Etcd => anyhow::bail!("built without it"),
        Name::Redis => {
            let connections = settings.redis_connections.into();
            let system = redis::start(program, dir, connections, settings.redis_wait).await?;
            all_cells(system, name, round, began.elapsed(), report).await
        }
    }
}

async fn all_cells(
    mut system: impl System,
    name: Name,
    round: u32,
    start: Duration,
    report: &mut Report,
) -> Result<()> {
    let settings = report.settings.clone();
    let load = Load {
        keys: settings.keys.into(),
        values: Values::new(settings.value_bytes as usize),
        warmup: Duration::from_secs_f64(settings.warmup_seconds),
        time: Duration::from_secs_f64(settings.seconds),
    };
    let written = preload(&system, &load).await;
    system.check()?;
    let preload_seconds = written?.as_secs_f64();
    report.runs.push(Run { round, system: name, start_seconds: start.as_secs_f64(), preload_seconds });
    note(format_args!(
        "  ready after {:.1} s, all keys written after {preload_seconds:.1} s more, {:.0} per second",
        start.as_secs_f64(),
        f64::from(settings.keys) / preload_seconds
    ));
    for &op in &settings.ops {
        for &clients in &settings.clients {
            let measured = measure(&system, op, clients, &load).await;
            // Why it ended says more than what the load noticed of it.
            system.check()?;
            let measured = measured?;
            let latency = measured.latency.map_or_else(String::new, |latency| {
                format!(", p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms", latency.p50_ms, latency.p99_ms, latency.max_ms)
            });
            let errors = match &measured.first_error {
                Some(first) => format!(", {} ERRORS: {first}", measured.errors),
                None => String::new(),
            };
            let siblings = match measured.siblings {
                0 => String::new(),
                siblings => format!(", {siblings} found siblings"),
            };
            note(format_args!(
                "  {op}, {clients} client{}: {:.0} per second{latency}{siblings}{errors}",
                if clients == 1 { "" } else { "s" },
                measured.ops_per_second
            ));
            report.cells.push(Cell {
                round,
                system: name,
                op,
                clients,
                operations: measured.operations,
                ops_per_second: measured.ops_per_second,
                latency: measured.latency,
                errors: measured.errors,
                first_error: measured.first_error,
                siblings: measured.siblings,
                server_cpu_us_per_op: measured.server_cpu_us_per_op,
                client_cpu_us_per_op: measured.client_cpu_us_per_op,
                memory: measured.memory,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_system() {
        let order = |round| in_turn(&["d", "e", "r"], round).copied().collect::<String>();
        assert_eq!([1, 2, 3, 4].map(order), ["der", "erd", "rde", "der"]);
        assert_eq!(in_turn(&[] as &[u8], 2).count(), 0);
    }
}
