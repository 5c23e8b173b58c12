//! Multipart uploads that nobody will finish: their parts cost money and show in no listing. OpenDAL cannot ask for them, so
//! this speaks to the store itself.

use hyper::{Method, Request, StatusCode};
use opendal::{Buffer, HttpTransporter};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::de::from_reader;
use reqsign_aws_v4::Credential;
use reqsign_core::Signer;
use serde::Deserialize;

use super::transport::{Patience, Transport};
use crate::error::{Error, Result};
use crate::output;

/// What a signature leaves as it is in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same in a path.
const PATH: &AsciiSet = &QUERY.remove(b'/');
/// How often a request is sent before its failure counts.
const TRIES: u32 = 4;

/// Finds and aborts the unfinished uploads of one bucket.
pub(super) struct Leftovers {
    http: HttpTransporter,
    /// None for a store without credentials.
    signer: Option<Signer<Credential>>,
    /// Address of the bucket, without a slash behind it.
    bucket: String,
    /// What stands before every key, with a slash behind it unless empty.
    prefix: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    upload: Vec<Unfinished>,
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Unfinished {
    key: String,
    upload_id: String,
}

impl Leftovers {
    pub(super) fn new(
        client: reqwest::Client,
        signer: Option<Signer<Credential>>,
        bucket: String,
        prefix: &str,
    ) -> Self {
        let http = HttpTransporter::new(Transport::new(client, Patience::QUICK));
        let signer = signer.map(|signer| {
            let context = reqsign_core::Context::new()
                .with_file_read(reqsign_file_read_tokio::TokioFileRead)
                .with_env(reqsign_core::OsEnv)
                .with_http_send(http.clone());
            signer.with_context(context)
        });
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { http, signer, bucket, prefix }
    }

    /// Aborts every upload below a directory. Only called when nobody writes there any more.
    ///
    /// # Errors
    /// When the store cannot be reached or fails. A store that has no such question, or does not allow it, is told of in
    /// the log: its owner may have a rule that removes old uploads.
    pub(super) async fn abort_below(&self, dir: &str) -> Result<()> {
        let prefix = if dir.is_empty() { self.prefix.clone() } else { format!("{}{dir}/", self.prefix) };
        let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let mut markers = String::new();
        loop {
            let url = format!("{}?uploads=&prefix={}{markers}", self.bucket, encode(&prefix));
            let (status, body) = self.send(Method::GET, &url).await?;
            if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED {
                output::note(&format!("NOTICE: unfinished uploads below /{dir} cannot be listed: status {status}"));
                return Ok(());
            }
            if !status.is_success() {
                return Err(Error::other(format!("ListMultipartUploads: the server answered with status {status}")));
            }
            let page: Listed = from_reader(&body[..]).map_err(|error| {
                Error::other(format!("ListMultipartUploads: the server's answer cannot be read: {error}"))
            })?;
            // Some servers take the prefix for a hint.
            for upload in page.upload.iter().filter(|upload| upload.key.starts_with(&prefix)) {
                let key = utf8_percent_encode(&upload.key, PATH);
                let url = format!("{}/{key}?uploadId={}", self.bucket, encode(&upload.upload_id));
                let (status, _) = self.send(Method::DELETE, &url).await?;
                if !status.is_success() && status != StatusCode::NOT_FOUND {
                    let key = &upload.key;
                    return Err(Error::other(format!("AbortMultipartUpload of {key}: the server answered {status}")));
                }
            }
            if !page.is_truncated || page.next_key_marker.is_empty() {
                return Ok(());
            }
            markers = format!(
                "&key-marker={}&upload-id-marker={}",
                encode(&page.next_key_marker),
                encode(&page.next_upload_id_marker)
            );
        }
    }

    /// Sends a signed request, again when the server is in trouble.
    async fn send(&self, method: Method, url: &str) -> Result<(StatusCode, Vec<u8>)> {
        let mut tried = 0;
        loop {
            tried += 1;
            let outcome = self.send_once(method.clone(), url).await;
            match outcome {
                Ok((status, _))
                    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED && tried < TRIES => {}
                Err(error) if error.is_temporary() && tried < TRIES => {}
                Err(error) => return Err(super::remote::failure(&error)),
                Ok(answer) => return Ok(answer),
            }
            tokio::time::sleep(std::time::Duration::from_millis(200 << tried)).await;
        }
    }

    async fn send_once(&self, method: Method, url: &str) -> opendal::Result<(StatusCode, Vec<u8>)> {
        let wrong = |text: String| opendal::Error::new(opendal::ErrorKind::Unexpected, text);
        let request = Request::builder().method(method).uri(url).body(Buffer::new());
        let (mut parts, body) = request.map_err(|error| wrong(error.to_string()))?.into_parts();
        if let Some(signer) = &self.signer {
            parts.headers.insert("x-amz-content-sha256", hyper::header::HeaderValue::from_static("UNSIGNED-PAYLOAD"));
            signer
                .sign(&mut parts, None)
                .await
                .map_err(|error| wrong(format!("the request is not signed: {error}")))?;
        }
        let response = self.http.fetch(Request::from_parts(parts, body)).await?;
        let (parts, mut body) = response.into_parts();
        Ok((parts.status, body.to_buffer().await?.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_uploads_are_read() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Bucket>b</Bucket><KeyMarker/><Prefix>p</Prefix>\
                    <Upload><Key>a&amp;b</Key><UploadId>1</UploadId><Initiator><ID>x</ID></Initiator></Upload>\
                    <Upload><Key>c</Key><UploadId>2</UploadId></Upload>\
                    <IsTruncated>true</IsTruncated><NextKeyMarker>c</NextKeyMarker>\
                    <NextUploadIdMarker>2</NextUploadIdMarker></ListMultipartUploadsResult>";
        let page: Listed = from_reader(text.as_bytes()).unwrap();
        assert!(page.is_truncated && page.next_key_marker == "c" && page.next_upload_id_marker == "2");
        let uploads: Vec<_> = page.upload.iter().map(|one| (one.key.as_str(), one.upload_id.as_str())).collect();
        assert_eq!(uploads, [("a&b", "1"), ("c", "2")]);
        let empty: Listed = from_reader(&b"<ListMultipartUploadsResult/>"[..]).unwrap();
        assert!(empty.upload.is_empty() && !empty.is_truncated);
    }
}
