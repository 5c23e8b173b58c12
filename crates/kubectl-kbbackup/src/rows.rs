//! Backups as rows of a table that the API server makes: neither it nor we touch whole objects, which are mostly manifests
//! and notes, and a list of thousands costs a fraction. The columns are those of our definition of Backup; where it is
//! another's, they are missing, and the objects have to be read.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kbbackup_api::{
    names::labels,
    v1alpha1::{Backup, BackupPhase, BackupType},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Request},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    app::{self, App, PAGE},
    error::{CliError, Doing, Result},
    follow,
};

/// What is asked for; servers that make no tables may answer with objects.
const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Backups of which a row does not say enough, read at once.
const AT_ONCE: usize = 16;

/// The columns that are read, and what of a Backup they hold.
const COLUMNS: [(&str, &[&str]); 18] = [
    ("NAME", &["metadata", "name"]),
    ("IN-NAMESPACE", &["metadata", "namespace"]),
    ("CREATION-TIME", &["metadata", "creationTimestamp"]),
    ("DELETION-TIME", &["metadata", "deletionTimestamp"]),
    ("TYPE", &["metadata", "labels", labels::BACKUP_TYPE]),
    ("WORKLOAD", &["metadata", "labels", labels::WORKLOAD_NAME]),
    ("INSTANCE", &["metadata", "labels", labels::INSTANCE]),
    ("POLICY", &["spec", "backupPolicyName"]),
    ("METHOD", &["spec", "backupMethod"]),
    ("DELETION-POLICY", &["spec", "deletionPolicy"]),
    ("REPO", &["status", "backupRepoName"]),
    ("STATUS", &["status", "phase"]),
    ("TOTAL-SIZE", &["status", "totalSize"]),
    ("DURATION", &["status", "duration"]),
    ("PARENT", &["status", "parentBackupName"]),
    ("START-TIME", &["status", "startTimestamp"]),
    ("COMPLETION-TIME", &["status", "completionTimestamp"]),
    ("EXPIRATION-TIME", &["status", "expiration"]),
];

/// A page of a table, as the API has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<Value>,
}

impl Page {
    /// Where each of [`COLUMNS`] is; nothing if one is missing.
    fn places(&self) -> Option<Vec<usize>> {
        let place = |wanted: &str| self.column_definitions.iter().position(|it| it.name.eq_ignore_ascii_case(wanted));
        (self.kind == "Table").then(|| COLUMNS.iter().map(|(name, _)| place(name)).collect())?
    }

    /// The same. Behind a page that had them, objects instead would hand over twice what was handed over already.
    fn trusted(&self, begun: bool) -> Result<Option<Vec<usize>>> {
        match self.places() {
            None if begun => Err(CliError::refused(
                "backups cannot be listed",
                "the definition of Backup was changed meanwhile; try again",
            )),
            places => Ok(places),
        }
    }
}

/// Hands backups over page by page, with what a line of a list shows of them, and maybe more. Those of which a row does not
/// say enough come last, as whole objects; where the server's tables lack columns, all of them are whole.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn each_page(
    app: &App,
    everywhere: bool,
    wide: bool,
    params: ListParams,
    mut visit: impl FnMut(Vec<Backup>),
) -> Result<()> {
    if by_columns(app, everywhere, wide, params.clone(), &mut visit).await? {
        return Ok(());
    }
    app::each_page(&app.scoped::<Backup>(everywhere), params, "backups", visit).await
}

/// Returns `false`, with nothing handed over, where there are no such columns.
async fn by_columns(
    app: &App,
    everywhere: bool,
    wide: bool,
    params: ListParams,
    visit: &mut impl FnMut(Vec<Backup>),
) -> Result<bool> {
    let what = || "backups cannot be listed".to_owned();
    let path = Backup::url_path(&(), (!everywhere).then_some(app.namespace.as_str()));
    let (mut params, mut unclear, mut begun) = (params.limit(PAGE), Vec::new(), false);
    loop {
        let page: Page = app.client.request(request(&path, &params)?).await.doing(what)?;
        let Some(places) = page.trusted(begun)? else { return Ok(false) };
        begun = true;
        let mut clear = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            let object = object(&places, row);
            let (namespace, name) = (object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str());
            let key = namespace.zip(name).map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
            match (serde_json::from_value(object), key) {
                (Ok(backup), _) if says_enough(&backup, wide) => clear.push(backup),
                (_, Some(key)) => unclear.push(key),
                (_, None) => return Err(CliError::refused(what(), "the API server's table has rows without names")),
            }
        }
        visit(clear);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    // By the right to list, which is all that was needed so far.
    let whole = |(namespace, name): (String, String)| async move {
        let api: Api<Backup> = app.within(&namespace);
        let list = api.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await;
        Ok::<_, CliError>(list.doing(what)?.items)
    };
    let mut whole = futures::stream::iter(unclear).map(whole).buffer_unordered(AT_ONCE);
    while let Some(found) = whole.try_next().await? {
        visit(found);
    }
    Ok(true)
}

fn request(path: &str, params: &ListParams) -> Result<http::Request<Vec<u8>>> {
    let wrong = |error: &dyn std::fmt::Display| CliError::usage("backups cannot be listed", error.to_string());
    let mut request = Request::new(path).list(params).map_err(|error| wrong(&error))?;
    let address = format!("{}&includeObject=None", request.uri());
    *request.uri_mut() = address.parse().map_err(|error| wrong(&error))?;
    request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(ACCEPT));
    Ok(request)
}

/// What a row says of its Backup, in the place where the object has it.
fn object(places: &[usize], mut row: Row) -> Value {
    let mut object = json!({ "apiVersion": Backup::api_version(&()), "kind": Backup::kind(&()) });
    for ((_, path), place) in COLUMNS.iter().zip(places) {
        let cell = row.cells.get_mut(*place).map(Value::take).unwrap_or_default();
        if !cell.is_null() {
            *path.iter().fold(&mut object, |at, key| &mut at[key]) = cell;
        }
    }
    object
}

/// Whether nothing that a list shows depends on what no column holds: the pods of continuous backups, how far one is; in wide
/// lists why one failed, and what one was told to build on.
fn says_enough(backup: &Backup, wide: bool) -> bool {
    let kind = backup.labels().get(labels::BACKUP_TYPE).and_then(|word| word.parse().ok());
    let builds = matches!(kind, Some(BackupType::Incremental | BackupType::Differential));
    let parent = backup.status.as_ref().is_some_and(|status| status.parent_backup_name.is_some());
    let ended = match follow::backup_phase(backup) {
        Some(BackupPhase::Completed) => !wide || !builds || parent,
        Some(BackupPhase::Failed) => !wide,
        _ => false,
    };
    ended && backup.metadata.deletion_timestamp.is_none() && kind != Some(BackupType::Continuous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::CustomResourceExt;

    /// As the definition writes a path.
    fn json_path(path: &[&str]) -> String {
        let dotted = |key: &&str| key.contains('.');
        let step = |key: &&str| {
            if dotted(key) { format!("['{}']", key.replace('.', "\\.")) } else { format!(".{key}") }
        };
        path.iter().map(step).collect()
    }

    #[test]
    fn the_definition_has_the_columns_and_means_the_same() {
        let definition = Backup::crd();
        let columns = definition.spec.versions[0].additional_printer_columns.clone().unwrap();
        for (name, path) in COLUMNS.iter().filter(|(name, _)| *name != "NAME") {
            let column = columns.iter().find(|column| column.name == *name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!((column.json_path.as_str(), column.type_.as_str()), (json_path(path).as_str(), "string"));
        }
    }

    fn page(columns: &[&str]) -> Page {
        let columns: Vec<Value> = columns.iter().map(|name| json!({ "name": name, "type": "string" })).collect();
        serde_json::from_value(json!({ "kind": "Table", "metadata": {}, "columnDefinitions": columns, "rows": [] }))
            .unwrap()
    }

    #[test]
    fn columns_are_found_by_name_and_another_s_definition_lacks_some() {
        let mut names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        names.insert(0, "SOMETHING-NEW");
        assert_eq!(page(&names).places(), Some((1..=COLUMNS.len()).collect()));
        names.retain(|name| *name != "IN-NAMESPACE");
        assert_eq!(page(&names).places(), None);
        let objects: Page =
            serde_json::from_value(json!({ "kind": "BackupList", "metadata": {}, "items": [] })).unwrap();
        assert_eq!(objects.places(), None);
        // At the beginning there is another way; in the middle there is none.
        assert_eq!(objects.trusted(false).unwrap(), None);
        assert!(objects.trusted(true).is_err());
    }

    #[test]
    fn it_is_asked_for_without_objects() {
        let params = ListParams::default().labels("a=b").limit(7).continue_token("x");
        let asked = request("/apis/g/v1/backups", &params).unwrap();
        let query = asked.uri().query().unwrap();
        for part in ["labelSelector=a%3Db", "limit=7", "continue=x", "includeObject=None"] {
            assert!(query.split('&').any(|one| one == part), "{query}");
        }
        assert!(asked.headers()["accept"].to_str().unwrap().starts_with("application/json;as=Table"));
        assert!(request("/apis/g/v1/backups", &ListParams::default()).unwrap().uri().query().is_some());
    }

    fn backup(phase: &str, kind: &str) -> Value {
        json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "one", "namespace": "demo", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {labels::BACKUP_TYPE: kind, labels::INSTANCE: "pg", "other": "x"}, "annotations": {"a": "b"}},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Retain"},
            "status": {"phase": phase, "totalSize": "4404019", "backupRepoName": "embedded", "path": "/p",
                "startTimestamp": "2026-01-02T03:04:05Z", "completionTimestamp": "2026-01-02T03:06:13Z",
                "expiration": "2026-01-09T03:06:13Z", "duration": "2m8s", "parentBackupName": "zero"}
        })
    }

    /// The row that a server makes of an object.
    fn row(backup: &Value) -> Row {
        let cell = |(_, path): &(&str, &[&str])| path.iter().fold(backup, |at, key| &at[key]).clone();
        Row { cells: COLUMNS.iter().map(cell).collect() }
    }

    fn of_row(backup: &Value) -> Backup {
        let places: Vec<usize> = (0..COLUMNS.len()).collect();
        serde_json::from_value(object(&places, row(backup))).unwrap()
    }

    #[test]
    fn a_row_becomes_what_it_was_made_of() {
        let mut whole = backup("Completed", "Full");
        let sparse = of_row(&whole);
        for place in ["/metadata/annotations", "/metadata/labels/other", "/status/path"] {
            let (parent, key) = place.rsplit_once('/').unwrap();
            whole.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
        }
        assert_eq!(sparse, serde_json::from_value(whole).unwrap());
    }

    #[test]
    fn a_row_says_enough_of_what_has_ended_alone() {
        let says = |phase, kind, change: fn(&mut Value)| {
            let mut whole = backup(phase, kind);
            change(&mut whole);
            [false, true].map(|wide| says_enough(&of_row(&whole), wide))
        };
        let parentless: fn(&mut Value) = |whole| whole["status"]["parentBackupName"] = Value::Null;
        let same: fn(&mut Value) = |_| ();
        assert_eq!(says("Completed", "Full", parentless), [true, true]);
        assert_eq!(says("Completed", "Incremental", same), [true, true]);
        // The spec may name it.
        assert_eq!(says("Completed", "Incremental", parentless), [true, false]);
        assert_eq!(says("Failed", "Full", same), [true, false]);
        assert_eq!(says("Running", "Full", same), [false, false]);
        assert_eq!(says("Completed", "Continuous", same), [false, false]);
        assert_eq!(says("Completed", "Full", |whole| whole["status"] = Value::Null), [false, false]);
        let deleted: fn(&mut Value) = |whole| whole["metadata"]["deletionTimestamp"] = "2026-01-03T03:04:05Z".into();
        assert_eq!(says("Completed", "Full", deleted), [false, false]);
    }
}
