//! Keys that the configuration does not hold: of the environment, of files, and lent by services that ask who one is. Every
//! key found must sign requests that a real endpoint checks.

use std::io::Write;
use std::time::Duration;

use crate::common::lender::{Asked, Keys, Lender};
use crate::common::{Endpoint, Run, pseudo_random};

/// An endpoint, and a configuration for it without keys.
struct Setting {
    endpoint: Endpoint,
    dir: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        Self { endpoint: Endpoint::start(), dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A mover that must find its keys, with more lines for its configuration.
    fn mover(&self, more: &str, args: &[&str]) -> Run {
        let lines = self.endpoint.conf_lines("access_key_id").replace("secret_access_key = test-secret\n", "");
        let conf = self.file("conf", &format!("[storage]\nenv_auth = true\n{lines}{more}"));
        let mut all = vec!["-c", &conf];
        all.extend(args);
        // Nothing of this machine.
        Run::new(&all).env("HOME", self.dir.path()).env("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// Asserts that a push and a pull succeed with these settings.
    #[track_caller]
    fn works(&self, more: &str, envs: &[(&str, &str)]) {
        self.mover(more, &["push", "-", "x"]).envs(envs).stdin(b"bytes").succeeds();
        assert_eq!(self.mover(more, &["pull", "x", "-"]).envs(envs).succeeds(), b"bytes");
    }
}

const ROLE: &str = "arn:aws:iam::123456789012:role/mover";

#[test]
fn keys_of_the_environment_sign() {
    let setting = Setting::new();
    setting.works("", &[("AWS_ACCESS_KEY_ID", "TESTKEYOFOURTESTS"), ("AWS_SECRET_ACCESS_KEY", "test-secret")]);
    let wrong = setting
        .mover("", &["check"])
        .envs(&[("AWS_ACCESS_KEY_ID", "TESTKEYOFOURTESTS"), ("AWS_SECRET_ACCESS_KEY", "no")]);
    assert!(wrong.fails().contains("SignatureDoesNotMatch"));
    setting.mover("", &["check"]).fails();
}

#[test]
fn keys_of_shared_files_sign() {
    let setting = Setting::new();
    let wrong = "[default]\naws_access_key_id = TESTKEYOFOURTESTS\naws_secret_access_key = wrong\n";
    let right = "[right]\naws_access_key_id = TESTKEYOFOURTESTS\naws_secret_access_key = test-secret\n";
    let file = setting.file("shared", &format!("{wrong}{right}"));
    setting.works("profile = right\n", &[("AWS_SHARED_CREDENTIALS_FILE", &file)]);
    setting.works("", &[("AWS_SHARED_CREDENTIALS_FILE", &file), ("AWS_PROFILE", "right")]);
    setting.works(&format!("shared_credentials_file = {file}\nprofile = right\n"), &[]);
    setting.mover(&format!("shared_credentials_file = {file}\n"), &["check"]).fails();
}

#[test]
fn a_service_account_gets_the_keys_of_its_role() {
    let setting = Setting::new();
    let token = setting.file("token", "who-i-am\n");
    let sts = Lender::start(|asked: &Asked, _| {
        let fields = ["Action=AssumeRoleWithWebIdentity", "WebIdentityToken=who-i-am", "RoleSessionName=pod"];
        let role = "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fmover";
        let right = asked.method == "POST"
            && fields.iter().chain([&role]).all(|field| asked.body.split('&').any(|one| one == *field));
        if right { (200, Keys::RIGHT.xml("AssumeRoleWithWebIdentity")) } else { (403, asked.body.clone()) }
    });
    let envs = [
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_SESSION_NAME", "pod"),
        ("AWS_ENDPOINT_URL_STS", sts.address.as_str()),
    ];
    setting.works("", &envs);
    // Which service it is refuses a stranger, and the reason is told.
    setting.file("token", "somebody-else");
    let (code, _, stderr) = setting.mover("", &["check"]).envs(&envs).output();
    assert!(code == 1 && stderr.contains("STS request failed with 403"), "{stderr}");
    assert!(!stderr.contains("somebody-else"), "{stderr}");
}

#[test]
fn a_pod_gets_the_keys_of_its_identity() {
    let setting = Setting::new();
    let token = setting.file("token", "pod-token");
    let lender = Lender::start(|asked, _| {
        let right = asked.target == "/v1/credentials" && asked.has("authorization: pod-token");
        if right { (200, Keys::RIGHT.json()) } else { (401, "no".to_owned()) }
    });
    let address = format!("{}/v1/credentials", lender.address);
    setting.works(
        "",
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &address), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token)],
    );
    let (code, _, stderr) =
        setting.mover("", &["check"]).envs(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &address)]).output();
    assert!(code == 1 && stderr.contains("not authorized to fetch credentials"), "{stderr}");
}

#[test]
fn a_machine_gets_the_keys_of_its_profile() {
    let setting = Setting::new();
    let lender = Lender::start(|asked, _| {
        let session = asked.has("x-aws-ec2-metadata-token: session");
        match (asked.method.as_str(), asked.target.as_str()) {
            ("PUT", "/latest/api/token") if asked.has("x-aws-ec2-metadata-token-ttl-seconds: 21600") => {
                (200, "session".to_owned())
            }
            ("GET", "/latest/meta-data/iam/security-credentials/") if session => (200, "backup".to_owned()),
            ("GET", "/latest/meta-data/iam/security-credentials/backup") if session => (200, Keys::RIGHT.json()),
            _ => (401, "no".to_owned()),
        }
    });
    let envs = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", lender.address.as_str())];
    setting.works("", &envs);
    assert!(lender.asked().len() >= 6, "{:?}", lender.asked());
}

#[test]
fn a_role_is_assumed_and_unfinished_uploads_are_found_under_it() {
    let setting = Setting::new();
    let sts = Lender::start(|asked, _| {
        let signed = asked.headers.iter().any(|line| {
            line.starts_with("authorization: AWS4-HMAC-SHA256 Credential=own-key/")
                && line.contains("/sts/aws4_request")
        });
        let fields = ["Action=AssumeRole&", "ExternalId=outside", "RoleSessionName=nightly", "DurationSeconds=900"];
        let right = fields.iter().all(|field| asked.target.contains(field));
        if signed && right { (200, Keys::RIGHT.xml("AssumeRole")) } else { (403, String::new()) }
    });
    let role = format!(
        "role_arn = {ROLE}\nrole_external_id = outside\nrole_session_name = nightly\nrole_session_duration = 15m\n\
         sts_endpoint = {}\naccess_key_id = own-key\nsecret_access_key = own-secret\n",
        sts.address
    );
    setting.works(&role, &[]);
    let mut killed = setting.mover(&role, &["push", "-", "backup/big"]).spawn_and_feed(40 << 20);
    killed.signal("KILL");
    killed.wait();
    assert!(setting.endpoint.unfinished() > 0);
    setting.mover(&role, &["delete-backup", "backup"]).succeeds();
    setting.endpoint.nothing_is_unfinished();
}

/// What a long push does when its keys end: the second keys are those that `then` says.
fn push_over_the_end_of_keys(then: &'static str) -> (i32, usize) {
    let setting = Setting::new();
    // Keys count as ended two minutes before their end.
    let lender = Lender::start(move |_, before| {
        let short = Keys { lives: Duration::from_secs(124), ..Keys::RIGHT };
        (200, if before == 0 { short } else { Keys { secret: then, ..Keys::RIGHT } }.json())
    });
    let mut child = setting
        .mover("", &["push", "-", "long"])
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &lender.address)
        .spawn_piped();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = pseudo_random(10 << 20);
    for _ in 0..6 {
        // A push that has failed does not read any more.
        let _ = stdin.write_all(&bytes);
        std::thread::sleep(Duration::from_secs(1));
    }
    drop(stdin);
    let code = child.wait().unwrap().code().unwrap();
    (code, lender.asked().len())
}

#[test]
fn keys_that_end_during_a_transfer_are_asked_for_again() {
    let (code, asked) = push_over_the_end_of_keys("test-secret");
    assert_eq!((code, asked), (0, 2));
    // And it is the new ones that sign.
    let (code, asked) = push_over_the_end_of_keys("wrong");
    assert!(code == 1 && asked >= 2, "{code} {asked}");
}
