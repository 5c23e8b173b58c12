//! `examples.txt`, followed: every command that the help and the documents show runs, and ends as it should.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, ended, phase, s3_port};
use kbbackup_testing::examples::{self, BACKUP, Run, Step};
use kbbackup_testing::kubectl::{self, Done, Kubectl};
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use serde_json::{Value, json};

use crate::begin;
use crate::moments::end as reaches;

const PLAN: &str = include_str!("../../examples.txt");
const DOCUMENTS: [&str; 2] =
    [include_str!("../../../../README.md"), include_str!("../../../../crates/kubectl-kbbackup/REFERENCE.md")];
const CONTINUOUS: &str = "dataprotection.kubeblocks.io/backup-type=Continuous";
/// Rows that are there at the moment, and are gone after the mistake.
const ROWS: &str = "1000";

/// Somebody who has read the documents: their files, their kubeconfig, and what they have seen so far.
struct Reader {
    kubectl: Kubectl,
    space: TempNamespace,
    drill: TempNamespace,
    home: PathBuf,
    /// What stands in braces.
    names: Vec<(&'static str, String)>,
    moment: Timestamp,
    last: Done,
}

impl Reader {
    fn new(cluster: &Kubectl, space: TempNamespace, drill: TempNamespace) -> Result<Self> {
        let home = std::env::temp_dir().join(format!("kbbackup-{}", space.name));
        std::fs::create_dir_all(home.join(".local/bin"))?;
        // Their context has their namespace, as `kubectl config set-context` makes it.
        let mut config: Value =
            serde_json::from_str(&cluster.run(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])?)?;
        config["contexts"][0]["context"]["namespace"] = json!(space.name);
        let kubeconfig = home.join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string())?;
        let keys = [("accessKeyId", S3_KEYS.0), ("secretAccessKey", S3_KEYS.1)];
        std::fs::write(home.join("keys.env"), keys.map(|(key, value)| format!("{key}={value}\n")).concat())?;
        let secret = |name: &str, data: Value| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}).to_string()
        };
        space.kubectl.apply(&secret("keys", json!({keys[0].0: keys[0].1, keys[1].0: keys[1].1})))?;
        space.kubectl.apply(&secret("backup-key", json!({"passPhrase": "correct horse battery staple"})))?;
        let login = space.kubectl.get(&["secret", "pg-auth"])?["data"].clone();
        drill.kubectl.apply(
            &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pg-auth"}, "data": login}).to_string(),
        )?;
        let classes = cluster.get(&["storageclasses"])?;
        let is_default =
            |class: &&Value| class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true";
        let class = classes["items"].as_array().and_then(|all| all.iter().find(is_default));
        let class = class.and_then(|class| class["metadata"]["name"].as_str()).context("no default storage class")?;
        let names = vec![
            ("space", space.name.clone()),
            ("drill", drill.name.clone()),
            ("main", format!("main-{}", space.name)),
            ("old", format!("old-{}", space.name)),
            ("bucket", S3_BUCKET.to_owned()),
            ("endpoint", format!("http://versitygw.{S3_NAMESPACE}.svc:{}", s3_port("versitygw"))),
            ("class", class.to_owned()),
        ];
        let bin = std::env::var_os("KBBACKUP_E2E_BIN").context("KBBACKUP_E2E_BIN is not set")?;
        let kubectl = Kubectl::new(Some(&kubeconfig), None, &bin);
        let last = Done { code: 0, stdout: String::new(), stderr: String::new() };
        Ok(Self { kubectl, space, drill, home, names, moment: Timestamp::UNIX_EPOCH, last })
    }

    fn name(&self, wanted: &str) -> Result<&str> {
        let found = self.names.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
        found.with_context(|| format!("nothing is called {wanted} yet"))
    }

    fn remember(&mut self, name: &'static str, value: String) {
        self.names.retain(|(known, _)| *known != name);
        self.names.push((name, value));
    }

    /// The example's names, and those in braces, become those of this run.
    fn fill(&self, text: &str) -> Result<String> {
        let mut filled = text
            .replace(BACKUP, "{backup}")
            .replace("pg-copy-20260102030405", "{restore}")
            .replace("s3-main", "{main}")
            .replace("repo delete old", "repo delete {old}");
        filled = filled.replace("{moment}", &self.moment.to_string());
        let seconds = Timestamp::now().duration_since(self.moment).as_secs();
        filled = filled.replace("{ago}", &format!("{seconds}s ago"));
        for (name, value) in &self.names {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        ensure!(!filled.contains('{'), "nobody knows what to write here: {filled}");
        Ok(filled)
    }

    fn follow(&mut self, run: &Run) -> Result<()> {
        let line = self.fill(&run.typed)?;
        let mut command = self.kubectl.shell(&format!("exec timeout {} sh -c \"$LINE\"", 2 * LIMIT.as_secs()));
        // In CI nobody is asked; here nobody could be, which is another thing.
        command.current_dir(&self.home).env("HOME", &self.home).env("LINE", &line).env_remove("CI");
        let begun = Instant::now();
        let done = kubectl::run(&mut command)?;
        println!("{:>5.1}s  {}  {line}", begun.elapsed().as_secs_f64(), done.code);
        let told = format!("{line}\n{}{}", done.stdout, done.stderr);
        ensure!(run.codes.contains(&done.code), "ended with {}, not {:?}: {told}", done.code, run.codes);
        for text in &run.shown {
            let text = self.fill(text)?;
            ensure!(done.stdout.contains(&text) || done.stderr.contains(&text), "{text:?} is not in: {told}");
        }
        if line.contains("-o json") {
            let parsed = serde_json::from_str::<Value>(&done.stdout);
            ensure!(
                parsed.is_ok_and(|value| value["kind"].is_string()),
                "not an object as JSON, and nothing else: {told}"
            );
        }
        ensure!(
            !line.contains("-o yaml") || line.contains('>') || done.stdout.contains("apiVersion:"),
            "no YAML: {told}"
        );
        self.last = done;
        Ok(())
    }

    /// The name of what the last command created.
    fn created(&self, kind: &str) -> Result<String> {
        let start = format!("{kind}.dataprotection.kubeblocks.io/");
        let line = self.last.stdout.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix(" created"));
        Ok(line.with_context(|| format!("no {kind} was created: {}", self.last.stdout))?.to_owned())
    }

    fn aside(&mut self, what: &str) -> Result<()> {
        match what {
            "the log is archived" => self.log(Timestamp::UNIX_EPOCH)?,
            "that is the backup" => self.remember("backup", self.created("backup")?),
            "that is another" => self.remember("other", self.created("backup")?),
            "that runs" => self.remember("running", self.created("backup")?),
            "that is the restore" => self.remember("restore", self.created("restore")?),
            "it fills" => {
                let name = self.created("restore")?;
                self.works(("restore", "dataprotection.kubeblocks.io/restore"), &name)?;
                self.remember("filling", name);
            }
            "it works" => {
                let name = self.name("running")?.to_owned();
                self.works(("backup", "dataprotection.kubeblocks.io/backup-name"), &name)?;
            }
            "it is over" => drop(ended(&self.space, self.name("running")?, LIMIT)?),
            "the mistake happens" => self.mistake()?,
            "its times are those of a restore" => self.times()?,
            "pg is lost" => self.lose()?,
            _ => {
                let name =
                    what.strip_suffix(" has what was lost").with_context(|| format!("{what}: nobody knows how"))?;
                let restored = Postgres::existing(&self.space.kubectl, name);
                restored.wait_ready()?;
                let rows = restored.sql("select count(*) from orders")?;
                ensure!(rows == ROWS, "{rows} rows came back, and not {ROWS}");
            }
        }
        Ok(())
    }

    fn mistake(&mut self) -> Result<()> {
        let postgres = Postgres::existing(&self.space.kubectl, "pg");
        postgres.sql(&format!("create table orders as select generate_series(1, {ROWS})"))?;
        std::thread::sleep(Duration::from_secs(2));
        self.moment = crate::moments::now();
        // So long ago is counted from when the plugin has looked around, some seconds later on a busy machine.
        std::thread::sleep(Duration::from_secs(10));
        postgres.sql("drop table orders")?;
        let mistake = Timestamp::now();
        postgres.sql("create table later()")?;
        self.log(mistake)
    }

    /// Waits until the log reaches beyond `time`.
    fn log(&self, time: Timestamp) -> Result<()> {
        let begun = Instant::now();
        let name = loop {
            let all = self.space.kubectl.get(&["backups", "-l", CONTINUOUS])?;
            if let Some(name) = all["items"][0]["metadata"]["name"].as_str() {
                break name.to_owned();
            }
            ensure!(begun.elapsed() < LIMIT, "the schedule has made no backup");
            std::thread::sleep(Duration::from_millis(500));
        };
        let reached = |object: &Value| reaches(object).is_some_and(|end| end > time);
        self.space.kubectl.wait_for("backup", &name, LIMIT, reached).map(drop)
    }

    /// Waits until a pod of a backup or restore works, or all is over already.
    fn works(&self, (kind, label): (&str, &str), name: &str) -> Result<()> {
        let chosen = format!("{label}={name}");
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let pods = self.space.kubectl.get(&["pods", "-l", &chosen])?;
            let works = |pod: &Value| pod["status"]["phase"] != "Pending";
            if pods["items"].as_array().is_some_and(|pods| pods.iter().any(works))
                || matches!(phase(&self.space.kubectl.get(&[kind, name])?), "Completed" | "Failed")
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Both ends of every window, as `windows` has just printed them, are accepted by `restore`.
    fn times(&mut self) -> Result<()> {
        let is_time = |word: &&str| word.ends_with('Z') && word.parse::<Timestamp>().is_ok();
        let times: Vec<String> = self.last.stdout.split_whitespace().filter(is_time).map(str::to_owned).collect();
        ensure!(times.len() >= 2, "no window: {}", self.last.stdout);
        for time in times {
            let typed = format!("kubectl kbbackup restore pg-when --source pg --to-time {time} --dry-run -o json");
            self.follow(&Run {
                example: None,
                typed,
                codes: vec![0],
                shown: vec![format!("\"restoreTime\": \"{time}\"")],
            })?;
        }
        Ok(())
    }

    /// The database and its data; who runs it still knows the password.
    fn lose(&self) -> Result<()> {
        let kubectl = &self.space.kubectl;
        kubectl.run(&["delete", "statefulset/pg", "service/pg", "--timeout=180s"])?;
        kubectl.run(&["delete", "pvc", "data-pg-0", "--timeout=180s"]).map(drop)
    }

    /// Nothing of this run stays in the bucket, and none of its repositories.
    fn clean(self, cluster: &Kubectl) {
        let Self { space, drill, home, names, .. } = self;
        let volumes = cluster.get(&["pv", "-l", "kbbackup.io/in-place"]).unwrap_or_default();
        for volume in volumes["items"].as_array().into_iter().flatten() {
            if volume["spec"]["claimRef"]["namespace"] == json!(space.name) {
                let name = volume["metadata"]["name"].as_str().unwrap_or_default();
                drop(cluster.try_run(&["delete", "pv", name, "--wait=false"]));
            }
        }
        drop(space.kubectl.try_run(&["delete", "backupschedule", "--all", "--timeout=180s"]));
        drop(drill);
        drop(space);
        for (_, repo) in names.iter().filter(|(name, _)| matches!(*name, "main" | "old")) {
            drop_s3_repo(cluster, repo);
        }
        drop(std::fs::remove_dir_all(home));
    }
}

#[test]
fn every_example_runs_and_ends_as_it_should() {
    let plan = examples::parse(PLAN).unwrap();
    examples::compare(&plan, &DOCUMENTS).unwrap();
    let (cluster, space) = begin("examples").unwrap();
    let drill = TempNamespace::new(&cluster, "drill").unwrap();
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    let mut reader = Reader::new(&cluster, space, drill).unwrap();
    for step in &plan {
        let done = match step {
            Step::Run(run) => reader.follow(run),
            Step::Aside(what) => reader.aside(what).with_context(|| format!("! {what}")),
        };
        done.map_err(|error| format!("{error:#}")).unwrap();
    }
    let left = reader.space.kubectl.get(&["backup", reader.name("backup").unwrap()]).unwrap();
    assert_eq!(phase(&left), "Completed", "{}", left["status"]);
    reader.clean(&cluster);
}
