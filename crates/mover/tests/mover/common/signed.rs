//! Requests to an S3 endpoint, signed here and sent as they are: with paths, dates and keys that no library would let pass.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signer<'a> {
    pub(crate) key: &'a str,
    pub(crate) secret: &'a str,
    pub(crate) at: Timestamp,
}

impl Signer<'_> {
    /// The right one, now.
    pub(crate) fn right() -> Self {
        Self { key: "TESTKEYOFOURTESTS", secret: "test-secret", at: Timestamp::now() }
    }

    fn time(&self) -> String {
        self.at.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    fn scope(&self) -> String {
        format!("{}/us-east-1/s3/aws4_request", self.at.strftime("%Y%m%d"))
    }

    fn sign(&self, canonical: &str) -> String {
        let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{}", self.time(), self.scope(), hex(&Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in self.scope().split('/') {
            key = hmac(&key, part.as_bytes());
        }
        hex(&hmac(&key, text.as_bytes()))
    }

    /// Headers that sign a request.
    pub(crate) fn headers(&self, address: &str, method: &str, path: &str, query: &str, body: &[u8]) -> String {
        let (time, digest) = (self.time(), hex(&Sha256::digest(body)));
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{address}\nx-amz-content-sha256:{digest}\nx-amz-date:{time}\n\n{names}\n{digest}"
        );
        format!(
            "x-amz-date: {time}\r\nx-amz-content-sha256: {digest}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential={}/{}, SignedHeaders={names}, Signature={}\r\n",
            self.key,
            self.scope(),
            self.sign(&canonical)
        )
    }

    /// A query that signs a request for so many seconds.
    pub(crate) fn query(&self, address: &str, method: &str, path: &str, seconds: u32) -> String {
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}%2F{}&X-Amz-Date={}&X-Amz-Expires={seconds}\
             &X-Amz-SignedHeaders=host",
            self.key,
            self.scope().replace('/', "%2F"),
            self.time()
        );
        let canonical = format!("{method}\n{path}\n{query}\nhost:{address}\n\nhost\nUNSIGNED-PAYLOAD");
        format!("{query}&X-Amz-Signature={}", self.sign(&canonical))
    }
}

/// An account of Azure Storage, and its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AzureAccount {
    name: &'static str,
    key: &'static str,
}

impl AzureAccount {
    /// The one that every emulator has.
    pub(crate) const EMULATOR: Self = Self {
        name: "devstoreaccount1",
        key: "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    };

    /// Headers of a request that creates a container on an emulator, where the account is a part of the path.
    pub(crate) fn creating_a_container(self, container: &str) -> String {
        let name = self.name;
        let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
        // Verb, eleven headers that are not there, ours, and the resource with its query.
        let text = format!(
            "PUT{}x-ms-date:{date}\nx-ms-version:2021-08-06\n/{name}/{name}/{container}\nrestype:container",
            "\n".repeat(12)
        );
        let signature = STANDARD.encode(hmac(&STANDARD.decode(self.key).unwrap(), text.as_bytes()));
        format!("x-ms-date: {date}\r\nx-ms-version: 2021-08-06\r\nauthorization: SharedKey {name}:{signature}\r\n")
    }
}

/// Sends a request as it is. Returns status and body.
pub(crate) fn send(address: &str, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let size = body.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {size}\r\n");
    // A server that refuses early does not read everything.
    let _ = stream.write_all(format!("{head}{headers}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer:?}")), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// A request whose body stops half way.
pub(crate) struct Late {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Late {
    pub(crate) fn begin(address: &str, target: &str, headers: &str, body: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        let size = body.len();
        write!(stream, "PUT {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {size}\r\n")
            .unwrap();
        write!(stream, "{headers}\r\n").unwrap();
        let (first, rest) = body.split_at(size / 2);
        stream.write_all(first).unwrap();
        Self { stream, rest: rest.to_vec() }
    }

    /// Sends the rest and waits for whatever comes of it.
    pub(crate) fn end(&mut self) {
        let _ = self.stream.write_all(&self.rest).and_then(|()| self.stream.read_to_end(&mut Vec::new()));
    }
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
