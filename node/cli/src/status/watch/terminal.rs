//! The terminal while the view has it, and giving it back: whatever ends the view, a panic among it.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use tokio::sync::Notify;

use crate::exit::{Failure, Result};

/// Gives the terminal back when it is dropped.
pub(super) struct Screen {
    pub(super) terminal: DefaultTerminal,
    pub(super) accident: Arc<Accident>,
}

/// Something has panicked, here or in a task of the client. The terminal is given back before its message is written.
#[derive(Default)]
pub(super) struct Accident {
    has_happened: AtomicBool,
    told: Notify,
}

impl Accident {
    /// Until one happens.
    pub(super) async fn happens(&self) {
        self.told.notified().await;
    }
}

/// Refuses what cannot be drawn on.
pub(super) fn check() -> Result {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage("--watch draws on a terminal, and standard output is none")
            .hint("`driftless status --format json` prints it once, with --watch a line each time"));
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return Err(Failure::usage("--watch draws on a terminal, and this one (TERM=dumb) cannot be drawn on")
            .hint("`driftless status` prints it once, with --format json for programs"));
    }
    Ok(())
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> Result<Screen> {
        let accident = Arc::new(Accident::default());
        let (before, happened) = (std::panic::take_hook(), Arc::clone(&accident));
        std::panic::set_hook(Box::new(move |info| {
            happened.has_happened.store(true, Ordering::SeqCst);
            before(info);
            happened.told.notify_one();
        }));
        // Its own hook gives the terminal back, and then calls the one above.
        match ratatui::try_init() {
            Ok(terminal) => Ok(Screen { terminal, accident }),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(failure(&error))
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Once more would put the cursor back to where it was before the message. That nobody is there any more is no matter.
        if !self.accident.has_happened.load(Ordering::SeqCst) {
            let _ = ratatui::try_restore();
        }
        let _ = execute!(io::stdout(), Show);
    }
}

/// The terminal cannot be drawn on, or read from.
pub(super) fn failure(error: &io::Error) -> Failure {
    Failure::failed(format_args!("cannot use the terminal: {error}"))
        .hint("`driftless status` prints it once, with --format json for programs")
}
