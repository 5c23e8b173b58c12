//! Pushes that do not come to their end: whatever happens, nobody sees half an object.

use std::time::Duration;

use crate::common::pseudo_random;
use crate::common::servers::Repository;

pub(super) fn an_object_is_the_old_one_until_the_new_one_is_whole(repository: &Repository<'_>) {
    let (old, new) = (pseudo_random(100_000), pseudo_random(10 << 20));
    repository.push("dir/object", &old);
    let mut fed = repository.run(&["push", "-", "dir/object"]).spawn_and_feed(20 << 20);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(100));
        assert!(repository.pull("dir/object") == old);
        assert_eq!(repository.list(&["-r", "-f", "/"]), "dir/object\n");
    }
    fed.signal("TERM");
    assert_eq!(fed.wait().code(), Some(143));
    assert!(repository.pull("dir/object") == old);
    repository.push("dir/object", &new);
    assert!(repository.pull("dir/object") == new);
    repository.push("dir/object", b"short");
    assert_eq!(repository.pull("dir/object"), b"short");
    assert_eq!(repository.list(&["-r", "-f", "/"]), "dir/object\n");
}

pub(super) fn a_stopped_push_leaves_nothing(repository: &Repository<'_>) {
    // Before the first byte has reached the server, in the middle of the first part, and behind some.
    for size in [0, 1 << 20, 20 << 20] {
        let mut fed = repository.run(&["push", "-", "dir/object"]).spawn_and_feed(size);
        std::thread::sleep(Duration::from_millis(300));
        fed.signal("TERM");
        assert_eq!(fed.wait().code(), Some(143), "{size}");
        repository.is_empty();
    }
}

pub(super) fn a_push_without_its_input_leaves_nothing(repository: &Repository<'_>) {
    // A directory can be opened, but not read.
    let error = repository.run(&["push", "/", "dir/object"]).fails();
    assert!(error.ends_with("is a directory"), "{error}");
    repository.run(&["push", "/no/such/file", "dir/object"]).fails();
    repository.is_empty();
}

pub(super) fn a_killed_push_shows_nothing(repository: &Repository<'_>) {
    for pause in [0, 50, 150, 300] {
        let mut fed = repository.run(&["push", "-", "object"]).spawn_and_feed(20 << 20);
        std::thread::sleep(Duration::from_millis(pause));
        fed.signal("KILL");
        fed.wait();
        // `list` of a root that nobody has made is empty as well.
        assert_eq!(repository.list(&["-r", "/"]), "");
    }
    repository.push("object", b"whole");
    assert_eq!(repository.pull("object"), b"whole");
    assert_eq!(repository.list(&["-r", "/"]), "object\n");
}
