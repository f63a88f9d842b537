//! The result as a picture: throughput over time, latencies over time, and their distribution. SVG by hand, without scripts,
//! fonts or anything else from elsewhere; light or dark as the reader likes it.

mod axis;
mod panel;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::record::{Second, millis};
use super::result::Report;
use super::workload::Kind;
use crate::output::grouped;
use axis::{Axis, Scale};
use panel::{LEFT, PANEL_X, Panel, escaped, panel_y};

/// Draws it.
pub(super) fn svg(report: &Report, latencies: &BTreeMap<Kind, Histogram<u64>>) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\" aria-labelledby=\"title\">\n<title id=\"title\">{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"30\">{title}</text>\n<text class=\"quiet\" x=\"{LEFT}\" y=\"50\">{subtitle}</text>\n",
        title = escaped(&title(report)),
        subtitle = escaped(&subtitle(report)),
    );
    let points = condensed(&report.time_line);
    svg.push_str(&throughput(report, &points));
    svg.push_str(&over_time(report, &points));
    svg.push_str(&distribution(latencies));
    svg.push_str("</svg>\n");
    svg
}

fn title(report: &Report) -> String {
    let settings = &report.settings;
    format!("driftless bench: {}, {}, durability {}", settings.what(), settings.pace(), settings.durability)
}

fn subtitle(report: &Report) -> String {
    let settings = &report.settings;
    let mut text = format!(
        "{} ops/s over {:.1} s; {} keys, {}, values of {}; n = {}, r = {}, w = {}; {} nodes",
        grouped(report.ops_per_second as u64),
        report.seconds,
        grouped(settings.keys.into()),
        format!("{:?}", settings.distribution).to_lowercase(),
        crate::output::size(settings.value_bytes),
        settings.n,
        settings.r,
        settings.w,
        settings.nodes,
    );
    let failed: u64 = report.errors.kinds.values().sum();
    if failed > 0 {
        let _ = write!(text, "; {} failed", grouped(failed));
    }
    if let Some(open) = report.open_loop.as_ref().filter(|open| open.not_begun > 0) {
        let _ = write!(text, "; {} of {} due not begun", grouped(open.not_begun), grouped(open.due));
    }
    text
}

/// A point of the time line: the moment, operations and errors a second, and percentiles.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Point {
    time: f64,
    rate: f64,
    errors: f64,
    percentiles: [Option<f64>; 3],
}

/// At most [`POINTS_MAX`] points: of several seconds the mean rate and the worst percentiles.
fn condensed(seconds: &[Second]) -> Vec<Point> {
    let together = seconds.len().div_ceil(POINTS_MAX).max(1);
    let chunks = seconds.chunks(together).map(|chunk| {
        let length: f64 = chunk.iter().map(|second| second.seconds).sum();
        let per_second = |count: u64| count as f64 / length.max(0.001);
        let worst = |of: fn(&Second) -> Option<f64>| chunk.iter().filter_map(of).reduce(f64::max);
        Point {
            time: chunk[0].start + length / 2.0,
            rate: per_second(chunk.iter().map(|second| second.operations).sum()),
            errors: per_second(chunk.iter().map(|second| second.errors).sum()),
            percentiles: [
                worst(|second| second.p50_ms),
                worst(|second| second.p99_ms),
                worst(|second| second.p99_9_ms),
            ],
        }
    });
    chunks.collect()
}

fn throughput(report: &Report, points: &[Point]) -> String {
    let top =
        points.iter().map(|point| point.rate.max(point.errors)).fold(report.settings.rate.unwrap_or(0.0), f64::max);
    let panel = Panel { top: TOPS[0], x: time_axis(report), y: Axis::linear(0.0, top, panel_y(TOPS[0])) };
    let mut svg = panel.frame("Throughput, operations a second", "seconds", axis::short);
    let mut legend = vec![("one", "done")];
    if let Some(rate) = report.settings.rate {
        let (y, (left, right)) = (panel.y.at(rate), PANEL_X);
        let _ = writeln!(svg, "<path class=\"due\" d=\"M{left},{y:.1}H{right}\"/>");
        legend.push(("due", "asked for"));
    }
    svg.push_str(&panel.line("one", points.iter().map(|point| Some((point.time, point.rate)))));
    if points.iter().any(|point| point.errors > 0.0) {
        svg.push_str(&panel.line("bad", points.iter().map(|point| Some((point.time, point.errors)))));
        legend.push(("bad", "failed"));
    }
    svg.push_str(&panel.legend(&legend));
    svg
}

fn over_time(report: &Report, points: &[Point]) -> String {
    let values = || points.iter().flat_map(|point| point.percentiles).flatten();
    let panel = Panel { top: TOPS[1], x: time_axis(report), y: log_axis(values(), TOPS[1]) };
    let mut svg = panel.frame("Latency over time, milliseconds", "seconds", axis::short);
    for (i, class) in [(2, "three"), (1, "two"), (0, "one")] {
        svg.push_str(&panel.line(class, points.iter().map(|point| Some((point.time, point.percentiles[i]?)))));
    }
    svg.push_str(&panel.legend(&[("one", "p50"), ("two", "p99"), ("three", "p99.9")]));
    svg
}

fn distribution(latencies: &BTreeMap<Kind, Histogram<u64>>) -> String {
    let curves: Vec<(Kind, Vec<(f64, f64)>)> = latencies.iter().map(|(&kind, one)| (kind, curve(one))).collect();
    let nines =
        latencies.values().map(|one| (one.len().max(1) as f64).log10().ceil()).fold(2.0, f64::max).min(NINES_MAX);
    let values = || curves.iter().flat_map(|(_, curve)| curve).map(|&(_, ms)| ms);
    let x = Axis {
        scale: Scale::Linear,
        from: 0.0,
        to: nines,
        ticks: [0.0, MEDIAN].into_iter().chain((1..=nines as u32).map(f64::from)).collect(),
        range: PANEL_X,
    };
    let panel = Panel { top: TOPS[2], x, y: log_axis(values(), TOPS[2]) };
    let mut svg = panel.frame_with("Latency by percentile, milliseconds", "percentile", axis::short, percentile);
    let mut legend = Vec::new();
    for ((kind, curve), class) in curves.iter().zip(["one", "two", "three", "four"]) {
        svg.push_str(&panel.line(class, curve.iter().map(|&(at, ms)| Some((at, ms)))));
        legend.push((class, kind.name()));
    }
    svg.push_str(&panel.legend(&legend));
    svg
}

/// Latencies in milliseconds by the number of nines: 1 is the 90th percentile, 2 the 99th.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    // Where a single request is left, it is the longest.
    let last = (histogram.len() as f64).log10().min(NINES_MAX);
    let steps = (last * STEPS_PER_NINE).ceil() as u32;
    let at = |step: u32| (f64::from(step) / STEPS_PER_NINE).min(last);
    let value = |nines: f64| histogram.value_at_quantile(1.0 - 10_f64.powf(-nines)).min(histogram.max());
    (0..=steps).map(|step| (at(step), millis(value(at(step)).max(1)))).collect()
}

/// The name of so many nines: 50 %, 90 %, 99 %, 99.9 %.
fn percentile(nines: f64) -> String {
    match nines as usize {
        0 if nines > 0.0 => "50 %".to_owned(),
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        nines => format!("99.{} %", "9".repeat(nines - 2)),
    }
}

fn time_axis(report: &Report) -> Axis {
    Axis::seconds(report.seconds.max(0.001), PANEL_X)
}

fn log_axis(values: impl Iterator<Item = f64>, top: f64) -> Axis {
    let (low, high) = values.fold((f64::INFINITY, 0.0), |(low, high), value| (value.min(low), value.max(high)));
    Axis::log(low, high, panel_y(top))
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 1000.0;

/// Where the panels begin.
const TOPS: [f64; 3] = [110.0, 420.0, 730.0];

/// About one for each two pixels that a line has.
const POINTS_MAX: usize = 400;

const STEPS_PER_NINE: f64 = 20.0;

/// The nines of 50 %.
const MEDIAN: f64 = std::f64::consts::LOG10_2;

/// One request in ten million: a run that has more of them is rare.
const NINES_MAX: f64 = 7.0;

/// Colours that those can tell apart who see few, on both grounds (Okabe, Ito 2008).
const STYLE: &str = "
text { font-family: system-ui, sans-serif; fill: #222222 }
.title { font-size: 18px; font-weight: 600 }
.heading { font-size: 14px; font-weight: 600 }
.label { font-size: 12px; fill: #555555 }
.quiet { font-size: 13px; fill: #555555 }
.paper { fill: #ffffff }
.grid { stroke: #e4e4e4; fill: none }
.axis { stroke: #888888; fill: none }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.due { stroke: #888888; fill: none; stroke-dasharray: 6 4; stroke-width: 1.5 }
.one.line { stroke: #0072b2 }
.two.line { stroke: #e69f00 }
.three.line { stroke: #cc5c9c }
.four.line { stroke: #009e73 }
.bad.line { stroke: #d55e00 }
.one.dot { fill: #0072b2 }
.two.dot { fill: #e69f00 }
.three.dot { fill: #cc5c9c }
.four.dot { fill: #009e73 }
.bad.dot { fill: #d55e00 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e6 }
.label, .quiet { fill: #aaaaaa }
.paper { fill: #16181c }
.grid { stroke: #30343a }
.one.line { stroke: #56b4e9 }
.one.dot { fill: #56b4e9 }
}
";

#[cfg(test)]
mod tests {
    use super::super::result::{OpenLoop, sample};
    use super::*;

    fn histogram(values: impl Iterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds");
        values.for_each(|value| histogram.record(value).expect("within the bounds"));
        histogram
    }

    fn latencies() -> BTreeMap<Kind, Histogram<u64>> {
        let one = histogram((1..10_000).map(|i| i * 1_000));
        BTreeMap::from([(Kind::Put, one.clone()), (Kind::Get, one)])
    }

    /// Every tag that opens closes, in order; attributes are quoted; no `&` or `<` where none may be.
    fn assert_well_formed(svg: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            assert!(!rest[..start].contains('>'), "{}", &rest[..start]);
            let end = rest.find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closes what is open");
            } else {
                assert!(!tag.contains('<') && tag.matches('"').count().is_multiple_of(2), "{tag}");
                if !tag.ends_with('/') {
                    open.push(tag.split(' ').next().expect("has a name"));
                }
            }
            rest = &rest[end + 1..];
        }
        assert_eq!((open.as_slice(), rest.trim()), ([].as_slice(), ""));
        for after in svg.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|name| after.starts_with(name)), "{after:.20}");
        }
        for wrong in ["NaN", "inf", "href", "script", "url("] {
            assert!(!svg.contains(wrong), "{wrong}: {svg}");
        }
    }

    /// All points are within the picture.
    fn assert_inside(svg: &str) {
        for points in svg.split("points=\"").skip(1) {
            for point in points.split('"').next().expect("ends").split(' ') {
                let (x, y) = point.split_once(',').expect("two numbers");
                let (x, y): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
                assert!((PANEL_X.0..=PANEL_X.1).contains(&x) && (0.0..=HEIGHT).contains(&y), "{point}");
            }
        }
    }

    #[test]
    fn a_run_is_three_panels_of_well_formed_svg() {
        let svg = svg(&sample(2.0), &latencies());
        assert_well_formed(&svg);
        assert_inside(&svg);
        for text in
            ["Throughput", "Latency over time", "Latency by percentile", "p99.9", "99.9 %", "prefers-color-scheme"]
        {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.contains("workload a, 64 clients, durability sync"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 1 + 3 + 2);
    }

    #[test]
    fn empty_runs_and_those_of_one_second_are_drawn_too() {
        let mut report = sample(1.0);
        report.time_line.truncate(1);
        report.seconds = 1.0;
        let short = svg(&report, &BTreeMap::from([(Kind::Get, histogram([5].into_iter()))]));
        assert_well_formed(&short);
        assert!(short.matches("<circle").count() >= 4, "single points are dots: {short}");
        report.time_line[0] =
            Second { operations: 0, p50_ms: None, p99_ms: None, p99_9_ms: None, max_ms: None, ..report.time_line[0] };
        (report.operations, report.ops_per_second) = (0, 0.0);
        assert_well_formed(&svg(&report, &BTreeMap::new()));
        report.time_line.clear();
        report.seconds = 0.0;
        assert_well_formed(&svg(&report, &BTreeMap::from([(Kind::Get, histogram([].into_iter()))])));
    }

    #[test]
    fn what_was_asked_for_and_what_failed_is_drawn() {
        let mut report = sample(1.0);
        report.settings.rate = Some(2500.0);
        report.settings.durability = "a < b & \"c\"".to_owned();
        report.time_line[1].errors = 700;
        report.errors.kinds.insert("Overloaded".to_owned(), 700);
        report.open_loop = Some(OpenLoop { due: 7500, late: 900, delay_max_ms: 100.0, not_begun: 800, unfinished: 0 });
        let svg = svg(&report, &latencies());
        assert_well_formed(&svg);
        for text in
            ["asked for", ">failed<", "700 failed", "800 of 7,500 due not begun", "2,500 ops/s by at most 64 clients"]
        {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn long_runs_are_condensed_to_the_worst() {
        let seconds: Vec<Second> = (0..4_000)
            .map(|i| Second {
                start: f64::from(i),
                seconds: 1.0,
                operations: 100,
                errors: 0,
                p50_ms: (i != 5).then_some(1.0),
                p99_ms: Some(if i == 1234 { 50.0 } else { 2.0 }),
                p99_9_ms: None,
                max_ms: None,
            })
            .collect();
        let points = condensed(&seconds);
        assert_eq!((points.len(), points[0].rate, points[0].time), (400, 100.0, 5.0));
        assert_eq!(points[123].percentiles, [Some(1.0), Some(50.0), None]);
    }

    #[test]
    fn the_curve_ends_with_the_longest_request() {
        let curve = curve(&histogram((1..=1000).map(|i| i * 1_000_000)));
        assert_eq!(curve.first().map(|&(nines, ms)| (nines, ms.round())), Some((0.0, 1.0)));
        let (nines, ms) = *curve.last().expect("has an end");
        assert!((nines - 3.0).abs() < 1e-9 && (998.0..=1001.0).contains(&ms), "{nines} {ms}");
        let median = curve.iter().find(|(nines, _)| *nines >= 0.3).expect("is there").1;
        assert!((median - 500.0).abs() < 3.0, "{median}");
    }
}
