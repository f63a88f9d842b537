//! What is printed at the end, in Markdown.

use crate::result::{Cell, Op, Report};
use crate::summary::{ANONYMOUS, CLIENT_CPU, Figure, MAX, P50, P99, P99_9, RATE, RESIDENT, Row, SERVER_CPU, Spread};
use crate::systems::Name;

/// All of it.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = Text::default();
    heading(&mut text, report);
    if report.cells.is_empty() {
        return text.0;
    }
    figures(&mut text, report);
    ratios(&mut text, report);
    memory(&mut text, report);
    meanings(&mut text, report);
    oddities(&mut text, report);
    text.0
}

fn heading(text: &mut Text, report: &Report) {
    let (settings, machine) = (&report.settings, &report.machine);
    text.paragraph(format!(
        "Three processes of each system and the load on one machine: {}, {} cores, Linux {}. {} keys, values of {} bytes; {} s each, \
         after {} s of warm-up; {}.",
        machine.processor,
        machine.cores,
        machine.kernel,
        grouped(settings.keys.into()),
        grouped(settings.value_bytes.into()),
        settings.seconds,
        settings.warmup_seconds,
        match settings.rounds {
            1 => "one round".to_owned(),
            rounds => format!("medians of {rounds} rounds in turn, in brackets their range"),
        },
    ));
    if machine.in_memory {
        text.paragraph(format!(
            "**{} is in memory: a sync cost nothing, and the puts are of no disk.**",
            machine.dir.display()
        ));
    } else {
        text.paragraph(format!(
            "A write of 4 KiB with its fdatasync took {} on this disk (median, before the first round).",
            us(machine.sync_us)
        ));
    }
    for system in &report.systems {
        let (title, program) = (system.system.title(), system.program.display());
        text.line(format!("- {title}: {program}, `{}`; {}", system.version, system.meaning.reached_by));
    }
    for absent in &report.absent {
        text.line(format!("- {}: **left out**: {}", absent.system.title(), absent.why));
    }
    text.end();
    if let Some(why) = &report.cut_short {
        // The end of a log may follow.
        let why = why.lines().next().unwrap_or_default();
        text.paragraph(format!("**Cut short: {why}.** What was measured until then:"));
    }
}

fn figures(text: &mut Text, report: &Report) {
    let mut rows = Vec::new();
    for (op, clients) in loads(report) {
        for system in taking_part(report) {
            let row = Row { system, op, clients };
            if row.cells(report).next().is_none() {
                continue;
            }
            let figure = |figure: Figure, shown: fn(f64) -> String| spread(row.spread(report, figure), shown);
            let errors: u64 = row.cells(report).map(|cell| cell.errors).sum();
            rows.push(vec![
                op.to_string(),
                clients.to_string(),
                system.title().to_owned(),
                figure(RATE, whole),
                figure(P50, ms),
                figure(P99, ms),
                figure(P99_9, ms),
                // The range says nothing that its upper end does not.
                row.spread(report, MAX).map_or_else(|| "-".to_owned(), |max| ms(max.high)),
                figure(SERVER_CPU, us),
                figure(CLIENT_CPU, us),
                grouped(errors),
            ]);
        }
    }
    let columns = [
        "",
        "clients",
        "",
        "per second",
        "p50",
        "p99",
        "p99.9",
        "max",
        "server CPU per op",
        "client CPU per op",
        "errors",
    ];
    text.table(&columns, &rows);
    text.paragraph(
        "Server CPU is that of all processes which serve, together. max is that of all rounds, errors their sum."
            .to_owned(),
    );
}

fn ratios(text: &mut Text, report: &Report) {
    let mut rows = Vec::new();
    for (op, clients) in loads(report) {
        for other in taking_part(report).filter(|other| *other != Name::Driftless) {
            let ours = Row { system: Name::Driftless, op, clients };
            let theirs = Row { system: other, ..ours };
            let ratio = |figure: Figure| spread(ours.ratio(theirs, report, figure), times);
            if ours.ratio(theirs, report, RATE).is_some() {
                let figures = [RATE, P50, P99, P99_9, SERVER_CPU, CLIENT_CPU].map(ratio);
                let begin = [op.to_string(), clients.to_string(), format!("Driftless : {}", other.title())];
                rows.push(begin.into_iter().chain(figures).collect());
            }
        }
    }
    if rows.is_empty() {
        return;
    }
    text.table(
        &["", "clients", "", "per second", "p50", "p99", "p99.9", "server CPU per op", "client CPU per op"],
        &rows,
    );
    text.paragraph(
        "A ratio is that of the figures of one round. Above 1 is better for Driftless in *per second*, worse in all others.".to_owned(),
    );
}

fn memory(text: &mut Text, report: &Report) {
    let Some((op, clients)) = loads(report).last() else { return };
    let mut rows = Vec::new();
    for system in taking_part(report) {
        let row = Row { system, op, clients };
        let rate = |run: &crate::result::Run| f64::from(report.settings.keys) / run.preload_seconds;
        let preload = report.runs.iter().filter(|run| run.system == system).map(rate).collect();
        rows.push(vec![
            system.title().to_owned(),
            spread(row.spread(report, RESIDENT), mib),
            spread(row.spread(report, ANONYMOUS), mib),
            spread(Spread::of(preload), whole),
        ]);
    }
    text.table(&["", "resident memory", "of that anonymous", "first puts of all keys, per second"], &rows);
    text.paragraph(
        "Memory is that of the three processes together after the last load; what is not anonymous are pages of files, which the kernel can \
         take back. First puts are by 256 clients."
            .to_owned(),
    );
}

fn meanings(text: &mut Text, report: &Report) {
    let rows: Vec<_> = report
        .systems
        .iter()
        .map(|system| vec![system.system.title().to_owned(), system.meaning.put.clone(), system.meaning.get.clone()])
        .collect();
    text.table(&["", "when a put is acknowledged", "what a get returns"], &rows);
}

/// What did not go as hoped: requests that failed, and keys with two values though one client alone writes each.
fn oddities(text: &mut Text, report: &Report) {
    let failed = |cell: &Cell| {
        let why = cell.first_error.as_deref().unwrap_or("it is not known why");
        (cell.errors > 0).then(|| format!("{}: {why}", grouped(cell.errors)))
    };
    list(text, report, "Errors, with the first of each:", failed);
    let doubled = |cell: &Cell| (cell.siblings > 0).then(|| grouped(cell.siblings));
    list(text, report, "Gets that found two values side by side, which an application has to merge:", doubled);
}

fn list(text: &mut Text, report: &Report, title: &str, of: impl Fn(&Cell) -> Option<String>) {
    let found: Vec<_> = report.cells.iter().filter_map(|cell| Some((cell, of(cell)?))).collect();
    if found.is_empty() {
        return;
    }
    text.paragraph(title.to_owned());
    for (cell, what) in found {
        let (system, clients) = (cell.system.title(), if cell.clients == 1 { "client" } else { "clients" });
        text.line(format!("- round {}, {system}, {} with {} {clients}: {what}", cell.round, cell.op, cell.clients));
    }
    text.end();
}

fn loads(report: &Report) -> impl DoubleEndedIterator<Item = (Op, u32)> {
    report.settings.ops.iter().flat_map(|&op| report.settings.clients.iter().map(move |&clients| (op, clients)))
}

fn taking_part(report: &Report) -> impl Iterator<Item = Name> {
    report.systems.iter().map(|system| system.system)
}

fn spread(spread: Option<Spread>, shown: impl Fn(f64) -> String) -> String {
    let Some(Spread { median, low, high }) = spread else { return "-".to_owned() };
    let median = shown(median);
    if low == high { median } else { format!("{median} [{}–{}]", bare(&shown(low)), bare(&shown(high))) }
}

/// Without its unit.
fn bare(figure: &str) -> &str {
    figure.split(' ').next().unwrap_or(figure)
}

/// Three digits, or all before the point.
fn digits(figure: f64) -> String {
    match figure {
        figure if figure >= 99.95 => grouped(figure.round() as u64),
        figure if figure >= 9.995 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

fn whole(figure: f64) -> String {
    grouped(figure.round() as u64)
}

fn ms(figure: f64) -> String {
    format!("{} ms", digits(figure))
}

fn us(figure: f64) -> String {
    format!("{} µs", digits(figure))
}

fn mib(bytes: f64) -> String {
    format!("{} MiB", whole(bytes / f64::from(1 << 20)))
}

fn times(ratio: f64) -> String {
    digits(ratio)
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: String) {
        self.0.push_str(&line);
        self.end();
    }

    fn paragraph(&mut self, paragraph: String) {
        self.line(paragraph);
        self.end();
    }

    fn end(&mut self) {
        self.0.push('\n');
    }

    fn table(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        self.line(format!("| {} |", columns.join(" | ")));
        self.line(format!("|{}", "---|".repeat(columns.len())));
        for row in rows {
            self.line(format!("| {} |", row.join(" | ")));
        }
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Absent, Described, Latency, Machine, Run, Settings};
    use crate::systems::redis::Wait;
    use crate::systems::{EtcdMembers, Meaning};
    use crate::usage::Memory;

    fn cell(round: u32, system: Name, ops_per_second: f64, p50_ms: f64) -> Cell {
        Cell {
            round,
            system,
            op: Op::Put,
            clients: 8,
            operations: ops_per_second as u64,
            ops_per_second,
            latency: Some(Latency { p50_ms, p99_ms: p50_ms * 2.0, p99_9_ms: p50_ms * 3.0, max_ms: p50_ms * 4.0 }),
            errors: 0,
            first_error: None,
            siblings: 0,
            server_cpu_us_per_op: Some(60.0),
            client_cpu_us_per_op: Some(30.0),
            memory: Memory { resident_bytes: 300 << 20, anonymous_bytes: 200 << 20 },
        }
    }

    fn report() -> Report {
        let described = |system: Name| Described {
            system,
            program: format!("/bin/{}", system.word()).into(),
            version: "1.0".to_owned(),
            meaning: Meaning {
                reached_by: "one connection".to_owned(),
                put: "it is on disks".to_owned(),
                get: "the value".to_owned(),
            },
        };
        let run = |system| Run { round: 1, system, start_seconds: 1.0, preload_seconds: 0.5 };
        Report {
            unix_seconds: 0,
            settings: Settings {
                rounds: 3,
                ops: vec![Op::Put],
                clients: vec![8],
                warmup_seconds: 1.0,
                seconds: 5.0,
                keys: 1000,
                value_bytes: 1024,
                etcd_members: EtcdMembers::Leader,
                etcd_connections: 16,
                redis_connections: 4,
                redis_wait: Wait::Received,
                read_before_put: false,
            },
            machine: Machine {
                processor: "a processor".to_owned(),
                cores: 2,
                kernel: "6".to_owned(),
                dir: "/data".into(),
                in_memory: false,
                sync_us: 70.4,
            },
            systems: vec![described(Name::Driftless), described(Name::Etcd)],
            absent: vec![Absent { system: Name::Redis, why: "there is no redis-server on the PATH".to_owned() }],
            runs: vec![run(Name::Driftless), run(Name::Etcd)],
            cells: vec![
                cell(1, Name::Driftless, 20_000.0, 3.0),
                cell(2, Name::Driftless, 12_000.0, 4.0),
                cell(3, Name::Driftless, 22_000.0, 2.0),
                cell(1, Name::Etcd, 10_000.0, 6.0),
                cell(2, Name::Etcd, 4_000.0, 16.0),
                cell(3, Name::Etcd, 8_800.0, 8.0),
            ],
            cut_short: None,
        }
    }

    #[track_caller]
    fn assert_line(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }

    #[test]
    fn rounds_are_shown_as_medians_with_their_range() {
        let text = markdown(&report());
        assert_line(
            &text,
            "| put | 8 | Driftless | 20,000 [12,000–22,000] | 3.00 ms [2.00–4.00] | 6.00 ms [4.00–8.00] | 9.00 ms [6.00–12.0] \
             | 16.0 ms | 60.0 µs | 30.0 µs | 0 |",
        );
        assert_line(&text, "| Etcd | 300 MiB | 200 MiB | 2,000 |".replace("Etcd", "etcd").as_str());
        assert_line(&text, "| etcd | it is on disks | the value |");
    }

    #[test]
    fn ratios_are_those_of_one_round() {
        let text = markdown(&report());
        assert_line(
            &text,
            "| put | 8 | Driftless : etcd | 2.50 [2.00–3.00] | 0.25 [0.25–0.50] | 0.25 [0.25–0.50] | 0.25 [0.25–0.50] | 1.00 | 1.00 |",
        );
    }

    #[test]
    fn what_is_absent_is_said() {
        let text = markdown(&report());
        assert_line(&text, "- Redis: **left out**: there is no redis-server on the PATH");
        assert!(!text.contains("Driftless : Redis"), "{text}");
    }

    #[test]
    fn errors_and_an_early_end_are_said() {
        let mut report = report();
        assert!(report.is_clean());
        report.cells[4].errors = 1200;
        report.cells[4].first_error = Some("no leader".to_owned());
        report.cells[0].siblings = 7;
        report.cut_short = Some("interrupted\n  the end of a log".to_owned());
        let text = markdown(&report);
        assert_line(&text, "- round 2, etcd, put with 8 clients: 1,200: no leader");
        assert_line(&text, "- round 1, Driftless, put with 8 clients: 7");
        assert_line(&text, "**Cut short: interrupted.** What was measured until then:");
        assert!(!report.is_clean());
    }

    #[test]
    fn a_cell_in_which_nothing_succeeded_has_no_latency() {
        let mut report = report();
        for cell in report.cells.iter_mut().filter(|cell| cell.system == Name::Etcd) {
            *cell = Cell { operations: 0, ops_per_second: 0.0, latency: None, errors: 5, ..cell.clone() };
            (cell.server_cpu_us_per_op, cell.client_cpu_us_per_op) = (None, None);
        }
        let text = markdown(&report);
        assert_line(&text, "| put | 8 | etcd | 0 | - | - | - | - | - | - | 15 |");
        assert!(!text.contains("Driftless : etcd"), "nothing can be divided by: {text}");
    }

    #[test]
    fn what_is_kept_can_be_read_again() {
        let report = report();
        let json = serde_json::to_string(&report).expect("it can be written");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("it can be read"), report);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [0.1234, 1.0, 9.996, 12.34, 99.96, 1234.5].map(digits),
            ["0.12", "1.00", "10.0", "12.3", "100", "1,235"]
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
