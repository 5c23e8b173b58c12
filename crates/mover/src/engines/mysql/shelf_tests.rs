use super::*;

/// A shelf with the files `number:from-to` (whole; begun at ten times the number, last transaction five seconds later) and
/// `number:from?` (begun).
fn shelf(objects: &str) -> Shelf {
    let mut shelf = Shelf::default();
    for object in objects.split_whitespace() {
        let path = path(object);
        shelf.place(split(&path).1, 7);
    }
    shelf
}

fn path(object: &str) -> String {
    let (number, states) = object.split_once(':').unwrap();
    let name = name(number.parse().unwrap());
    let begun = name.number as i64 * 10;
    match states.split_once('-') {
        Some((from, to)) => Kept { name, begun, last: begun + 5, from: from.into(), to: to.into() }.path(),
        None => Begun { name, from: states.trim_end_matches('?').into() }.path(),
    }
}

fn name(number: u64) -> Name {
    Name { base: "bin".into(), number }
}

fn open(number: u64, from: &str, last: i64) -> Open {
    Open { begun: number as i64 * 10, last, from: from.into(), end: Place { file: name(number), at: 500 } }
}

#[test]
fn names_say_what_an_object_is() {
    let shelf = shelf("2:a-b 3:b?");
    assert_eq!(shelf.bytes(), 14);
    assert_eq!(path("2:a-b"), "/binlog/bin.000002~20~25~a~b.zst");
    assert_eq!(path("3:b?"), "/binlog/bin.000003~b.partial.zst");
    for other in ["bin.000002.zst", "bin.000002~1~2~a.zst", "bin.000002~1~2~a~b~c.zst", "bin~a.partial.zst", "clock"] {
        assert!(Kept::read(other).is_none() && Begun::read(other).is_none(), "{other}");
    }
    let clock = Clock { place: Place { file: name(2), at: 4 }, time: 9 };
    assert_eq!(Clock::read(&clock.text()), Some(clock));
    assert_eq!(Clock::read("bin.000002:4"), None);
}

#[test]
fn what_is_missing_shrinks_the_window_by_that() {
    for (objects, opened, range, gaps) in [
        ("", None, None, vec![]),
        // The beginning of a file is worth what was read of it.
        ("2:a?", None, None, vec![]),
        ("2:a?", Some(open(2, "a", 28)), Some((22, 27)), vec![]),
        ("2:a-b 3:b-c 4:c-d", None, Some((22, 44)), vec![]),
        ("2:a-b 3:b-c 4:c?", Some(open(4, "c", 49)), Some((22, 48)), vec![]),
        // Removed: in the middle, at the ends.
        ("2:a-b 4:c-d 5:d-e", None, Some((22, 54)), vec![(24, 40)]),
        ("3:b-c 4:c-d", None, Some((32, 44)), vec![]),
        ("2:a-b 3:b-c", None, Some((22, 34)), vec![]),
        ("2:a-b 4:c?", Some(open(4, "c", 49)), Some((22, 48)), vec![(24, 40)]),
        // Another server's, under a name that would fit; and the same twice, or one beside a stranger.
        ("2:a-b 3:x-y 4:c-d", None, Some((22, 44)), vec![(24, 30), (34, 40)]),
        ("2:a-b 3:b-c 3:x-y 4:c-d", None, Some((22, 44)), vec![]),
        ("2:a-b 3:x-y 3:b-c 4:c-d", None, Some((22, 44)), vec![]),
        // It became whole, and its beginning is still there.
        ("2:a-b 3:b-c 3:b?", None, Some((22, 34)), vec![]),
    ] {
        assert_eq!(shelf(objects).window(opened.as_ref(), None), Window { range, gaps }, "{objects}");
    }
}

#[test]
fn a_quiet_server_s_clock_moves_the_end_and_only_the_end() {
    let clock = |at: u64, number: u64| Clock { place: Place { file: name(number), at }, time: 90 };
    let end = |objects: &str, opened: Option<Open>, clock: &Clock| {
        shelf(objects).window(opened.as_ref(), Some(clock)).range.unwrap().1
    };
    assert_eq!(end("2:a-b 3:b?", Some(open(3, "b", 38)), &clock(500, 3)), 89);
    assert_eq!(end("2:a-b 3:b?", Some(open(3, "b", 38)), &clock(501, 3)), 37, "what lies behind is not stored yet");
    assert_eq!(end("2:a-b 3:b-c", None, &clock(501, 3)), 89, "the file is whole");
    assert_eq!(end("2:a-b", None, &clock(4, 3)), 24);
    assert_eq!(end("2:a-b 3:b?", Some(open(3, "b", 95)), &clock(500, 3)), 94);
}

#[test]
fn holes_are_known_and_so_is_what_must_follow() {
    let shelf = shelf("2:a-b 4:c-d 7:e?");
    assert_eq!(shelf.holes(), [3, 5, 6]);
    assert_eq!(shelf.expected(3), Some("b"));
    assert_eq!(shelf.expected(5), Some("d"));
    assert_eq!((shelf.expected(4), shelf.expected(7)), (None, Some("e")));
    assert_eq!(shelf.newest(), Some(7));
    assert!(Shelf::default().holes().is_empty());
}

#[test]
fn a_file_that_was_cut_counts_no_more() {
    let before = shelf("2:a-b 3:b-c 4:c-d");
    let mut after = before.clone();
    after.whole.get_mut(&3).unwrap()[0].1 = 6;
    assert_eq!(after.distrust(&before), [path("3:b-c")]);
    assert_eq!(after.window(None, None).gaps, [(24, 40)]);
    let mut unknown = before.clone();
    assert!(unknown.distrust(&Shelf::default()).is_empty());
}

#[test]
fn old_files_go_and_the_window_begins_later() {
    let mut shelf = shelf("2:a-b 3:b-c 3:b? 4:c-d 5:d?");
    assert_eq!(shelf.purge(20), [path("3:b?")], "the whole one is there");
    assert_eq!(shelf.purge(40), [path("2:a-b"), path("3:b-c")]);
    assert_eq!(shelf.window(None, None).range, Some((42, 44)));
    assert!(shelf.purge(1000).is_empty(), "the newest stays");
}

#[test]
fn another_server_s_directory_is_refused() {
    let mut shelf = shelf("2:a-b");
    let own = server_mark("0-1", "bin");
    assert!(shelf.recognise(&own).is_ok());
    shelf.place(&own, 0);
    assert!(shelf.recognise(&own).is_ok());
    let told = shelf.recognise(&server_mark("0-2", "bin")).unwrap_err().to_string();
    assert!(told.contains("another server (server-0-1-bin), and the server's is server-0-2-bin"), "{told}");
}
