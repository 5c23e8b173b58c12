//! The log: a line of JSON per event, and on every line of a reconcile the kind, namespace and name of its object (`kind`, `namespace`, `object`).

use std::borrow::Cow;

use kube::{Resource, ResourceExt as _};
use tracing::{Span, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For programs: JSON.
    Json,
    /// For people.
    Plain,
}

/// What writes the log to `writer`; `filter` is a level, or filters per module.
///
/// # Errors
/// When the filter cannot be read.
pub fn subscriber<W>(
    format: Format,
    filter: &str,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, tracing_subscriber::filter::ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)?;
    Ok(match format {
        Format::Json => {
            let layer = json_subscriber::fmt::layer()
                .with_writer(writer)
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                // Spans may be nested: the object stands in one of them.
                .flatten_span_list_on_top_level(true);
            Box::new(tracing_subscriber::registry().with(layer).with(filter))
        }
        Format::Plain => Box::new(tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).finish()),
    })
}

/// The span of a reconcile. Events inside of it need not name the object themselves. The field is `object`, for `name` is
/// the span's own.
pub fn span<K: Resource<DynamicType = ()>>(object: &K) -> Span {
    let kind: Cow<'static, str> = K::kind(&());
    if let Some(namespace) = object.namespace() {
        tracing::error_span!("reconcile", %kind, namespace, object = object.name_any())
    } else {
        tracing::error_span!("reconcile", %kind, object = object.name_any())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use kbbackup_api::v1alpha1::{Backup, BackupRepo};
    use serde_json::{Value, json};
    use tracing::Instrument as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` logs.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(Format::Json, "info", move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_line_of_a_reconcile_names_its_object() {
        let backup: Backup = serde_json::from_value(json!({ "metadata": {"name": "b", "namespace": "demo"},
            "spec": {"backupPolicyName": "p", "backupMethod": "m"} }))
        .unwrap();
        let lines = logged(|| {
            let deep = async {
                tracing::info!(path = "/demo/b", "first");
                tokio::task::yield_now().await;
                tracing::warn!("second");
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(deep.instrument(span(&backup)));
            tracing::info!("outside");
        });
        assert_eq!(lines.len(), 3);
        for line in &lines[..2] {
            assert_eq!(
                (&line["kind"], &line["namespace"], &line["object"]),
                (&json!("Backup"), &json!("demo"), &json!("b"))
            );
        }
        assert_eq!((&lines[0]["message"], &lines[0]["path"]), (&json!("first"), &json!("/demo/b")));
        assert_eq!(lines[2]["object"], Value::Null);
    }

    #[test]
    fn an_object_without_a_namespace_has_none_in_the_log() {
        let repo: BackupRepo = serde_json::from_value(json!({ "metadata": {"name": "r"},
            "spec": {"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"} }))
        .unwrap();
        let lines = logged(|| span(&repo).in_scope(|| tracing::info!("here")));
        assert_eq!((&lines[0]["kind"], &lines[0]["object"]), (&json!("BackupRepo"), &json!("r")));
        assert!(lines[0].get("namespace").is_none(), "{}", lines[0]);
    }

    #[test]
    fn a_filter_that_cannot_be_read_stops_the_start() {
        assert!(subscriber(Format::Plain, "info,,=x=y", std::io::stderr).is_err());
    }
}
