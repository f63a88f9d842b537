//! The configuration as a file would say it, for `driftless serve --print-config`.

use toml::Value;

use super::super::knobs::{KNOBS, Knob};
use super::NodeConfig;

impl NodeConfig {
    /// The effective configuration as a file would say it, each line with where its value came from.
    pub fn print(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        let width = KNOBS.iter().map(|knob| self.line(knob).len()).max().unwrap_or(0).min(60);
        for knob in KNOBS {
            let (knob_section, _) = knob.key.rsplit_once('.').unwrap_or(("", knob.key));
            if knob_section != section {
                section = knob_section;
                text += &format!("\n[{section}]\n");
            }
            let (_, source) = self.setting(knob);
            text += &format!("{:width$}  # {source}: {}\n", self.line(knob), knob.about);
        }
        text
    }

    fn line(&self, knob: &Knob) -> String {
        let name = knob.key.rsplit_once('.').map_or(knob.key, |(_, name)| name);
        let (value, _) = self.setting(knob);
        if value.is_empty() && knob.default().is_empty() {
            return format!("# {name} =");
        }
        match value.parse::<i64>() {
            // "007" is a text, and 7 another one.
            Ok(number) if number.to_string() == value => format!("{name} = {number}"),
            _ => format!("{name} = {}", Value::String(value.to_owned())),
        }
    }
}
