//! Running `kubectl` against the test cluster.

use std::ffi::{OsStr, OsString};
use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// `kubectl` with its cluster and with our plugin on the `PATH`.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    path: OsString,
    namespace: Option<String>,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    /// For the cluster of `kubeconfig`; `bin` holds `kubectl-kbbackup` and, where the system has none, `kubectl`: one folder,
    /// or several joined as in `PATH`.
    pub fn new(kubeconfig: Option<&Path>, context: Option<&str>, bin: &OsStr) -> Self {
        let mut path = OsString::from(bin);
        if let Some(old) = std::env::var_os("PATH") {
            path.push(":");
            path.push(old);
        }
        Self { kubeconfig: kubeconfig.map(Path::to_owned), context: context.map(str::to_owned), path, namespace: None }
    }

    /// From `KBBACKUP_E2E_KUBECONFIG` or `KBBACKUP_E2E_CONTEXT`, and `KBBACKUP_E2E_BIN`, as `cargo xtask test` sets them.
    ///
    /// # Errors
    /// When they are not set.
    pub fn from_env() -> Result<Self> {
        let bin = std::env::var_os("KBBACKUP_E2E_BIN")
            .context("KBBACKUP_E2E_BIN is not set; run the end-to-end tests by `cargo xtask test e2e`")?;
        let kubeconfig = std::env::var_os("KBBACKUP_E2E_KUBECONFIG").map(PathBuf::from);
        let context = std::env::var("KBBACKUP_E2E_CONTEXT").ok();
        Ok(Self::new(kubeconfig.as_deref(), context.as_deref(), &bin))
    }

    /// The same, with `-n namespace` on every call.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// A command ready to run. A plugin takes no flag before its name, so connection flags follow the first word.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("PATH", &self.path).env("CI", "true");
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let (verb, rest) = args.split_at(args.len().min(1));
        command.args(verb);
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        if let Some(namespace) = &self.namespace {
            command.args(["-n", namespace]);
        }
        command.args(rest);
        command
    }

    /// A line of shell that finds the cluster, kubectl and the plugin.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.env("PATH", &self.path);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command.args(["-c", line]);
        command
    }

    /// Runs to the end, whatever the exit code.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn try_run(&self, args: &[&str]) -> Result<Done> {
        run(&mut self.command(args))
    }

    /// Runs to the end and gives standard output; fails on a non-zero exit.
    ///
    /// # Errors
    /// The command line, its exit code and what it said on standard error.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let done = self.try_run(args)?;
        if done.code != 0 {
            bail!("kubectl {} ended with {}\n{}{}", args.join(" "), done.code, done.stdout, done.stderr);
        }
        Ok(done.stdout)
    }

    /// Runs with `input` on standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run kubectl")?;
        let mut stdin = child.stdin.take().context("no pipe to kubectl")?;
        let text = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let done = finish(child.wait_with_output()?)?;
        // A command that fails early closes the pipe; its own message matters more than ours.
        drop(writer.join());
        if done.code != 0 {
            bail!("kubectl {} ended with {}\n{}{}", args.join(" "), done.code, done.stdout, done.stderr);
        }
        Ok(done.stdout)
    }

    /// Starts in the background, output discarded.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Result<Child> {
        self.command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run kubectl")
    }

    /// `kubectl get … -o json`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get"];
        all.extend(args);
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.run(&all)?).context("kubectl printed no JSON")
    }

    /// Creates or updates objects from YAML or JSON text.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.run_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifest).map(drop)
    }

    /// Waits until `reached` says so about the object, which need not exist yet.
    ///
    /// # Errors
    /// After `limit`, with the object's status as it was last seen.
    pub fn wait_for(&self, kind: &str, name: &str, limit: Duration, reached: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + limit;
        let mut last = Value::Null;
        loop {
            let mut watch = Watch::start(self, kind, name)?;
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                match watch.states.recv_timeout(left.min(Duration::from_secs(1))) {
                    Ok(state) => last = state,
                    // `reached` may look at more than the object.
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if last != Value::Null && reached(&last) {
                    return Ok(last);
                }
            }
            let said = watch.end();
            if Instant::now() >= end {
                bail!("{kind}/{name} did not get there within {limit:?}; its status: {}\n{said}", last["status"]);
            }
            sleep(Duration::from_millis(500));
        }
    }

    /// Waits until the object does not exist any more.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_gone(&self, kind: &str, name: &str, limit: Duration) -> Result<()> {
        let (object, limit) = (format!("{kind}/{name}"), format!("--timeout={}s", limit.as_secs()));
        self.run(&["wait", "--for=delete", &object, &limit]).map(drop)
    }
}

/// One process that tells every state of an object, rather than one for each look: they are what a cluster of two cores has no
/// time for.
struct Watch {
    child: Child,
    states: Receiver<Value>,
}

impl Watch {
    fn start(kubectl: &Kubectl, kind: &str, name: &str) -> Result<Self> {
        let named = format!("--field-selector=metadata.name={name}");
        let mut child = kubectl
            .command(&["get", kind, &named, "--watch", "-o", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run kubectl")?;
        let stdout = child.stdout.take().context("no pipe from kubectl")?;
        let (told, states) = channel();
        // Ends with the process, or when nobody listens any more.
        std::thread::spawn(move || {
            let all = serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter::<Value>();
            all.map_while(Result::ok).try_for_each(|state| told.send(state))
        });
        Ok(Self { child, states })
    }

    /// Ends it, and gives what it said on standard error.
    fn end(&mut self) -> String {
        drop(self.child.kill());
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            drop(stderr.read_to_string(&mut said));
        }
        drop(self.child.wait());
        said
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a command without input to its end, whatever the exit code.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> Result<Done> {
    let output = command.stdin(Stdio::null()).output();
    finish(output.with_context(|| format!("cannot run {}", command.get_program().display()))?)
}

fn finish(output: Output) -> Result<Done> {
    Ok(Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).context("output is not UTF-8")?,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
