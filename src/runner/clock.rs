//! What seconds are counted by.

use std::time::Instant;

/// A clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// Time as it passes.
    #[default]
    Wall,
    /// Processor time of the calling thread, for steps that run on one thread: what other processes take is not in it.
    /// Elsewhere than on Unix time as it passes.
    Thread,
}

/// A moment of a clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    Wall(Instant),
    #[cfg(unix)]
    Thread(f64),
}

impl Clock {
    /// Returns the moment that is now.
    pub(super) fn now(self) -> Moment {
        match self {
            #[cfg(unix)]
            Clock::Thread => Moment::Thread(thread_seconds()),
            _ => Moment::Wall(Instant::now()),
        }
    }
}

impl Moment {
    /// Returns the seconds since then.
    pub(super) fn elapsed(&self) -> f64 {
        match self {
            Moment::Wall(instant) => instant.elapsed().as_secs_f64(),
            #[cfg(unix)]
            Moment::Thread(seconds) => thread_seconds() - seconds,
        }
    }
}

#[cfg(unix)]
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write to.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if failed != 0 { 0.0 } else { time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_does_not_pass_while_the_thread_sleeps() {
        let (wall, thread) = (Clock::Wall.now(), Clock::Thread.now());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(wall.elapsed() >= 0.05);
        if cfg!(unix) {
            assert!(thread.elapsed() < 0.05);
        }
    }
}
