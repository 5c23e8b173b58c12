//! The operator is killed at random moments; what it began is finished all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::main_job::Job;
use rand::Rng as _;

use crate::begin;

/// Kills the operator's pod every 1 to 6 seconds until dropped.
struct Killer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Killer {
    fn start(cluster: &Kubectl) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (stop, operator) = (stop.clone(), cluster.in_namespace("kbbackup-system"));
            std::thread::spawn(move || {
                let mut kills = 0;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(rand::rng().random_range(1000..6000)));
                    let kill = [
                        "delete",
                        "pod",
                        "-l",
                        "kbbackup.io/part=operator",
                        "--grace-period=0",
                        "--force",
                        "--wait=false",
                    ];
                    kills += u32::from(operator.try_run(&kill).is_ok_and(|done| done.stdout.contains("deleted")));
                }
                kills
            })
        };
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

#[test]
fn the_main_job_survives_an_operator_that_is_killed_again_and_again() {
    let (cluster, space) = begin("chaos").unwrap();
    let killer = Killer::start(&cluster);
    let job = Job { kubectl: &space.kubectl, repo: None, scale: 2 };
    let result = job.run(&mut |step| println!("{step}"));
    let kills = killer.end();
    println!("{kills} kills");
    let figures = result.unwrap();
    assert!(kills >= 3, "the operator was killed {kills} times only");
    println!("{figures:?}");
    cluster
        .in_namespace("kbbackup-system")
        .run(&["rollout", "status", "deployment/kbbackup-controller", "--timeout=180s"])
        .unwrap();
}
