//! The parts of the view, each a function from what is known to rows.
//!
//! To add one: a file beside `nodes.rs` with a function like its `content`, and a place in [`Panel::ALL`]; the compiler asks for the rest.
//! Turning to it, scrolling it, and how much of it is shown beside the others are the same for all. What it is to be fed with is asked
//! for in `asking`, and kept in `machine`.

mod events;
mod keys;
mod nodes;
mod requests;
mod tasks;
mod troubles;
mod values;

pub(super) use events::time_of_day;

use super::content::{Content, Space};
use super::machine::Watch;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Panel {
    Nodes,
    Troubles,
    Requests,
    Tasks,
    Values,
    Keys,
    Events,
}

impl Panel {
    /// In the order in which they are drawn and turned to.
    pub(super) const ALL: [Panel; 7] =
        [Panel::Nodes, Panel::Troubles, Panel::Requests, Panel::Tasks, Panel::Values, Panel::Keys, Panel::Events];

    /// Which of them it is.
    pub(super) fn place(self) -> usize {
        Panel::ALL.iter().position(|panel| *panel == self).unwrap_or(0)
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Panel::Nodes => "Nodes",
            Panel::Troubles => "To do",
            Panel::Requests => "Requests",
            Panel::Tasks => "Under way",
            Panel::Values => "Values",
            Panel::Keys => "Keys",
            Panel::Events => "Events",
        }
    }

    /// What stands in it.
    pub(super) fn content(self, watch: &Watch, space: Space) -> Content {
        match self {
            Panel::Nodes => nodes::content(watch, space),
            Panel::Troubles => troubles::content(watch, space),
            Panel::Requests => requests::content(watch, space),
            Panel::Tasks => tasks::content(watch, space),
            Panel::Values => values::content(watch, space),
            Panel::Keys => keys::content(watch, space),
            Panel::Events => events::content(watch, space),
        }
    }

    /// Whether it is left out while there is nothing in it and nobody turns to it.
    pub(super) fn is_idle(self, watch: &Watch) -> bool {
        match self {
            Panel::Troubles => watch.troubles().is_empty(),
            Panel::Events => watch.news.events().next().is_none(),
            // Nobody is asked for it unless somebody looks.
            Panel::Keys => true,
            Panel::Nodes | Panel::Requests | Panel::Tasks | Panel::Values => false,
        }
    }
}
