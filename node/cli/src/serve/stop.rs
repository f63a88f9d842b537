//! What asks a node to stop.

use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::exit::{Failure, Result};

/// Everything that asks a node to stop.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    parent: oneshot::Receiver<()>,
    /// Held so that the receiver waits for ever where no parent is watched.
    _no_parent: Option<oneshot::Sender<()>>,
}

impl StopSignals {
    pub(crate) fn listen(with_parent: bool) -> Result<StopSignals> {
        let failed = |error| Failure::failed(format_args!("cannot listen to signals: {error}"));
        let (gone, parent) = oneshot::channel();
        let no_parent = if with_parent {
            // Blocks in read for as long as the parent lives, and ends with the process.
            std::thread::Builder::new()
                .name("parent".to_owned())
                .spawn(move || {
                    let mut input = std::io::stdin().lock();
                    while input.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
                    let _ = gone.send(());
                })
                .map_err(failed)?;
            None
        } else {
            Some(gone)
        };
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            parent,
            _no_parent: no_parent,
        })
    }

    pub(crate) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = &mut self.parent => "the process that started this one is gone",
        }
    }

    /// Signals only: the parent can go but once.
    pub(crate) async fn wait_again(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
