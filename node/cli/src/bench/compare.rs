//! `driftless bench --compare A B`: two results of `--output` side by side.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::result::Report;
use super::workload::Kind;
use crate::exit::{Failure, Result};
use crate::output::{self, Format};

/// One number of both.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Row {
    what: String,
    a: f64,
    b: f64,
    /// b / a; absent if a is nothing.
    ratio: Option<f64>,
}

/// Prints how the second differs from the first.
pub(super) fn run(files: &[PathBuf], format: Format) -> Result {
    let [a, b] = files else { return Err(Failure::usage("--compare takes two files, as --output writes them")) };
    let (first, second) = (read(a)?, read(b)?);
    let (rows, warnings) = (rows(&first, &second), warnings(&first, &second));
    if format == Format::Json {
        let json = json!({ "a": a, "b": b, "rows": rows, "warnings": warnings });
        return output::json_line(&json);
    }
    for (name, path, report) in [("A", a, &first), ("B", b, &second)] {
        output::line(format_args!(
            "{name}: {}, {}, release {}",
            path.display(),
            report.settings.what(),
            report.release
        ))?;
    }
    output::line("")?;
    let cells = rows.iter().map(|row| {
        let ratio = row.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        vec![row.what.clone(), number(row.a), number(row.b), ratio]
    });
    output::line(output::table(&["", "A", "B", "B/A"], cells.collect()))?;
    for warning in warnings {
        output::warning(warning);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format_args!("cannot read {}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::failed(format_args!("{} is no result of a benchmark: {error}", path.display()))
            .hint("`driftless bench --output FILE` writes one")
    })
}

/// Throughput, percentiles and processor time, as far as both have them.
fn rows(a: &Report, b: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |what: String, a: f64, b: f64| rows.push(Row { what, a, b, ratio: (a > 0.0).then(|| b / a) });
    row("ops/s".to_owned(), a.ops_per_second, b.ops_per_second);
    for kind in Kind::ALL {
        let (Some(a), Some(b)) = (a.latencies(kind), b.latencies(kind)) else { continue };
        let name = kind.name();
        row(format!("{name} ops/s"), a.ops_per_second, b.ops_per_second);
        row(format!("{name} mean ms"), a.mean_ms, b.mean_ms);
        row(format!("{name} p50 ms"), a.p50_ms, b.p50_ms);
        row(format!("{name} p99 ms"), a.p99_ms, b.p99_ms);
        row(format!("{name} p99.9 ms"), a.p99_9_ms, b.p99_9_ms);
        row(format!("{name} max ms"), a.max_ms, b.max_ms);
    }
    if let (Some(a), Some(b)) = (a.server_cpu_us_per_op, b.server_cpu_us_per_op) {
        row("server CPU µs/op".to_owned(), a, b);
    }
    rows
}

/// Why the numbers may not say what they seem to.
fn warnings(a: &Report, b: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let settings = |report: &Report| match serde_json::to_value(&report.settings) {
        Ok(Value::Object(settings)) => settings,
        _ => unreachable!("settings are an object of numbers and words"),
    };
    let theirs = settings(b);
    for (name, value) in settings(a) {
        let other = theirs.get(&name).unwrap_or(&Value::Null);
        if *other != value {
            warnings.push(format!("the settings differ: {name} is {value} in A and {other} in B"));
        }
    }
    if (a.seconds / b.seconds).max(b.seconds / a.seconds) > 1.1 {
        warnings.push(format!("A measured for {:.1} s, B for {:.1} s", a.seconds, b.seconds));
    }
    for (name, report) in [("A", a), ("B", b)] {
        let failed: u64 = report.errors.kinds.values().sum();
        if failed > 0 {
            warnings.push(format!("{failed} requests of {name} failed, and are not in its latencies"));
        }
        if let Some(open) = report.open_loop.as_ref().filter(|open| open.not_begun + open.unfinished > 0) {
            let missing = open.not_begun + open.unfinished;
            warnings.push(format!(
                "{name} did not keep its rate: {missing} requests that were due are not in its latencies"
            ));
        }
        if report.interrupted {
            warnings.push(format!("{name} was interrupted"));
        }
    }
    warnings
}

fn number(number: f64) -> String {
    if number >= 1000.0 { output::grouped(number.round() as u64) } else { format!("{number:.3}") }
}

#[cfg(test)]
mod tests {
    use super::super::result::{OpenLoop, sample};
    use super::*;

    #[test]
    fn ratios_are_of_the_second_to_the_first() {
        let rows = rows(&sample(1.0), &sample(2.0));
        let ratio = |what: &str| rows.iter().find(|row| row.what == what).expect(what).ratio;
        assert_eq!(ratio("ops/s"), Some(0.75));
        assert_eq!((ratio("put ops/s"), ratio("put p50 ms"), ratio("put p99.9 ms")), (Some(0.5), Some(2.0), Some(2.0)));
        assert_eq!((ratio("get p99 ms"), ratio("server CPU µs/op")), (Some(1.0), Some(2.0)));
        assert!(rows.iter().all(|row| !row.what.starts_with("insert")), "neither has any");
        let mut nothing = sample(1.0);
        nothing.ops_per_second = 0.0;
        assert_eq!(super::rows(&nothing, &sample(1.0))[0].ratio, None);
    }

    #[test]
    fn what_makes_a_comparison_unfair_is_said() {
        assert_eq!(warnings(&sample(1.0), &sample(3.0)), Vec::<String>::new());
        let mut other = sample(1.0);
        (other.settings.clients, other.settings.rate, other.seconds) = (8, Some(500.0), 30.0);
        other.errors.kinds.insert("Overloaded".to_owned(), 3);
        other.open_loop = Some(OpenLoop { due: 9, late: 2, delay_max_ms: 1.0, not_begun: 2, unfinished: 0 });
        other.interrupted = true;
        let said = warnings(&sample(1.0), &other).join("\n");
        for expected in [
            "clients is 64 in A and 8 in B",
            "rate is null in A and 500.0 in B",
            "A measured for 3.0 s, B for 30.0 s",
            "3 requests of B failed",
            "B did not keep its rate: 2 requests",
            "B was interrupted",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn results_are_compared_from_their_files_and_other_files_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("is written");
            path
        };
        let a = file("a.json", serde_json::to_string(&sample(1.0)).expect("JSON"));
        let b = file("b.json", serde_json::to_string(&sample(2.0)).expect("JSON"));
        run(&[a.clone(), b], Format::Text).expect("are compared");
        let failure = run(&[a.clone(), file("c.json", "{}".to_owned())], Format::Text).expect_err("is no result");
        assert!(failure.to_string().contains("is no result of a benchmark"), "{failure}");
        assert!(run(&[a, dir.path().join("none")], Format::Json).is_err());
    }
}
