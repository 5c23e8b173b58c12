//! How far a verification is, for whoever waits for it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use kbbackup_core::contract::{Seal, Stored};

use crate::output;

/// On a terminal the line is drawn again; in a log each is a line more.
const ON_TERMINAL: Duration = Duration::from_millis(200);
const IN_LOG: Duration = Duration::from_secs(30);

pub(super) struct Progress {
    terminal: bool,
    every: Duration,
    told: Instant,
    drawn: bool,
    done: Stored,
    total: Stored,
}

impl Progress {
    pub(super) fn new(seal: &Seal) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let total = Stored { objects: seal.objects, bytes: seal.bytes };
        let every = if terminal { ON_TERMINAL } else { IN_LOG };
        Self { terminal, every, told: Instant::now(), drawn: false, done: Stored::default(), total }
    }

    /// An object of this size is done.
    pub(super) fn add(&mut self, size: u64) {
        self.done.objects += 1;
        self.done.bytes += size;
        if self.told.elapsed() < self.every {
            return;
        }
        self.told = Instant::now();
        let line = line(self.done, self.total);
        if self.terminal {
            self.drawn = true;
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        } else {
            output::note(&format!("NOTICE: {line}"));
        }
    }

    /// Takes the line away, for something that stays.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    pub(super) fn end(&mut self) {
        self.clear();
    }
}

fn line(done: Stored, total: Stored) -> String {
    let percent = done.bytes.min(total.bytes) as f64 / total.bytes.max(1) as f64 * 100.0;
    format!(
        "{} of {} objects, {:.1} of {:.1} MiB ({percent:.0} %)",
        done.objects,
        total.objects,
        mebibytes(done.bytes),
        mebibytes(total.bytes)
    )
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_of_what() {
        let line = line(Stored { objects: 1, bytes: 3 << 20 }, Stored { objects: 2, bytes: 4 << 20 });
        assert_eq!(line, "1 of 2 objects, 3.0 of 4.0 MiB (75 %)");
    }
}
