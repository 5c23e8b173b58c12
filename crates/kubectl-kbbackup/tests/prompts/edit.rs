//! `policy edit`: an editor that is a script, on a terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::api::Api;
use crate::terminal::{LIMIT, command};
use crate::world::World;

const PATH: &str = "/apis/dataprotection.kubeblocks.io/v1alpha1/namespaces/demo/backuppolicies/pg";

/// The editor, and what it has seen.
struct Desk(PathBuf);

impl Drop for Desk {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Desk {
    /// An editor that does `turns[n]` with the file `$1` when it is opened for the nth time.
    fn new(name: &str, turns: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("kbbackup-desk-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("kept")).unwrap();
        let mut script = format!(
            "#!/bin/sh\nset -e\ncd {}\necho x >> turns\nturn=$(wc -l < turns)\ncp \"$1\" \"seen-$turn\"\n",
            dir.display()
        );
        for (turn, act) in turns.iter().enumerate() {
            script += &format!("if [ $turn -eq {} ]; then\n{act}\nexit\nfi\n", turn + 1);
        }
        script += "echo 'nobody asked for this turn' >&2\nexit 9\n";
        fs::write(dir.join("editor"), script).unwrap();
        fs::set_permissions(dir.join("editor"), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    /// Runs `policy edit pg`; gives exit code and what was shown.
    fn edit(&self, api: &Api) -> (i32, String) {
        let mut command = command(api, &["policy", "edit", "pg"]);
        // With an argument, as editors with windows need one.
        command.env("EDITOR", "false").env("KUBE_EDITOR", format!("sh {}", self.0.join("editor").display()));
        command.env("PATH", "/usr/bin:/bin").env("TMPDIR", self.0.join("kept"));
        let mut terminal = kbbackup_testing::terminal::Terminal::start(&mut command, LIMIT).unwrap();
        let code = terminal.end().unwrap();
        (code, terminal.seen().replace("\r\n", "\n"))
    }

    /// The file as it was opened for the nth time.
    fn seen(&self, turn: usize) -> String {
        fs::read_to_string(self.0.join(format!("seen-{turn}"))).unwrap()
    }

    fn turns(&self) -> usize {
        fs::read_to_string(self.0.join("turns")).unwrap().lines().count()
    }

    /// What was left of the person's work.
    fn kept(&self) -> Vec<(PathBuf, String)> {
        let files = fs::read_dir(self.0.join("kept")).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
    }

    /// The one copy, which was named on the screen.
    #[track_caller]
    fn only_kept(&self, shown: &str) -> String {
        let mut kept = self.kept();
        assert_eq!(kept.len(), 1, "{shown}");
        let (path, text) = kept.remove(0);
        assert!(shown.contains(&format!("kept in {}", path.display())), "{shown}");
        assert_eq!(mode(&path), 0o600, "what is in it is nobody else's business");
        text
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn cluster() -> Api {
    let api = World::default().policy("pg", &[("full", "full-set")]).start();
    let mut policy = api.object(PATH);
    policy["metadata"]["resourceVersion"] = json!("7");
    policy["metadata"]["managedFields"] = json!([{"manager": "someone"}]);
    policy["status"] = json!({"phase": "Available"});
    policy["spec"]["backoffLimit"] = json!(2);
    api.put(PATH.to_owned(), policy);
    api
}

const CHANGE: &str = "sed -i 's/backoffLimit: .*/backoffLimit: 3/' \"$1\"";
const TOO_MUCH: &str = "sed -i 's/backoffLimit: .*/backoffLimit: 30/' \"$1\"";

#[test]
fn a_change_is_saved_and_nothing_is_left_behind() {
    let (api, desk) = (cluster(), Desk::new("change", &[CHANGE]));
    let (code, shown) = desk.edit(&api);
    assert_eq!((code, shown.as_str()), (0, "backuppolicy.dataprotection.kubeblocks.io/pg changed\n"));
    let written = api.only("BackupPolicy");
    assert_eq!((&written["spec"]["backoffLimit"], &written["metadata"]["resourceVersion"]), (&json!(3), &json!("7")));
    let opened = desk.seen(1);
    assert!(opened.starts_with("# Please edit the object below."), "{opened}");
    assert!(!opened.contains("managedFields") && !opened.contains("status:"), "{opened}");
    assert!(desk.kept().is_empty());
}

#[test]
fn an_untouched_or_an_empty_file_changes_nothing() {
    for (name, act, told) in
        [("same", "touch \"$1\"", "was not changed\n"), ("empty", ": > \"$1\"", "the saved file is empty\n")]
    {
        let (api, desk) = (cluster(), Desk::new(name, &[act]));
        let (code, shown) = desk.edit(&api);
        assert_eq!(code, 0, "{shown}");
        assert!(shown.starts_with("backuppolicy/pg was not changed") && shown.ends_with(told), "{shown}");
        assert_eq!(api.written(), Vec::<Value>::new());
        assert!(desk.kept().is_empty());
    }
}

#[test]
fn what_cannot_be_read_or_is_refused_is_opened_again_with_the_reason() {
    let broken = "sed -i 's/^spec:/spec: {/' \"$1\"";
    let mended = "sed -i 's/^spec: {/spec:/; s/backoffLimit: .*/backoffLimit: 3/' \"$1\"";
    for (name, act, reason, mend) in [
        ("yaml", broken, "the edited policy cannot be used", mended),
        (
            "kind",
            "sed -i 's/name: pg$/name: other/' \"$1\"",
            "metadata.name may not be changed",
            "sed -i 's/name: other$/name: pg/; s/backoffLimit: .*/backoffLimit: 3/' \"$1\"",
        ),
        ("server", TOO_MUCH, "spec.backoffLimit: Invalid value", CHANGE),
    ] {
        let (api, desk) = (cluster(), Desk::new(name, &[act, mend]));
        let (code, shown) = desk.edit(&api);
        assert_eq!((code, desk.turns()), (0, 2), "{name}: {shown}");
        let again = desk.seen(2);
        let comments: String = again.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(comments.contains(reason), "{name}: {again}");
        assert!(again.contains(if name == "yaml" { "spec: {" } else { "spec:" }), "the text is lost: {again}");
        assert_eq!(api.only("BackupPolicy")["spec"]["backoffLimit"], 3);
        assert!(desk.kept().is_empty());
    }
}

#[test]
fn who_gives_up_keeps_the_text() {
    for (name, act, exit, reason) in [
        ("give-up-server", TOO_MUCH, 1, "spec.backoffLimit: Invalid value"),
        ("give-up-yaml", "echo '  - [' >> \"$1\"", 2, "the edited policy cannot be used"),
    ] {
        let (api, desk) = (cluster(), Desk::new(name, &[act, "true"]));
        let (code, shown) = desk.edit(&api);
        assert_eq!(code, exit, "{shown}");
        assert!(shown.contains("error: ") && shown.contains(reason), "{shown}");
        let kept = desk.only_kept(&shown);
        assert!(kept.contains("backoffLimit: 30") || kept.contains("  - ["), "{kept}");
        assert_eq!(api.written(), Vec::<Value>::new());
    }
}

#[test]
fn somebody_else_s_change_is_not_overwritten_and_the_text_is_kept() {
    let (api, desk) = (
        cluster(),
        Desk::new("conflict", &[&format!("touch opened; while [ ! -e go ]; do sleep 0.05; done\n{CHANGE}")]),
    );
    let (code, shown) = std::thread::scope(|scope| {
        let edit = scope.spawn(|| desk.edit(&api));
        while !desk.0.join("opened").exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let mut theirs = api.object(PATH);
        theirs["metadata"]["resourceVersion"] = json!("8");
        api.put(PATH.to_owned(), theirs);
        fs::write(desk.0.join("go"), "").unwrap();
        edit.join().unwrap()
    });
    assert_eq!((code, desk.turns()), (1, 1), "{shown}");
    assert!(shown.contains("somebody else has changed it since it was opened"), "{shown}");
    assert!(shown.contains("hint: kubectl kbbackup policy edit pg -n demo"), "{shown}");
    assert!(desk.only_kept(&shown).contains("backoffLimit: 3"), "{shown}");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn an_editor_that_fails_is_named_and_its_work_kept() {
    let (api, desk) = (cluster(), Desk::new("fails", &[&format!("{CHANGE}\nexit 3")]));
    let (code, shown) = desk.edit(&api);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("the editor \"sh\" ended badly"), "{shown}");
    assert!(desk.only_kept(&shown).contains("backoffLimit: 3"), "{shown}");

    let desk = Desk::new("fails-at-once", &["exit 3"]);
    let (code, shown) = desk.edit(&api);
    assert_eq!((code, desk.kept()), (1, vec![]), "{shown}");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn ctrl_c_belongs_to_the_editor_while_it_is_open() {
    // An editor that minds no Ctrl-C, as most.
    let act = format!("trap '' INT\nkill -INT $PPID\nsleep 1\n{CHANGE}");
    let (api, desk) = (cluster(), Desk::new("interrupt", &[&act]));
    let (code, shown) = desk.edit(&api);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(api.only("BackupPolicy")["spec"]["backoffLimit"], 3);
}
