//! Reads a JSON list of objects from standard input, turns each into the reference's type and back, and writes the list
//! to standard output. An object that the reference cannot read ends the program with an error.

use std::{
    error::Error,
    io::{self, Read},
};

use kcr_dataprotection_kubeblocks_io::v1alpha1::{
    actionsets::ActionSet, backuppolicies::BackupPolicy, backuppolicytemplates::BackupPolicyTemplate,
    backuprepos::BackupRepo, backups::Backup, backupschedules::BackupSchedule, restores::Restore,
    storageproviders::StorageProvider,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let objects: Vec<Value> = serde_json::from_str(&text)?;
    let objects: Vec<Value> = objects.into_iter().map(again).collect::<Result<_, _>>()?;
    serde_json::to_writer(io::stdout().lock(), &objects)?;
    Ok(())
}

fn again(object: Value) -> Result<Value, Box<dyn Error>> {
    match object["kind"].as_str().unwrap_or_default() {
        "ActionSet" => through::<ActionSet>(object),
        "Backup" => through::<Backup>(object),
        "BackupPolicy" => through::<BackupPolicy>(object),
        "BackupPolicyTemplate" => through::<BackupPolicyTemplate>(object),
        "BackupRepo" => through::<BackupRepo>(object),
        "BackupSchedule" => through::<BackupSchedule>(object),
        "Restore" => through::<Restore>(object),
        "StorageProvider" => through::<StorageProvider>(object),
        kind => Err(format!("the reference has no kind {kind}").into()),
    }
}

fn through<T: Serialize + DeserializeOwned>(object: Value) -> Result<Value, Box<dyn Error>> {
    let name = format!("{}/{}", object["kind"], object["metadata"]["name"]);
    let typed: T = serde_json::from_value(object).map_err(|error| format!("{name}: {error}"))?;
    Ok(serde_json::to_value(typed)?)
}
