//! What networks and servers do to requests, in a table: each command either does what it should or says why not, in one line
//! and in time, and the store holds whole objects only.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::common::proxy::{Asks, Fault, Proxy, Rule};
use crate::common::{Endpoint, pseudo_random};

/// Three parts.
static NEW: LazyLock<Vec<u8>> = LazyLock::new(|| pseudo_random(20 << 20));
const OLD: &[u8] = b"what was there before";
const SOME: Duration = Duration::from_millis(300);
const ALWAYS: usize = usize::MAX;

/// What is run; each has an object at `dir/object` to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Push,
    PushSmall,
    Pull,
    List,
    Stat,
    Remove,
    RemoveAll,
}

/// What must come of it.
#[derive(Clone, Copy, Debug)]
enum Comes {
    Right,
    /// A failure whose line contains this.
    Says(&'static str),
}

use Comes::{Right, Says};
use Does::{List, Pull, Push, PushSmall, Remove, RemoveAll, Stat};

struct Case {
    asks: Asks,
    skip: usize,
    times: usize,
    fault: Fault,
    runs: &'static [Does],
    comes: Comes,
}

fn case(asks: Asks, times: usize, fault: Fault, runs: &'static [Does], comes: Comes) -> Case {
    Case { asks, skip: 0, times, fault, runs, comes }
}

fn xml(code: &str) -> &'static str {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said so</Message></Error>").leak()
}

fn cases() -> Vec<Case> {
    use Fault::{Answer, AnswerLost, Cut, Late, ResetAfter, SlowClose, Stall};
    const MIB: usize = 1 << 20;
    const EACH: &[Does] = &[Push, PushSmall, Pull, List, Stat, Remove, RemoveAll];
    let mut cases = vec![
        case(Asks::Anything, ALWAYS, Late(SOME), EACH, Right),
        case(Asks::Anything, ALWAYS, SlowClose, &[PushSmall, Pull, List, Remove], Right),
        // Connections that break.
        case(Asks::Anything, 1, ResetAfter(0), EACH, Right),
        case(Asks::Anything, ALWAYS, ResetAfter(0), &[Push, PushSmall, Pull, List, Stat, Remove], Says("connection")),
        case(Asks::Part, 2, ResetAfter(MIB), &[Push], Right),
        case(Asks::Get, 3, Cut { after: MIB, reset: true }, &[Pull], Right),
        case(Asks::Get, 3, Cut { after: MIB, reset: false }, &[Pull], Right),
        case(Asks::List, 1, Cut { after: 50, reset: true }, &[List, Stat, RemoveAll], Right),
        case(Asks::List, 1, Cut { after: 50, reset: false }, &[List, Stat, RemoveAll], Right),
        case(Asks::List, 1, Stall { after: 50 }, &[List, RemoveAll], Right),
        // The work is done, but nobody hears of it.
        case(Asks::Begin, 1, AnswerLost, &[Push], Right),
        case(Asks::Part, 2, AnswerLost, &[Push], Right),
        case(Asks::Complete, 1, AnswerLost, &[Push], Right),
        case(Asks::Complete, 3, AnswerLost, &[Push], Right),
        case(Asks::Put, 1, AnswerLost, &[PushSmall], Right),
        case(Asks::Delete, 1, AnswerLost, &[Remove, RemoveAll], Right),
        // Requests that are refused.
        case(Asks::Anything, ALWAYS, Answer(403, "", xml("RequestTimeTooSkewed")), EACH, Says("RequestTimeTooSkewed")),
        case(Asks::Anything, ALWAYS, Answer(403, "", xml("ExpiredToken")), EACH, Says("ExpiredToken")),
        case(Asks::Anything, ALWAYS, Answer(400, "", xml("ExpiredToken")), EACH, Says("ExpiredToken")),
        case(Asks::Complete, 1, Answer(200, "", xml("InternalError")), &[Push], Right),
        case(Asks::Complete, ALWAYS, Answer(200, "", xml("AccessDenied")), &[Push], Says("AccessDenied: said so")),
        case(Asks::Complete, ALWAYS, Answer(200, "", ""), &[Push], Says("the server's answer cannot be read")),
        case(Asks::Complete, ALWAYS, Answer(507, "", xml("InsufficientStorage")), &[Push], Says("InsufficientStorage")),
        case(Asks::List, ALWAYS, Answer(200, "content-type: text/html\r\n", "<html/>"), &[List], Says("is a web page")),
        case(
            Asks::Put,
            ALWAYS,
            Answer(200, "content-type: text/html\r\n", "<html/>"),
            &[PushSmall],
            Says("is a web page"),
        ),
        case(
            Asks::Delete,
            ALWAYS,
            Answer(200, "content-type: text/html\r\n", "<html/>"),
            &[Remove],
            Says("is a web page"),
        ),
        // Servers that ask to wait.
        case(
            Asks::Head,
            ALWAYS,
            Answer(503, "retry-after: 3600\r\n", ""),
            &[Push, Pull],
            Says("asks to wait 3600 seconds"),
        ),
        case(
            Asks::List,
            ALWAYS,
            Answer(429, "retry-after: 3600\r\n", xml("SlowDown")),
            &[RemoveAll],
            Says("429 SlowDown said so"),
        ),
    ];
    for status in [429, 500, 502, 503, 504] {
        cases.push(case(Asks::Anything, 2, Answer(status, "", xml("SlowDown")), &[Push, Pull, List, Remove], Right));
    }
    // Half way.
    for (code, runs, asks) in [("ExpiredToken", &[Push][..], Asks::Part), ("ExpiredToken", &[Pull], Asks::Get)] {
        let fault = Answer(403, "", xml(code));
        cases.push(Case { asks, skip: 1, times: ALWAYS, fault, runs, comes: Says("ExpiredToken: said so") });
    }
    cases
}

/// Runs one command through a proxy and looks at what it said and left.
fn judge(name: &str, rule: &Rule, does: Does, comes: Comes) {
    let endpoint = Endpoint::start();
    let path = endpoint.path("bucket/dir/object");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, if does == Pull { &NEW } else { OLD }).unwrap();
    let proxy = Proxy::start(endpoint.address(), vec![rule.clone()]);
    let client = endpoint.with_conf("endpoint", &format!("http://{}", proxy.address));
    let (args, stdin): (&[&str], &[u8]) = match does {
        Push => (&["push", "-", "dir/object"], &NEW),
        PushSmall => (&["push", "-", "dir/object"], &NEW[..3 << 20]),
        Pull => (&["pull", "dir/object", "-"], &[]),
        List => (&["list", "-r", "/"], &[]),
        Stat => (&["stat", "dir/"], &[]),
        Remove => (&["rm", "dir/object"], &[]),
        RemoveAll => (&["rm", "-r", "dir"], &[]),
    };
    let began = Instant::now();
    let (code, stdout, stderr) = client.mover(args).stdin(stdin).output();
    let took = began.elapsed();
    assert!(proxy.befallen() > 0, "{name}: nothing happened; asked was {:?}", proxy.seen());
    match comes {
        Right => {
            assert_eq!(code, 0, "{name}: {stderr}");
            match does {
                Pull => assert!(stdout == *NEW, "{name}"),
                List => assert_eq!(String::from_utf8_lossy(&stdout), "dir/object\ndir/\n", "{name}"),
                Stat => assert!(String::from_utf8_lossy(&stdout).contains("Files: 1\n"), "{name}"),
                _ => {}
            }
        }
        Says(words) => {
            assert_eq!(code, 1, "{name}: {stderr}");
            assert!(stderr.starts_with("Error: ") && stderr.lines().count() == 1, "{name}: {stderr}");
            assert!(stderr.contains(words), "{name}: {stderr}");
            assert!(stderr.len() < 400, "{name}: {stderr}");
        }
    }
    // Refusals and what a server can be asked again are no reason to wait for long.
    assert!(took < Duration::from_secs(60), "{name}: {took:?}");
    let now = fs::read(&path).ok();
    let expected: Option<&[u8]> = match (does, comes) {
        (PushSmall, Right) => Some(stdin),
        (Remove | RemoveAll, Right) => None,
        (Push, Right) | (Pull, _) => Some(&NEW),
        _ => Some(OLD),
    };
    assert!(now.as_deref() == expected, "{name}: the store holds {:?} bytes", now.map(|bytes| bytes.len()));
    // An upload whose name was lost on the way is nobody's; the end of its backup takes it along.
    if rule.asks == Asks::Begin {
        assert_eq!(endpoint.unfinished(), 1, "{name}");
        endpoint.mover(&["delete-backup", "dir"]).succeeds();
    }
    endpoint.nothing_is_unfinished();
    assert_eq!(endpoint.mover(&["list", "-r", "-f", "/"]).succeeds_with_text().matches("kbbackup").count(), 0);
}

#[test]
fn every_fault_ends_well_or_is_named() {
    let cases = cases();
    let runs: Vec<(&Case, Does)> =
        cases.iter().flat_map(|case| case.runs.iter().map(move |&does| (case, does))).collect();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    // Most of the time is waiting.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((case, does)) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let name = format!("{does:?} with {:?} x{} on {:?}", case.fault, case.times, case.asks);
                    let rule = Rule { asks: case.asks, skip: case.skip, times: case.times, fault: case.fault.clone() };
                    let began = Instant::now();
                    if catch_unwind(AssertUnwindSafe(|| judge(&name, &rule, *does, case.comes))).is_err() {
                        wrong.lock().unwrap().push(name.clone());
                    }
                    println!("{:>6.1} s: {name}", began.elapsed().as_secs_f64());
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} went wrong: {wrong:#?}", wrong.len(), runs.len());
}

#[test]
fn a_server_that_says_nothing_is_named_within_half_a_minute() {
    let endpoint = Endpoint::start();
    let rule = Rule { asks: Asks::Anything, skip: 0, times: ALWAYS, fault: Fault::Silence };
    let proxy = Proxy::start(endpoint.address(), vec![rule]);
    let client = endpoint.with_conf("endpoint", &format!("http://{}", proxy.address));
    let runs = [
        (&["list", "/"][..], 0),
        (&["list", "dir"], 0),
        (&["stat", "x"], 0),
        (&["pull", "x", "-"], 0),
        (&["push", "-", "x"], 10),
        (&["push", "-", "x"], 3 << 20),
        (&["push", "-", "x"], 20 << 20),
        (&["rm", "x"], 0),
        (&["rm", "-r", "x"], 0),
        (&["delete-backup", "/x"], 0),
    ];
    // Each begins when the configuration is written.
    let runs = runs.map(|(args, size)| (args, client.mover(args).stdin(&NEW[..size])));
    std::thread::scope(|scope| {
        for (args, run) in runs {
            scope.spawn(move || {
                let began = Instant::now();
                let said = run.fails();
                let took = began.elapsed();
                assert!(said.contains("no answer within"), "{args:?}: {said}");
                assert!(took < Duration::from_secs(30), "{args:?} took {took:?}");
            });
        }
    });
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for() {
    for (asks, header) in [(Asks::Head, "retry-after: 2\r\n"), (Asks::Part, "retry-after: 2\r\n")] {
        let endpoint = Endpoint::start();
        // Oftener than a question would be asked again without such words.
        let rule = Rule { asks, skip: 0, times: 5, fault: Fault::Answer(503, header, xml("SlowDown")) };
        let proxy = Proxy::start(endpoint.address(), vec![rule]);
        let client = endpoint.with_conf("endpoint", &format!("http://{}", proxy.address));
        client.mover(&["push", "-", "x"]).stdin(&NEW).succeeds();
        assert_eq!(proxy.befallen(), 5);
        // Each address is asked again after two seconds at the earliest.
        let seen = proxy.seen();
        for (number, (at, asked, address)) in seen.iter().enumerate().filter(|(_, (_, asked, _))| *asked == asks) {
            let before = seen[..number].iter().rev().find(|(_, kind, same)| kind == asked && same == address);
            let waited = before.is_none_or(|(then, ..)| at.duration_since(*then) >= Duration::from_millis(1990));
            assert!(waited, "{address}");
        }
    }
}

/// The client gives the upload up while a part of it is half way to the server.
#[test]
fn a_part_that_is_under_way_when_its_upload_ends_leaves_nothing() {
    let endpoint = Endpoint::start();
    let refused = Rule { asks: Asks::Part, skip: 0, times: 1, fault: Fault::Answer(403, "", xml("AccessDenied")) };
    let late = Rule { asks: Asks::Part, skip: 0, times: ALWAYS, fault: Fault::LateBody(SOME) };
    let proxy = Proxy::start(endpoint.address(), vec![refused, late]);
    let client = endpoint.with_conf("endpoint", &format!("http://{}", proxy.address));
    let said = client.mover(&["push", "-", "x"]).stdin(&NEW).fails();
    assert!(said.contains("AccessDenied: said so"), "{said}");
    std::thread::sleep(SOME);
    endpoint.nothing_is_unfinished();
    assert!(!endpoint.path("bucket/x").exists());
}

#[test]
fn a_push_that_is_stopped_while_its_parts_hang_takes_its_upload_back() {
    let endpoint = Endpoint::start();
    let rule = Rule { asks: Asks::Part, skip: 0, times: ALWAYS, fault: Fault::Silence };
    let proxy = Proxy::start(endpoint.address(), vec![rule]);
    let client = endpoint.with_conf("endpoint", &format!("http://{}", proxy.address));
    let mut push = client.mover(&["push", "-", "x"]).stdin(&pseudo_random(60 << 20)).spawn_fed();
    while proxy.befallen() < 3 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Until it waits for one of them.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(endpoint.unfinished(), 1);
    assert!(std::process::Command::new("kill").args(["-TERM", &push.id().to_string()]).status().unwrap().success());
    assert_eq!(push.wait().unwrap().code(), Some(143));
    endpoint.nothing_is_unfinished();
}
