//! What the runs need: programs, data, a folder, an S3 server.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::Args;
use crate::artifacts::{self, Profile, TARGET};
use crate::bench::run::measure;
use crate::cluster::{go, sh};
use crate::ui;

/// Which server speaks S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Server {
    Versitygw,
    /// The mover's own
    Serve,
}

const ACCESS_KEY: &str = "bench-key";
const SECRET_KEY: &str = "bench-secret";
/// Made for this; opens nothing else.
const AGE_KEY: &str = "AGE-SECRET-KEY-1NYG7DY45834FWSYCKQD0L36SED4ZFQAKSN6HTCVEXU6FM207X92QWLYLUT";

pub(super) struct Site {
    dir: TempDir,
    mover: PathBuf,
    rclone: PathBuf,
    restic: PathBuf,
    versitygw: PathBuf,
    server: Server,
    process: Child,
    url: String,
}

impl Site {
    pub(super) fn prepare(root: &Path, args: &Args) -> Result<Self> {
        let (size, server) = (args.size << 20, args.server);
        let mover = ui::long_step("build the mover", || artifacts::one(root, Profile::Release, TARGET, "datasafed"))?;
        let (rclone, restic, versitygw) = (go::BENCH_RCLONE.path()?, go::RESTIC.path()?, go::VERSITYGW.path()?);
        let dir = tempfile::tempdir_in(&args.on)?;
        for name in ["data", "local", "s3"] {
            std::fs::create_dir(dir.path().join(name))?;
        }
        ui::step("write the data", || {
            write_random(&dir.path().join("data/random"), size)?;
            write_text(&dir.path().join("data/text"), size)
        })?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (s3, address) = (dir.path().join("s3"), format!("127.0.0.1:{port}"));
        let mut command = match server {
            Server::Versitygw => {
                let mut command = Command::new(&versitygw);
                // As the stores of the world do; without it each request would have a connection of its own.
                command
                    .args(["--port", &address, "--region", "us-east-1", "--quiet", "--keep-alive", "posix"])
                    .arg(&s3);
                command.env("ROOT_ACCESS_KEY_ID", ACCESS_KEY).env("ROOT_SECRET_ACCESS_KEY", SECRET_KEY);
                command
            }
            Server::Serve => {
                let mut command = Command::new(&mover);
                command.args(["serve", "--bucket", "bench", "--listen", &address, "--root"]).arg(&s3);
                command.env("KBBACKUP_SERVE_ACCESS_KEY_ID", ACCESS_KEY);
                command.env("KBBACKUP_SERVE_SECRET_ACCESS_KEY", SECRET_KEY);
                command
            }
        };
        let log = File::create(dir.path().join("server.log"))?;
        command.current_dir(&dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().context("cannot start the S3 server")?;
        let url = format!("http://{address}");
        let conf = format!(
            "[storage]\ntype = s3\nprovider = Other\nendpoint = {url}\nroot = bench\nregion = us-east-1\n\
             access_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
        );
        std::fs::write(dir.path().join("mover.conf"), conf)?;
        let site = Self { dir, mover, rclone, restic, versitygw, server, process, url };
        for _ in 0..100 {
            if TcpStream::connect(&address).is_ok() {
                if server == Server::Versitygw {
                    measure(&mut site.shell("exec $CURL -X PUT $S3")).context("make the bucket")?;
                }
                return Ok(site);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the S3 server does not answer: {}", sh::tail(&site.dir.path().join("server.log")))
    }

    /// A line of shell with everything in its environment.
    pub(super) fn shell(&self, line: &str) -> Command {
        let dir = self.dir.path();
        // Servers ask for the header; older curls do not send it. Words of a variable cannot be quoted, so it has no blank.
        let curl = format!(
            "curl -sS --fail --aws-sigv4 aws:amz:us-east-1:s3 --user {ACCESS_KEY}:{SECRET_KEY} \
             -H x-amz-content-sha256:UNSIGNED-PAYLOAD"
        );
        let mut command = Command::new("sh");
        command.args(["-c", line]).env_clear();
        for (name, path) in [
            ("DATA", "data"),
            ("COPY", "copy"),
            ("LOCAL", "local"),
            ("S3ROOT", "s3"),
            ("CONF", "mover.conf"),
            ("HOME", ""),
        ] {
            command.env(name, dir.join(path));
        }
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("MOVER", &self.mover).env("RCLONE", &self.rclone).env("RESTIC", &self.restic).env("CURL", curl);
        command.env("KEY", AGE_KEY).env("S3", format!("{}/bench", self.url)).env("URL", &self.url);
        command.env("RESTIC_PASSWORD", "bench").env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        command.env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env("RCLONE_CONFIG", "/dev/null");
        for (name, value) in [
            ("TYPE", "s3"),
            ("PROVIDER", "Other"),
            ("ENDPOINT", &self.url),
            ("ACCESS_KEY_ID", ACCESS_KEY),
            ("SECRET_ACCESS_KEY", SECRET_KEY),
            ("NO_CHECK_BUCKET", "true"),
        ] {
            command.env(format!("RCLONE_CONFIG_S3_{name}"), value);
        }
        command
    }

    /// Type of the file system that holds everything.
    fn file_system(&self) -> String {
        let asked = Command::new("stat").args(["-f", "-c", "%T"]).arg(self.dir.path()).output();
        asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// What was measured, on what.
    pub(super) fn versions(&self) -> Vec<String> {
        let first = |program: &Path, arg: &str| {
            let output = Command::new(program).arg(arg).stdin(Stdio::null()).output().ok();
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            let words = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("?").split_whitespace();
            words.take(6).collect::<Vec<_>>().join(" ")
        };
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let server = match self.server {
            Server::Versitygw => format!("versitygw {}", first(&self.versitygw, "--version")),
            Server::Serve => "the mover's own serve".to_owned(),
        };
        vec![
            first(&self.mover, "version"),
            first(&self.rclone, "version"),
            first(&self.restic, "version"),
            first(Path::new("zstd"), "--version"),
            first(Path::new("cat"), "--version"),
            first(Path::new("curl"), "--version"),
            format!("S3 server: {server}"),
            format!("file system: {}", self.file_system()),
            format!(
                "{cores} cores {}, Linux {}",
                cpu.trim_start_matches([':', ' ', '\t']),
                read("/proc/sys/kernel/osrelease").trim()
            ),
        ]
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn write_random(path: &Path, size: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..size / 8 {
        file.write_all(&xorshift(&mut state).to_le_bytes())?;
    }
    Ok(file.flush()?)
}

/// Lines of text with random numbers in them, as tables look.
fn write_text(path: &Path, size: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut state, mut written) = (0x9e37_79b9_7f4a_7c15, 0);
    while written < size {
        let number = xorshift(&mut state);
        let mut line = format!("{written:012}|{number:016x}|customer number {}\n", number % 1000);
        line.truncate((size - written) as usize);
        file.write_all(line.as_bytes())?;
        written += line.len() as u64;
    }
    Ok(file.flush()?)
}
