//! What a benchmark prints for people.

use super::result::{OpenLoop, Report};
use crate::exit::Result;
use crate::output::{self, grouped, size};

/// Prints it.
pub(super) fn print(report: &Report) -> Result {
    for line in lines(report) {
        output::line(line)?;
    }
    Ok(())
}

fn lines(report: &Report) -> Vec<String> {
    let settings = &report.settings;
    let mut lines = vec![
        format!(
            "{}: {}, {:.1} s after {:.1} s of warm-up, {} keys ({}), values of {}",
            settings.what(),
            settings.pace(),
            report.seconds,
            settings.warmup_seconds,
            grouped(settings.keys.into()),
            format!("{:?}", settings.distribution).to_lowercase(),
            size(settings.value_bytes),
        ),
        format!(
            "bucket {}: n = {}, r = {}, w = {}, {}, durability = {}; {} nodes",
            settings.bucket,
            settings.n,
            settings.r,
            settings.w,
            if settings.sloppy { "sloppy" } else { "strict" },
            settings.durability,
            settings.nodes,
        ),
        String::new(),
        table(report),
        String::new(),
    ];
    lines.extend(report.open_loop.as_ref().map(open_loop));
    errors(report, &mut lines);
    match (&report.server_cpu_reason, report.server_cpu_us_per_op) {
        (Some(reason), _) => lines.push(format!("server CPU: not measured: {reason}")),
        (None, Some(micros)) => {
            lines.push(format!("server CPU: {micros:.1} µs per operation, all nodes together"));
        }
        (None, None) => {}
    }
    if let Some(micros) = report.client_cpu_us_per_op {
        lines.push(format!("client CPU: {micros:.1} µs per operation"));
    }
    lines
}

fn table(report: &Report) -> String {
    let ms = |ms: f64| format!("{ms:.3}");
    let rows = report.kinds().map(|(kind, latencies)| {
        vec![
            kind.name().to_owned(),
            grouped(latencies.ops_per_second as u64),
            ms(latencies.p50_ms),
            ms(latencies.p99_ms),
            ms(latencies.p99_9_ms),
            ms(latencies.max_ms),
        ]
    });
    output::table(&["", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], rows.collect())
}

/// What became of what was due.
fn open_loop(open: &OpenLoop) -> String {
    let mut line = format!(
        "due: {}, of which {} began more than a millisecond late, one of them {:.1} ms; that is in their latencies",
        grouped(open.due),
        grouped(open.late),
        open.delay_max_ms,
    );
    if open.not_begun > 0 {
        line.push_str(&format!(
            "\nnot begun: {}, as every client had a request under way until the end. The cluster, or so many clients, does \
             not keep this rate, and the percentiles above are too low",
            grouped(open.not_begun)
        ));
    }
    if open.unfinished > 0 {
        line.push_str(&format!("\nunfinished: {}, not in the percentiles above", grouped(open.unfinished)));
    }
    line
}

fn errors(report: &Report, lines: &mut Vec<String>) {
    let errors = &report.errors;
    if errors.kinds.is_empty() {
        lines.push(if report.operations == 0 {
            "no request was answered within the measured time; measure for longer than --timeout to see why".to_owned()
        } else {
            "errors: none".to_owned()
        });
        return;
    }
    lines.push(format!(
        "errors: {} refused, {} unknown, {} otherwise",
        grouped(errors.refused),
        grouped(errors.unknown),
        grouped(errors.failed),
    ));
    for (kind, count) in &errors.kinds {
        let text = errors.first.get(kind).map_or("", String::as_str);
        lines.push(format!("  {} {kind}, the first: {text}", grouped(*count)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::sample;
    use super::*;

    #[test]
    fn an_open_loop_says_what_it_did_not_do() {
        let mut report = sample(1.0);
        assert!(!lines(&report).join("\n").contains("due:"));
        report.settings.rate = Some(500.0);
        report.open_loop = Some(OpenLoop { due: 1500, late: 7, delay_max_ms: 12.34, not_begun: 0, unfinished: 0 });
        let text = lines(&report).join("\n");
        assert!(text.contains("workload a: 500 ops/s by at most 64 clients, 3.0 s"), "{text}");
        assert!(
            text.contains("due: 1,500, of which 7 began more than a millisecond late, one of them 12.3 ms"),
            "{text}"
        );
        assert!(!text.contains("not begun") && !text.contains("unfinished"), "{text}");
        report.open_loop = Some(OpenLoop { due: 1500, late: 7, delay_max_ms: 12.3, not_begun: 1200, unfinished: 4 });
        let text = lines(&report).join("\n");
        assert!(text.contains("not begun: 1,200") && text.contains("unfinished: 4"), "{text}");
    }
}
