use super::*;
use crate::engines::log::window::MOST_GAPS;

const MIB: u64 = 1 << 20;

/// A shelf with the objects `timeline.number` (whole; two transactions end, at ten times the number and a second later) and
/// `timeline.number?` (begun).
fn shelf(objects: &str) -> Shelf {
    let mut shelf = Shelf::new(MIB);
    for object in objects.split_whitespace() {
        let (timeline, number) = object.trim_end_matches('?').split_once('.').unwrap();
        let (timeline, number) = (timeline.parse().unwrap(), number.parse().unwrap());
        let segment = Segment { timeline, number };
        let span = Span { first: number as i64 * 10, last: number as i64 * 10 + 1 };
        let begun = object.ends_with('?');
        let path = if begun { begun_path(segment, MIB) } else { whole_path(segment, Some(span), MIB) };
        shelf.place(crate::rpath::split(&path).1, 5);
    }
    shelf
}

fn window(objects: &str, open: Option<i64>) -> Window {
    shelf(objects).window(open.map(|time| Span { first: time, last: time }))
}

#[test]
fn times_are_rounded_inwards() {
    assert_eq!(Span::of(5_000_001), Span { first: 6, last: 5 });
    assert_eq!(Span::of(5_999_999), Span { first: 6, last: 5 });
    // Recovery to exactly this time would find nothing later to stop at.
    assert_eq!(Span::of(5_000_000), Span { first: 5, last: 4 });
    assert_eq!(Span::of(1_000_001).and(Span::of(9_500_000)), Span { first: 2, last: 9 });
}

#[test]
fn names_say_what_an_object_is() {
    let shelf = shelf("1.2 1.3?");
    assert_eq!(shelf.bytes(), 10);
    let segment = Segment { timeline: 1, number: 2 };
    assert_eq!(whole_path(segment, None, MIB), "/wal/00000001/000000010000000000000002~0~0.zst");
    assert_eq!(shelf.parse_whole("000000010000000000000002~0~0.zst"), Some((segment, None)));
    for other in
        ["000000010000000000000002.zst", "000000010000000000000002~1.zst", "000000010000000000000002~1~2~3.zst", "x"]
    {
        assert_eq!(shelf.parse_whole(other), None, "{other}");
    }
}

#[test]
fn what_is_stored_of_a_segment_makes_way_for_no_less() {
    let segment = Segment { timeline: 1, number: 3 };
    let mut shelf = shelf("1.2 1.3?");
    assert_eq!(shelf.kept(segment, None), Lsn(0), "nobody has looked at it");
    shelf.begun.insert(segment, Begun { received: Some(Lsn(500)), bytes: 5 });
    assert_eq!(shelf.kept(segment, None), Lsn(500));
    assert_eq!(shelf.kept(segment, Some(Lsn(700))), Lsn(500));
    assert_eq!(shelf.kept(segment, Some(Lsn(300))), Lsn(300), "the server has no more");
    assert_eq!(shelf.kept(Segment { timeline: 2, number: 3 }, None), Lsn(0));
}

#[test]
fn what_is_missing_shrinks_the_window_by_that() {
    for (objects, open, range, gaps) in [
        ("", None, None, vec![]),
        ("1.2?", Some(25), None, vec![]),
        ("1.2 1.3 1.4", None, Some((22, 41)), vec![]),
        ("1.2 1.3 1.4?", Some(44), Some((22, 44)), vec![]),
        // Removed, in the middle, at the ends.
        ("1.2 1.4 1.5", None, Some((22, 51)), vec![(21, 40)]),
        ("1.3 1.4", None, Some((32, 41)), vec![]),
        ("1.2 1.4?", Some(44), Some((22, 44)), vec![(21, 44)]),
        ("1.2 1.4 1.6 1.7", None, Some((22, 71)), vec![(21, 40), (41, 60)]),
        // A timeline that goes on from another, whose end stays and does not count.
        ("1.2 1.3 1.4? 2.4 2.5", None, Some((22, 51)), vec![]),
        ("1.2 1.3 1.4 1.5 2.4 2.5", None, Some((22, 51)), vec![]),
        ("1.2 1.3 1.4 1.5 2.4?", Some(44), Some((22, 44)), vec![]),
        ("1.2 1.4? 2.4 2.5", None, Some((22, 51)), vec![(21, 40)]),
    ] {
        assert_eq!(window(objects, open), Window { range, gaps }, "{objects}");
    }
}

#[test]
fn many_gaps_become_a_later_beginning() {
    let objects: Vec<String> = (0..500).map(|number| format!("1.{}", number * 2 + 2)).collect();
    let Window { range, gaps } = shelf(&objects.join(" ")).window(None);
    assert_eq!(gaps.len(), MOST_GAPS);
    assert_eq!(range.unwrap().0, gaps[0].0 - 1, "right behind the last gap that is not told");
}

#[test]
fn archiving_goes_on_behind_what_is_stored_or_at_a_hole_that_can_be_filled() {
    let resume = |objects: &str, guarded: Option<u64>| {
        let resume = shelf(objects).resume(guarded.map(|number| Lsn(number * MIB)));
        resume
            .map(|resume| format!("{}.{} {}", resume.segment.timeline, resume.segment.number, resume.received.0 / MIB))
    };
    for (objects, guarded, wanted) in [
        ("", None, None),
        ("1.3?", None, Some("1.3 3")),
        ("1.2 1.3", None, Some("1.4 4")),
        ("1.2 1.3 1.4?", None, Some("1.4 4")),
        ("1.2 1.3 1.4? 2.4?", None, Some("2.4 4")),
        ("1.2 1.4 1.5", Some(3), Some("1.3 3")),
        ("1.2 1.4 1.5", Some(2), Some("1.3 3")),
        ("1.2 1.4 1.5", Some(4), Some("1.6 6")),
        ("1.2 1.4 1.6", Some(1), Some("1.3 3")),
        ("1.2 1.4 1.6", Some(4), Some("1.5 5")),
    ] {
        assert_eq!(resume(objects, guarded).as_deref(), wanted, "{objects} {guarded:?}");
    }
}

#[test]
fn old_segments_go_and_the_window_begins_later() {
    let mut shelf = shelf("1.2 1.3 1.4 1.4? 1.5? 2.5 2.6 2.7?");
    assert_eq!(shelf.purge(20), [begun_path(Segment { timeline: 1, number: 4 }, MIB)], "the whole one is there");
    let gone = shelf.purge(45);
    assert_eq!(gone.len(), 3, "{gone:?}");
    assert!(gone.iter().all(|path| path.starts_with("/wal/00000001/0000000100000000000000")));
    assert_eq!(shelf.window(None).range, Some((52, 61)));
    assert_eq!(shelf.purge(1000).len(), 2, "the newest stays");
    assert_eq!(shelf.whole.len(), 1);
}

#[test]
fn another_cluster_s_directory_is_refused() {
    let mut shelf = shelf("1.2");
    assert!(shelf.recognise(77).is_ok());
    shelf.place(&cluster_mark(77, MIB), 0);
    assert!(shelf.recognise(77).is_ok());
    let told = shelf.recognise(78).unwrap_err().to_string();
    assert!(told.contains("(cluster-77-1048576), and the server's is cluster-78-1048576"), "{told}");
}
