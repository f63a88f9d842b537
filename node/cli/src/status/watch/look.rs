//! How meanings look. Colours only add to what words say already, and are left out where nobody wants them.

use ratatui::style::{Color, Modifier, Style};

use crate::output::Tone;

/// What the terminal, and who sits before it, may be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    pub(super) has_colours: bool,
}

impl Look {
    pub(super) fn of(self, tone: Tone) -> Style {
        let style = match tone {
            Tone::Good => Style::new(),
            Tone::Warning | Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Bad => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            Tone::Quiet => Style::new().add_modifier(Modifier::DIM),
        };
        if !self.has_colours {
            return style;
        }
        match tone {
            Tone::Good => Style::new().fg(Color::Green),
            Tone::Warning => Style::new().fg(Color::Yellow),
            Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Strong | Tone::Quiet => style,
        }
    }
}
