//! `repo create`: provider, parameters, name, default; and the secret that nobody sees.

use serde_json::{Value, json};

use crate::api::Api;
use crate::terminal::Terminal;
use crate::world::World;
use crate::{CTRL_C, DOWN, ENTER};

const SECRET: &str = "hush-hush-42";

fn providers() -> World {
    World::default().provider("s3").provider("swift")
}

fn repo_and_secret(api: &Api) -> (Value, Value) {
    (api.only("BackupRepo"), api.written().into_iter().find(|object| object["kind"] == "Secret").unwrap())
}

#[test]
fn everything_is_asked_in_turn_and_the_command_for_next_time_hides_the_secret() {
    let api = providers().start();
    let mut terminal = Terminal::open(&api, &["repo", "create"]);
    terminal.answers("Storage", &format!("{DOWN}{ENTER}"));
    terminal.answers("bucket", &format!("nightly backups{ENTER}"));
    // The default of a choice is where the mark stands at first; as it is the default, it is not written.
    terminal.answers("> south", ENTER);
    terminal.answers("secretAccessKey", &format!("{SECRET}{ENTER}"));
    terminal.answers("Name of the repository [swift]", &format!("main{ENTER}"));
    terminal.answers("Make it the default repository?", "y");
    terminal.until("the same without questions:");
    terminal.until(
        "KBBACKUP_SECRET_ACCESS_KEY=… kubectl kbbackup repo create -n demo --provider swift \
         --param \"bucket=nightly backups\" --param region=south main --default",
    );
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    assert!(terminal.seen().contains("backuprepo/main is ready"), "{}", terminal.seen());
    assert!(!terminal.seen().contains(SECRET), "{}", terminal.seen());
    let (repo, secret) = repo_and_secret(&api);
    assert_eq!(repo["spec"]["config"], json!({"bucket": "nightly backups"}));
    assert_eq!(repo["metadata"]["annotations"]["dataprotection.kubeblocks.io/is-default-repo"], "true");
    assert_eq!(secret["stringData"]["secretAccessKey"], SECRET);
    assert!(!repo.to_string().contains(SECRET));
}

#[test]
fn the_command_for_next_time_does_the_same() {
    let api = providers().start();
    let args = ["repo", "create", "--provider", "swift", "--param", "bucket=b", "--param", "region=south", "main"];
    let mut command = crate::terminal::command(&api, &[&args[..], &["--default"]].concat());
    let ended = command.env("KBBACKUP_SECRET_ACCESS_KEY", SECRET).stdin(std::process::Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(0), "{told}");
    assert!(!told.contains("without questions") && !told.contains(SECRET), "{told}");
    assert_eq!(repo_and_secret(&api).1["stringData"]["secretAccessKey"], SECRET);
}

#[test]
fn what_was_given_is_not_asked_again() {
    let api = providers().repo("other", true).start();
    let given = ["repo", "create", "cloud", "--provider", "s3", "--param", "bucket=b", "--secret-access-key", SECRET];
    let mut terminal = Terminal::open(&api, &given);
    terminal.answers("> south", &format!("{DOWN}{ENTER}"));
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let seen = terminal.seen();
    assert!(!seen.contains("Make it the default") && !seen.contains("Name of"), "{seen}");
    let again = "KBBACKUP_SECRET_ACCESS_KEY=… kubectl kbbackup repo create cloud --provider s3 --param bucket=b -n demo --param region=north";
    assert!(seen.contains(again), "{seen}");
    // It stood on the command line; we don't repeat it.
    assert!(!seen.contains(SECRET), "{seen}");
}

#[test]
fn a_dry_run_does_not_repeat_a_secret_parameter_either() {
    let api = providers().start();
    let typed = format!("secretAccessKey={SECRET}");
    let given = ["repo", "create", "cloud", "--provider", "s3", "--param", "bucket=b", "--param", &typed, "--dry-run"];
    let mut terminal = Terminal::open(&api, &given);
    terminal.answers("> south", ENTER);
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let (_, again) = terminal.seen().split_once("the same without questions:").unwrap();
    assert!(again.contains("KBBACKUP_SECRET_ACCESS_KEY=…") && !again.contains(SECRET), "{again}");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn a_name_that_is_taken_is_asked_for_again() {
    let api = World::default().provider("s3").repo("s3", true).start();
    let mut terminal = Terminal::open(&api, &["repo", "create", "--bucket", "b", "--region", "north"]);
    terminal.answers("Storage", ENTER);
    terminal.answers("secretAccessKey", &format!("{SECRET}{ENTER}"));
    terminal.answers("Name of the repository [s3]", ENTER);
    terminal.until("backuprepo/s3 exists already");
    terminal.answers("Name of the repository", &format!("second{ENTER}"));
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    assert_eq!(api.only("BackupRepo")["metadata"]["name"], "second");
}

#[test]
fn ctrl_c_at_any_question_writes_nothing() {
    let questions =
        ["Storage", "bucket", "> south", "secretAccessKey", "Name of the repository", "Make it the default"];
    for stop in 0..questions.len() {
        let api = providers().start();
        let mut terminal = Terminal::open(&api, &["repo", "create"]);
        for (question, answer) in questions[..stop].iter().zip([ENTER, "b\r", ENTER, "hush-hush-42\r", ENTER]) {
            terminal.answers(question, answer);
        }
        terminal.answers(questions[stop], CTRL_C);
        assert_eq!(terminal.end(), 130, "{}: {}", questions[stop], terminal.seen());
        assert!(!terminal.seen().contains(SECRET), "{}", terminal.seen());
        assert_eq!(api.written(), Vec::<Value>::new());
    }
}
