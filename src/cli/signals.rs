//! Signals that end a run: Ctrl-C, and what a cluster or a closing terminal sends.

use super::progress::Printer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Whether a run is asked to stop, and by what.
pub struct Stop {
    /// Set when it is.
    pub asked: Arc<AtomicBool>,
    code: Arc<AtomicU8>,
}

impl Stop {
    /// Returns the exit code of a run that was stopped: 128 and the number of the signal, 130 for Ctrl-C and 143 for
    /// SIGTERM.
    pub fn exit_code(&self) -> u8 {
        self.code.load(Ordering::Relaxed)
    }
}

/// Returns what Ctrl-C, SIGTERM and SIGHUP set; a second one ends the process.
pub fn on_interrupt(printer: Printer) -> Stop {
    let stop = Stop { asked: Arc::new(AtomicBool::new(false)), code: Arc::new(AtomicU8::new(super::STOPPED)) };
    let (asked, code) = (Arc::clone(&stop.asked), Arc::clone(&stop.code));
    listen(move |exit: u8, name: &str| {
        if asked.swap(true, Ordering::Relaxed) {
            printer.clear();
            leave(exit);
        }
        code.store(exit, Ordering::Relaxed);
        printer.line(&format!("{name}: stopping after this step, with a checkpoint (a second one ends at once)"));
    });
    stop
}

/// Ends the process as it is: what would be cleaned up may be in use by a step.
fn leave(code: u8) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(i32::from(code));
    #[cfg(not(unix))]
    std::process::exit(i32::from(code));
}

#[cfg(unix)]
fn listen(act: impl Fn(u8, &str) + Send + 'static) {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let name = match signal {
                SIGINT => "Ctrl-C",
                SIGTERM => "SIGTERM",
                _ => "SIGHUP",
            };
            act(128 + u8::try_from(signal).unwrap_or(0), name);
        }
    });
}

#[cfg(not(unix))]
fn listen(act: impl Fn(u8, &str) + Send + 'static) {
    let _ = ctrlc::set_handler(move || act(super::STOPPED, "Ctrl-C"));
}
