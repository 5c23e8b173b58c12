//! Memory does not grow with what is moved.

use crate::common::BIN;
use crate::common::memory::Caged;
use crate::common::servers::Repository;

/// What the mover may have resident, whatever it does.
const LIMIT: u64 = 128 << 20;
/// Twice that, so that what is kept anywhere does not fit.
const MIB: u64 = 256;

pub(super) fn more_than_memory_goes_there_and_back(repository: &Repository<'_>) {
    let conf = repository.conf();
    let env: Vec<_> = repository.certificate().map(|file| ("SSL_CERT_FILE", file)).into_iter().collect();
    let push = format!("{BIN} -c {conf} push - zeros < <(head -c {MIB}M /dev/zero)");
    let pushed = Caged::start(&push, &env, LIMIT).succeeds();
    let pulled = Caged::start(&format!("{BIN} -c {conf} pull zeros -"), &env, LIMIT).succeeds();
    println!("{MIB} MiB: push {pushed} KiB, pull {pulled} KiB");
    let stat = repository.run(&["stat", "--json", "zeros"]).succeeds_with_text();
    assert!(stat.contains(&format!("\"total_size\":{}", MIB << 20)), "{stat}");
}
