use super::*;

fn leg(history: i64, number: u64) -> Leg {
    Leg { history, number }
}

fn base(leg: Leg, from: i64) -> String {
    Base { leg, from, digest: "ab".to_owned(), kind: Kind::Rdb }.path()
}

fn piece(leg: Leg, from: u64, to: u64, times: Option<(i64, i64)>) -> String {
    let digest = |at: u64| if at == 0 { NOTHING.to_owned() } else { format!("d{at}") };
    Piece { leg, from, to, times, before: digest(from), after: digest(to) }.path()
}

fn end(leg: Leg, at: u64) -> String {
    let digest = if at == 0 { NOTHING.to_owned() } else { format!("d{at}") };
    End { leg, at, digest }.path()
}

fn shelf(paths: &[String]) -> Shelf {
    let mut shelf = Shelf::default();
    for path in paths {
        shelf.place(path, 10);
    }
    shelf
}

/// Two legs of which the first has ended.
fn two() -> Vec<String> {
    let (one, two) = (leg(5, 1), leg(5, 2));
    vec![
        base(one, 100),
        piece(one, 0, 40, Some((101, 110))),
        piece(one, 40, 70, Some((101, 120))),
        end(one, 70),
        piece(two, 0, 30, Some((121, 140))),
        base(two, 121),
    ]
}

#[test]
fn names_say_everything_and_foreign_ones_nothing() {
    let all = shelf(&two());
    assert_eq!(all.newest(), Some(leg(5, 2)));
    assert_eq!(all.bytes(), 50, "marks are empty");
    for path in two() {
        let mut one = shelf(&[format!("some/where{path}")]);
        let stored = one.stored(Leg { ..one.newest().unwrap() }).clone();
        let back = stored.bases.iter().map(|(base, _)| base.path());
        let back = back.chain(stored.pieces.iter().map(|(piece, _)| piece.path()));
        let back: Vec<String> = back.chain(stored.ends.iter().map(End::path)).collect();
        assert_eq!(back, [path]);
    }
    let mut odd = Shelf::default();
    for name in [
        "/aof/000000000005/clock",
        "/aof/000000000005/about.json",
        "/aof/000000000005/000001/x.zst",
        "/aof/5/1/3~2~~~a~b.zst",
        "",
    ] {
        odd.place(name, 1);
    }
    assert!(odd.newest().is_none() && odd.bytes() == 5);
    assert_eq!(digest(&hex::decode("e3b0c44298fc1c149afbf4c8996fb92427ae41e4").unwrap()), NOTHING);
}

#[test]
fn the_window_is_what_is_there_without_a_hole() {
    let range = |paths: &[String]| {
        let window = shelf(paths).window();
        (window.range, window.gaps)
    };
    assert_eq!(range(&two()), (Some((102, 139)), vec![]));
    // Whatever is missing, the window shrinks by that and by no more.
    let without = |index: usize| {
        let mut paths = two();
        paths.remove(index);
        range(&paths)
    };
    assert_eq!(without(0), (Some((123, 139)), vec![]), "no base in front");
    assert_eq!(without(1), (Some((123, 139)), vec![]), "the first leg cannot be begun");
    assert_eq!(without(2), (Some((102, 139)), vec![(109, 121)]), "its second part");
    assert_eq!(without(3), (Some((102, 139)), vec![(119, 121)]), "whether it ended there");
    assert_eq!(without(4), (Some((102, 119)), vec![]));
    assert_eq!(without(5), (Some((102, 139)), vec![]), "the first base is enough");
    let mut swapped = two();
    swapped[2] = Piece { before: "x".to_owned(), ..shelf(&two()).leg(leg(5, 1)).unwrap().pieces[1].0.clone() }.path();
    assert_eq!(range(&swapped), (Some((102, 139)), vec![(109, 121)]));
    // Merged parts beside those that they are made of.
    let mut merged = two();
    merged.push(piece(leg(5, 1), 0, 70, Some((101, 120))));
    assert_eq!(range(&merged), range(&two()));
}

#[test]
fn a_clock_counts_as_far_as_everything_before_it_is_there() {
    let clock = |number, at| Some(Clock { leg: leg(5, number), at, time: 200 });
    let range = |clock: Option<Clock>| {
        let mut shelf = shelf(&two());
        shelf.clocks.extend(clock.map(|clock| (5, clock)));
        shelf.window().range.unwrap().1
    };
    assert_eq!(range(clock(2, 30)), 200);
    assert_eq!(range(clock(2, 20)), 200);
    assert_eq!(range(clock(1, 500)), 200, "the second leg is behind all of the first");
    assert_eq!(range(clock(2, 31)), 139);
    assert_eq!(range(clock(3, 0)), 139);
    assert_eq!(range(Some(Clock { leg: leg(6, 1), at: 0, time: 200 })), 139, "another history");
    let text = clock(2, 30).unwrap();
    assert_eq!(Clock::read(&text.text()), Some(text));
    assert_eq!(Clock::read("1 2 3"), None);
}

#[test]
fn histories_that_overlap_leave_no_gap_and_those_that_do_not_leave_one() {
    let after = |from: i64| {
        let mut paths = two();
        paths.extend([base(leg(9, 1), from), piece(leg(9, 1), 0, 10, Some((from, 200)))]);
        shelf(&paths).window()
    };
    assert_eq!((after(130).range, after(130).gaps), (Some((102, 199)), vec![]));
    assert_eq!((after(150).range, after(150).gaps), (Some((102, 199)), vec![(139, 150)]));
}

#[test]
fn a_restore_begins_at_the_nearest_base() {
    let shelf = shelf(&two());
    let stretches = shelf.stretches();
    assert_eq!(stretches.len(), 1);
    let from = |time| shelf.bases(&stretches[0], time).iter().map(|base| base.from).collect::<Vec<_>>();
    assert_eq!((from(120), from(121), from(139)), (vec![100], vec![121, 100], vec![121, 100]));
    assert!(stretches[0].reaches(100) && stretches[0].reaches(139));
    assert!(!stretches[0].reaches(99) && !stretches[0].reaches(140));
}

#[test]
fn what_is_purged_is_not_needed_for_any_time_that_is_kept() {
    let mut paths = two();
    paths.extend([base(leg(9, 3), 300), piece(leg(9, 3), 0, 10, Some((300, 310)))]);
    let purge = |cutoff| {
        let mut shelf = shelf(&paths);
        let folders = shelf.purge(cutoff);
        (folders, shelf.window().range)
    };
    assert_eq!(purge(99), (vec![], Some((102, 309))));
    assert_eq!(purge(120).0, Vec::<String>::new());
    assert_eq!(purge(121), (vec![leg(5, 1).folder()], Some((123, 309))));
    assert_eq!(purge(139).0, [leg(5, 1).folder()]);
    assert_eq!(purge(140), (vec!["/aof/000000000005".to_owned()], Some((302, 309))));
    assert_eq!(purge(1000).1, Some((302, 309)), "the newest stays");
}

#[test]
fn an_object_that_was_cut_does_not_count() {
    let before = shelf(&two());
    let mut now = shelf(&two());
    assert!(now.distrust(&before).is_empty());
    now.stored(leg(5, 1)).pieces[0].1 = 9;
    assert_eq!(now.distrust(&before), [piece(leg(5, 1), 0, 40, Some((101, 110)))]);
    assert_eq!(now.window().range, Some((123, 139)));
}
