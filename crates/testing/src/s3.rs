//! Looking into a bucket with nothing of ours: plain HTTP requests by curl, signed by curl itself.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::kubectl::Kubectl;

/// A bucket behind a Service, reached by a port forward.
pub struct Bucket {
    forward: Child,
    url: String,
    user: String,
    name: String,
}

impl Bucket {
    /// Opens the way to `service` (`svc/NAME`) in `namespace`, port 9000 by default.
    ///
    /// # Errors
    /// When the server does not answer within 15 s.
    pub fn open(
        cluster: &Kubectl,
        namespace: &str,
        service: &str,
        port: u16,
        keys: (&str, &str),
        bucket: &str,
    ) -> Result<Self> {
        let local = free_port()?;
        let ports = format!("{local}:{port}");
        let forward = cluster.in_namespace(namespace).spawn(&["port-forward", service, &ports])?;
        let this = Self {
            forward,
            url: format!("http://127.0.0.1:{local}"),
            user: format!("{}:{}", keys.0, keys.1),
            name: bucket.to_owned(),
        };
        for _ in 0..450 {
            if std::net::TcpStream::connect(("127.0.0.1", local)).is_ok() {
                return Ok(this);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!("the port forward to {service} in {namespace} did not come up")
    }

    /// All keys of the bucket.
    ///
    /// # Errors
    /// What curl said.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut after = String::new();
        loop {
            let text = String::from_utf8(self.curl(&format!("?list-type=2&start-after={}", encode(&after)))?)?;
            keys.extend(between(&text, "<Key>", "</Key>").map(decode_xml));
            match keys.last() {
                Some(last) if text.contains("<IsTruncated>true") => after.clone_from(last),
                _ => return Ok(keys),
            }
        }
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// What curl said.
    pub fn read(&self, key: &str) -> Result<Vec<u8>> {
        self.curl(&format!("/{}", encode(key)))
    }

    /// Puts other bytes in the place of an object: what a store should never do.
    ///
    /// # Errors
    /// What curl said.
    pub fn replace(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let file = std::env::temp_dir().join(format!("kbbackup-s3-{}", std::process::id()));
        std::fs::write(&file, bytes).context("cannot write a temporary file")?;
        let body = format!("@{}", file.display());
        let done = self.curl_with(&["-X", "PUT", "--data-binary", &body], &format!("/{}", encode(key)));
        drop(std::fs::remove_file(&file));
        done.map(drop)
    }

    fn curl(&self, rest: &str) -> Result<Vec<u8>> {
        self.curl_with(&[], rest)
    }

    fn curl_with(&self, more: &[&str], rest: &str) -> Result<Vec<u8>> {
        let output = Command::new("curl")
            .args(more)
            .args(["-sS", "--fail-with-body", "--max-time", "300", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3", "-u"])
            .arg(&self.user)
            .arg(format!("{}/{}{rest}", self.url, self.name))
            .stdin(Stdio::null())
            .output()
            .context("cannot run curl")?;
        if !output.status.success() {
            bail!(
                "curl {rest}: {}{}",
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(output.stdout)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        drop(self.forward.kill());
        drop(self.forward.wait());
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |part| part.split(close).next())
}

fn decode_xml(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
