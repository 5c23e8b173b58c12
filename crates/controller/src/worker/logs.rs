//! The last words of a failed pod.

use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};

use super::outcome::FailedPod;

/// How a text that comes from a pod's log begins, in the words of the contract.
pub const PREFIX: &str = "Log Collector Output: ";
/// Lines that are kept.
const LINES: i64 = 10;
/// Bytes that are kept of them.
const BYTES: usize = 512;

/// The last lines of a container's log, cut and prefixed as the contract says; `None` when there is nothing to read.
pub async fn last_words(client: &Client, namespace: &str, pod: &str, container: &str) -> Option<String> {
    let params = LogParams { container: Some(container.to_owned()), tail_lines: Some(LINES), ..LogParams::default() };
    match Api::<Pod>::namespaced(client.clone(), namespace).logs(pod, &params).await {
        Ok(text) => cut(&text),
        Err(error) => {
            // The pod may be gone, or its node: a failure without its log is still a failure.
            tracing::debug!(%error, namespace, pod, container, "no log");
            None
        }
    }
}

/// What a failed pod said last, and beneath it what the pod could not know about its end; `None` when it said nothing.
pub async fn of_failed(client: &Client, namespace: &str, pod: &FailedPod) -> Option<String> {
    let words = last_words(client, namespace, &pod.name, &pod.container).await?;
    Some(match &pod.cause {
        Some(cause) => format!("{words}\n{cause}"),
        None => words,
    })
}

/// The last line of a container's log; `None` when there is nothing to read.
pub async fn last_line(client: &Client, namespace: &str, pod: &str, container: &str) -> Option<String> {
    let params = LogParams { container: Some(container.to_owned()), tail_lines: Some(1), ..LogParams::default() };
    let text = Api::<Pod>::namespaced(client.clone(), namespace).logs(pod, &params).await;
    text.inspect_err(|error| tracing::debug!(%error, namespace, pod, container, "no log")).ok()
}

fn cut(text: &str) -> Option<String> {
    let lines: Vec<_> = text.lines().rev().take(LINES as usize).collect();
    let kept = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    let kept = &kept[kept.ceil_char_boundary(kept.len().saturating_sub(BYTES))..];
    let trimmed = kept.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    (!trimmed.is_empty()).then(|| format!("{PREFIX}{trimmed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_8_5_ten_lines_and_512_bytes() {
        let many = (0..20).map(|line| format!("  line {line}  ")).collect::<Vec<_>>().join("\n");
        let kept = cut(&many).unwrap();
        assert!(kept.starts_with("Log Collector Output: line 10\nline 11\n"), "{kept}");
        assert!(kept.ends_with("line 19"));
        let long = cut(&"é".repeat(1000)).unwrap();
        assert_eq!(long.len(), PREFIX.len() + BYTES);
        assert_eq!(cut("\n \n"), None);
    }
}
