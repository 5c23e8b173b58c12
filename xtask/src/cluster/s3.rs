//! S3 servers in the cluster, for tests against stores that are not ours.

use anyhow::Result;

use super::{Cluster, image, paths, sh};
use crate::ui;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Server {
    Versitygw,
    Rclone,
    /// rclone once more, for a test that makes a repository go away
    Vanishing,
}

/// Where a server is reached by pods; its keys are in the Secret `s3-credentials` beside it.
pub(crate) struct Endpoint {
    pub url: String,
    pub bucket: &'static str,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Versitygw => "versitygw",
            Self::Rclone => "rclone",
            Self::Vanishing => "vanishing",
        }
    }

    fn image(self) -> &'static str {
        match self {
            Self::Versitygw => "versitygw:1.8.0",
            Self::Rclone | Self::Vanishing => "rclone:1.76.0",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Versitygw => 7070,
            Self::Rclone | Self::Vanishing => 7071,
        }
    }
}

/// Runs the server, or finds it running, and waits until it is ready.
pub(crate) fn up(cluster: &Cluster, server: Server) -> Result<Endpoint> {
    let name = server.name();
    cluster.load(&image::known(server.image())?)?;
    let dir = paths::sources()?.join("s3");
    ui::step(&format!("S3 server {name}"), || {
        for file in ["namespace.yaml".to_owned(), format!("{name}.yaml")] {
            sh::output(cluster.kubectl().args(["apply", "--server-side", "--filename"]).arg(dir.join(file)))?;
        }
        let mut wait = cluster.kubectl();
        wait.args(["--namespace=kbbackup-s3", "rollout", "status", "--timeout=120s"]).arg(format!("deployment/{name}"));
        sh::output(&mut wait)
    })?;
    Ok(Endpoint { url: format!("http://{name}.kbbackup-s3.svc.cluster.local:{}", server.port()), bucket: "backups" })
}
