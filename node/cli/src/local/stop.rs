//! Ctrl-C, SIGTERM and a terminal that closes, as a flag: a command that started processes can end them in order, and remove what is
//! temporary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Failure, Result};

/// Set once somebody wants this program to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// From now on the signals no longer end the process; they are to be looked for.
    pub(crate) fn install() -> Result<StopSignal> {
        let failed = |error| Failure::failed(format_args!("cannot listen to signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let flag = StopSignal::default();
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        drop(entered);
        let set = flag.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                });
                set.0.store(true, Ordering::SeqCst);
            })
            .map_err(failed)?;
        Ok(flag)
    }

    /// Whether somebody wants this program to end.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Ends what is under way, if somebody wants that.
    pub(crate) fn check(&self) -> Result {
        if self.is_set() { Err(Failure::failed("interrupted")) } else { Ok(()) }
    }
}
