//! `kbbackup-controller exec`: what the Job of an exec action runs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::OptionFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachParams;
use kube::{Api, Client};

/// Runs a command in a container of a running pod. Its output goes to ours, its exit code becomes ours.
#[derive(Args, Debug)]
pub struct Exec {
    /// Namespace of the pod.
    #[arg(short, long)]
    namespace: String,
    /// Name of the pod.
    pod: String,
    /// Container of the pod [default: its first].
    #[arg(short, long)]
    container: Option<String>,
    /// Give up after so many seconds; 0 waits for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Exit code when the command did not end in time, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// Exit code when the command's own is not known.
const UNKNOWN: u8 = 255;

impl Exec {
    /// Runs the command.
    ///
    /// # Errors
    /// When the API server refuses, or the connection ends before the command does.
    pub async fn run(self, client: Client) -> anyhow::Result<ExitCode> {
        let task = self.attach(client);
        if self.timeout == 0 {
            return task.await;
        }
        if let Ok(result) = tokio::time::timeout(Duration::from_secs(self.timeout), task).await {
            return result;
        }
        tracing::error!("the command did not end within {} s", self.timeout);
        Ok(TIMED_OUT.into())
    }

    async fn attach(&self, client: Client) -> anyhow::Result<ExitCode> {
        let Self { namespace, pod, container, command, .. } = self;
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let mut how = AttachParams::default().stdin(false).stdout(true).stderr(true);
        how.container.clone_from(container);
        let mut process = pods
            .exec(pod, command, &how)
            .await
            .with_context(|| format!("pod {namespace}/{pod} did not take the command"))?;
        let status = process.take_status();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        // Both streams are emptied while the command runs, or it would stall on a full one.
        let out =
            OptionFuture::from(stdout.map(async |mut from| tokio::io::copy(&mut from, &mut tokio::io::stdout()).await));
        let err =
            OptionFuture::from(stderr.map(async |mut from| tokio::io::copy(&mut from, &mut tokio::io::stderr()).await));
        let (out, err) = futures::join!(out, err);
        out.transpose().context("the command's output could not be passed on")?;
        err.transpose().context("the command's error output could not be passed on")?;
        let ended = OptionFuture::from(status).await.flatten();
        process.join().await.context("the connection to the container was lost")?;
        match ended {
            Some(status) => exit_code(&status),
            None => bail!("the connection to the container was lost before the command ended"),
        }
    }
}

/// The exit code that the API server reports at the end of an exec.
fn exit_code(status: &Status) -> anyhow::Result<ExitCode> {
    if status.status.as_deref() == Some("Success") {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    if let Some(code) = code.and_then(|cause| cause.message.as_deref()?.parse::<i32>().ok()) {
        return Ok(u8::try_from(code).unwrap_or(UNKNOWN).into());
    }
    bail!("the command could not be run: {}", status.message.as_deref().unwrap_or("no reason given"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(status: serde_json::Value) -> Option<String> {
        exit_code(&serde_json::from_value(status).unwrap()).ok().map(|code| format!("{code:?}"))
    }

    #[test]
    fn the_command_s_exit_code_is_ours() {
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
        assert_eq!(ended(failed), Some(format!("{:?}", ExitCode::from(3))));
        assert_eq!(ended(json!({"status": "Success"})), Some(format!("{:?}", ExitCode::SUCCESS)));
    }

    #[test]
    fn a_command_that_was_not_found_is_an_error() {
        assert_eq!(ended(json!({"status": "Failure", "message": "executable file not found"})), None);
    }
}
