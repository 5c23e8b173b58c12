//! A program on a pseudo-terminal: what it shows, what is typed, how it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// A program with all its three streams on a terminal; it is ended when this is dropped.
pub struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    /// How much of it was waited for already.
    read: usize,
    limit: Duration,
    begun: Instant,
    first: Option<Duration>,
}

impl Terminal {
    /// Starts a program; nothing is waited for longer than `limit`.
    ///
    /// # Errors
    /// When there is no pseudo-terminal, or no such program.
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = ptsname(&ours, Vec::new())?.into_string()?;
        let open = || File::options().read(true).write(true).open(&name);
        let begun = Instant::now();
        let child =
            command.stdin(open()?).stdout(open()?).stderr(open()?).spawn().context("the program cannot start")?;
        let keys = File::from(ours);
        let mut reader = keys.try_clone()?;
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when the last program has left the terminal.
            while let Ok(read) = reader.read(&mut bytes) {
                if read == 0 || sender.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, keys, screen, seen: String::new(), read: 0, limit, begun, first: None })
    }

    /// Waits until a text has appeared behind the last one.
    ///
    /// # Errors
    /// When it does not appear: with everything that did.
    pub fn until(&mut self, text: &str) -> Result<()> {
        self.until_one(&[text]).map(drop)
    }

    /// Waits until one of several texts has appeared behind the last one; gives its place in the list.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub fn until_one(&mut self, texts: &[&str]) -> Result<usize> {
        let begun = Instant::now();
        loop {
            let places =
                texts.iter().enumerate().filter_map(|(which, text)| Some((self.seen[self.read..].find(text)?, which)));
            if let Some((place, which)) = places.min() {
                self.read += place + texts[which].len();
                // The question stands there before its answer is waited for.
                std::thread::sleep(Duration::from_millis(200));
                return Ok(which);
            }
            ensure!(begun.elapsed() < self.limit, "{texts:?} did not appear in: {}", self.seen);
            self.look();
        }
    }

    /// Takes what has come.
    fn look(&mut self) {
        match self.screen.recv_timeout(Duration::from_millis(50)) {
            Ok(bytes) => {
                self.first.get_or_insert(self.begun.elapsed());
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(50)),
        }
    }

    /// Types keys.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn types(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// Sends the program what a terminal sends for Ctrl-C while nobody reads its keys.
    ///
    /// # Errors
    /// When it has ended.
    pub fn interrupts(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::INT)?)
    }

    /// How long it took until something was shown.
    pub fn first_shown(&self) -> Option<Duration> {
        self.first
    }

    /// Everything that was shown so far.
    pub fn seen(&self) -> &str {
        &self.seen
    }

    /// Waits for the end; its exit code. The terminal must be as it was: its cursor and what is typed can be seen.
    ///
    /// # Errors
    /// When it does not end, or leaves the terminal behind in disorder.
    pub fn end(&mut self) -> Result<i32> {
        let begun = Instant::now();
        loop {
            self.look();
            if let Some(status) = self.child.try_wait()? {
                // The last words may still be on their way.
                while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(100)) {
                    self.seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                let (hidden, shown) = (self.seen.rfind("\x1b[?25l"), self.seen.rfind("\x1b[?25h"));
                ensure!(hidden <= shown, "the cursor stays hidden: {}", self.seen);
                let echoes = tcgetattr(&self.keys)?.local_modes.contains(LocalModes::ECHO);
                ensure!(echoes, "the keys stay hidden: {}", self.seen);
                return Ok(status.code().unwrap_or(-1));
            }
            ensure!(begun.elapsed() < self.limit, "no end: {}", self.seen);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
