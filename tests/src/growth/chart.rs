//! Charts of the cells of one axis, as SVG.

use std::fmt::Write as _;

use super::{Axis, Cell};

/// Throughput along an axis: one line for each operation. Both scales are logarithmic, so that twice is the same step everywhere.
pub fn chart(axis: Axis, cells: &[Cell]) -> String {
    let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.axis == axis).collect();
    let mut ops: Vec<&str> = cells.iter().map(|cell| cell.op).collect();
    ops.sort_unstable();
    ops.dedup();
    let x = Scale::of(cells.iter().map(|cell| cell.at as f64), LEFT, WIDTH - RIGHT);
    let y = Scale::of(cells.iter().map(|cell| cell.per_second), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">operations per second by {}</text>\n",
        axis.title()
    );
    for at in places(&cells) {
        let px = x.at(at as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{px:.1}\" y1=\"{TOP}\" x2=\"{px:.1}\" y2=\"{0}\" stroke=\"#ddd\"/>\
             <text x=\"{px:.1}\" y=\"{1}\" text-anchor=\"middle\">{2}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0,
            axis.shown(at)
        );
    }
    for power in 0..8 {
        for step in [1.0, 2.0, 5.0] {
            let value = step * 10_f64.powi(power);
            if y.holds(value) {
                let py = y.at(value);
                let _ = writeln!(
                    svg,
                    "<line x1=\"{LEFT}\" y1=\"{py:.1}\" x2=\"{0}\" y2=\"{py:.1}\" stroke=\"#ddd\"/>\
                     <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{value}</text>",
                    WIDTH - RIGHT,
                    LEFT - 6.0,
                    py + 4.0
                );
            }
        }
    }
    for (op, color) in ops.into_iter().zip(["#0b6", "#05a", "#a40"]) {
        let of = cells.iter().filter(|cell| cell.op == op);
        let points: Vec<(f64, f64)> = of.map(|cell| (x.at(cell.at as f64), y.at(cell.per_second))).collect();
        let line: Vec<String> = points.iter().map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (px, py) in &points {
            let _ = writeln!(svg, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"{color}\"/>");
        }
        if let Some((px, py)) = points.last() {
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{op}</text>", px + 8.0, py + 4.0);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn places(cells: &[&Cell]) -> Vec<u64> {
    let mut places: Vec<u64> = cells.iter().map(|cell| cell.at).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// From values to places on the paper, by their logarithms.
struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        let (least, most) =
            values.fold((f64::MAX, 1.0_f64), |(least, most), value| (least.min(value.max(1.0)), most.max(value)));
        // Some air, and never nothing between the two.
        Scale { least: (least * 0.8).ln(), most: (most * 1.25).ln(), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * (value.max(1.0).ln() - self.least) / (self.most - self.least)
    }

    fn holds(&self, value: f64) -> bool {
        (self.least..=self.most).contains(&value.ln())
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 64.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 36.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_line_for_each_operation_and_a_place_for_each_cell() {
        let cell = |at, op, per_second| Cell {
            axis: Axis::Clients,
            at,
            op,
            per_second,
            p50_ms: 1.0,
            p99_ms: 2.0,
            p99_9_ms: 3.0,
            server_cpu_us: None,
            resident_mib: 1,
            errors: 0,
        };
        let cells = [cell(1, "put", 100.0), cell(1, "get", 0.0), cell(64, "put", 9_000.0), cell(64, "get", 30_000.0)];
        let svg = chart(Axis::Clients, &cells);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains(">64</text>") && svg.contains(">put</text>") && !svg.contains("NaN"), "{svg}");
    }
}
