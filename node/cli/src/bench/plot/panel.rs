//! A picture with two axes: its frame, lines and legend.

use std::fmt::Write as _;

use super::axis::{self, Axis};

/// One of the pictures, below `top`.
pub(super) struct Panel {
    pub(super) top: f64,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Panel {
    pub(super) fn frame(&self, title: &str, unit: &str, label: fn(f64) -> String) -> String {
        self.frame_with(title, unit, label, axis::short)
    }

    /// Title, grid and labels.
    pub(super) fn frame_with(
        &self,
        title: &str,
        unit: &str,
        label: fn(f64) -> String,
        label_x: fn(f64) -> String,
    ) -> String {
        let (right, bottom) = (LEFT + PANEL_WIDTH, self.top + PANEL_HEIGHT);
        let mut svg =
            format!("<text class=\"heading\" x=\"{LEFT}\" y=\"{}\">{}</text>\n", self.top - 12.0, escaped(title));
        for &tick in &self.y.ticks {
            let y = self.y.at(tick);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT},{y:.1}H{right}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"label\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escaped(&label(tick))
            );
        }
        for &tick in &self.x.ticks {
            let x = self.x.at(tick);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x:.1},{}V{bottom}\"/>", self.top);
            let _ = writeln!(
                svg,
                "<text class=\"label\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                bottom + 18.0,
                escaped(&label_x(tick))
            );
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT},{}V{bottom}H{right}\"/>", self.top);
        let _ = writeln!(
            svg,
            "<text class=\"label\" text-anchor=\"end\" x=\"{right}\" y=\"{}\">{}</text>",
            bottom + 34.0,
            escaped(unit)
        );
        svg
    }

    /// A line through the points that there are; it breaks where there is none. A point alone is a dot.
    pub(super) fn line(&self, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
        let mut svg = String::new();
        let mut run: Vec<(f64, f64)> = Vec::new();
        for point in points.chain([None]) {
            match point {
                Some((x, y)) => run.push((self.x.at(x), self.y.at(y))),
                None => {
                    match run.as_slice() {
                        [] => {}
                        [(x, y)] => {
                            let _ =
                                writeln!(svg, "<circle class=\"{class} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
                        }
                        points => {
                            let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                            let _ = writeln!(svg, "<polyline class=\"{class} line\" points=\"{}\"/>", points.join(" "));
                        }
                    }
                    run.clear();
                }
            }
        }
        svg
    }

    /// At the upper right, beside the title.
    pub(super) fn legend(&self, names: &[(&str, &str)]) -> String {
        let mut svg = String::new();
        let mut x = LEFT + PANEL_WIDTH;
        let y = self.top - 12.0;
        for (class, name) in names.iter().rev() {
            let _ = writeln!(
                svg,
                "<text class=\"label\" text-anchor=\"end\" x=\"{x:.1}\" y=\"{y}\">{}</text>",
                escaped(name)
            );
            // Letters are no wider than that, and a line and some room are beside them.
            x -= name.chars().count() as f64 * 7.0 + 26.0;
            let _ = writeln!(svg, "<path class=\"{class} line\" d=\"M{x:.1},{:.1}h20\"/>", y - 4.0);
            x -= 14.0;
        }
        svg
    }
}

pub(super) fn panel_y(top: f64) -> (f64, f64) {
    (top + PANEL_HEIGHT, top)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Left of it there is room for labels.
pub(super) const LEFT: f64 = 80.0;
pub(super) const PANEL_WIDTH: f64 = 830.0;
pub(super) const PANEL_HEIGHT: f64 = 220.0;
pub(super) const PANEL_X: (f64, f64) = (LEFT, LEFT + PANEL_WIDTH);
