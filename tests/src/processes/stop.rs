//! How a long run is asked to end.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Set by Ctrl-C and SIGTERM, and when whoever started this program inside its namespace is gone.
pub(crate) fn stop_signals(runtime: &Runtime) -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    runtime.spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.store(true, Ordering::SeqCst);
    });
    if std::process::id() == 1 {
        let told = Arc::clone(&ended);
        std::thread::spawn(move || {
            while std::io::stdin().read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
            told.store(true, Ordering::SeqCst);
        });
    }
    ended
}
