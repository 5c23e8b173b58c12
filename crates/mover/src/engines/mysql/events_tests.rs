use super::*;

/// A file as a server writes it.
struct File(Vec<u8>);

const TIME: u32 = 1_790_000_000;

impl File {
    /// With its format alone.
    fn begin() -> Self {
        let mut file = Self(MAGIC.to_vec());
        let mut format = 4_u16.to_le_bytes().to_vec();
        format.resize(2 + 50 + 4, 0);
        format.push(19);
        format.resize(format.len() + 164, 0);
        format.push(1);
        file.event(kind::FORMAT, TIME, &format);
        file
    }

    /// With its format and the state it begins with.
    fn new(state: &[(u32, u32, u64)]) -> Self {
        let mut file = Self::begin();
        let mut list = (state.len() as u32).to_le_bytes().to_vec();
        for (domain, server, sequence) in state {
            list.extend([&domain.to_le_bytes()[..], &server.to_le_bytes(), &sequence.to_le_bytes()].concat());
        }
        file.event(kind::GTID_LIST, TIME, &list);
        file
    }

    fn event(&mut self, kind: u8, time: u32, body: &[u8]) -> &mut Self {
        let next = self.0.len() + HEADER + body.len() + CHECKSUM;
        self.event_before(next as u32, kind, time, body)
    }

    /// An event that says where the next one begins.
    fn event_before(&mut self, next: u32, kind: u8, time: u32, body: &[u8]) -> &mut Self {
        let size = (HEADER + body.len() + CHECKSUM) as u32;
        let mut event = time.to_le_bytes().to_vec();
        event.push(kind);
        event.extend(1_u32.to_le_bytes());
        event.extend(size.to_le_bytes());
        event.extend(next.to_le_bytes());
        event.extend(0_u16.to_le_bytes());
        event.extend(body);
        let sum = crc32fast::hash(&event);
        self.0.extend(event);
        self.0.extend(sum.to_le_bytes());
        self
    }

    fn gtid(&mut self, sequence: u64, time: u32, flags: u8) -> &mut Self {
        let body = [&sequence.to_le_bytes()[..], &0_u32.to_le_bytes(), &[flags], &[0; 6]].concat();
        self.event(kind::GTID, time, &body)
    }

    fn query(&mut self, time: u32, text: &str) -> &mut Self {
        // Thread and duration, the length of the name of a database, an error, and the length of variables.
        let body = [&[0; 8][..], &[2], &[0; 2], &[3, 0], b"var", b"db\0", text.as_bytes()].concat();
        self.event(kind::QUERY, time, &body)
    }
}

const SOURCE: [u8; 16] = [0x3e; 16];

impl File {
    /// As MySQL begins one that comes behind five transactions.
    fn mysql() -> Self {
        let mut file = Self::begin();
        let set = [&1_u64.to_le_bytes()[..], &SOURCE, &1_u64.to_le_bytes(), &1_u64.to_le_bytes(), &6_u64.to_le_bytes()];
        file.event(kind::PREVIOUS_GTIDS, TIME, &set.concat());
        file
    }

    /// A transaction of MySQL with one event of `size` bytes behind its beginning; it says to have `more` than that.
    fn transaction(&mut self, number: u64, committed: u64, elsewhere: bool, size: usize, more: u64) -> &mut Self {
        let micros = committed * 1_000_000 + 999_999;
        let mut body = [&[1][..], &SOURCE, &number.to_le_bytes(), &[2], &[0; 16]].concat();
        body.extend(&(micros | u64::from(elsewhere) << 55).to_le_bytes()[..7]);
        if elsewhere {
            body.extend(&5_u64.to_le_bytes()[..7]);
        }
        // The length's own size is counted.
        let own = |length: u64| if length < 251 { 1 } else { 3 };
        let rest = (HEADER + body.len() + CHECKSUM + 4 + HEADER + size + CHECKSUM) as u64;
        let length = rest + own(rest + 3) + more;
        match length {
            0..251 => body.push(length as u8),
            _ => body.extend([&[252][..], &(length as u16).to_le_bytes()].concat()),
        }
        body.extend(90_704_u32.to_le_bytes());
        self.event(kind::MYSQL_GTID, TIME, &body).event(30, TIME + 1_000_000, &vec![0; size])
    }
}

#[test]
fn transactions_of_mysql_end_where_they_say() {
    let mut file = File::mysql();
    let at = u64::from(TIME);
    file.transaction(6, at + 1, false, 10, 0).transaction(7, at + 2, true, 400, 0);
    file.event(kind::ROTATE, TIME + 5, &[&4_u64.to_le_bytes()[..], b"binlog.000009"].concat());
    for step in [1, 4096] {
        let mut events = read(&file.0, step).unwrap();
        let groups = events.groups();
        let told: Vec<_> = groups.iter().map(|group| (group.gtid.to_string(), group.time - i64::from(TIME))).collect();
        let source = "3e3e3e3e-3e3e-3e3e-3e3e-3e3e3e3e3e3e";
        // When they were committed here, whatever their events say.
        assert_eq!(told, [(format!("{source}:6"), 1), (format!("{source}:7"), 2)]);
        assert_eq!(events.begin().unwrap().position(), format!("{source}:1-5"));
        assert_eq!(events.state().position(), format!("{source}:1-7"));
        assert!(events.whole().is_ok());
    }
    let told = |file: &File| read(&file.0, 50).err().unwrap();
    let mut short = File::mysql();
    short.transaction(6, at, false, 10, 1).transaction(7, at, false, 10, 0);
    assert!(told(&short).text.contains(":6 has no end before"), "{}", told(&short).text);
    let mut long = File::mysql();
    long.transaction(6, at, false, 10, 1).event(30, TIME, &[]);
    assert!(told(&long).text.contains("does not end at"), "{}", told(&long).text);
    // Shorter than its own beginning.
    let mut tiny = File::mysql();
    let body = [&[1][..], &SOURCE, &6_u64.to_le_bytes(), &[2], &[0; 16], &[0; 7], &[9]].concat();
    tiny.event(kind::MYSQL_GTID, TIME, &body);
    assert!(told(&tiny).text.contains("says to have 9 bytes"), "{}", told(&tiny).text);
    let mut old = File::mysql();
    old.event(kind::MYSQL_GTID, TIME, &[0; 42]);
    assert!(told(&old).text.contains("older than MySQL 8.0"));
    for kind in [kind::ANONYMOUS, kind::TAGGED_GTID] {
        let mut file = File::mysql();
        file.event(kind, TIME, &[0; 60]);
        assert!(told(&file).is(Cause::AccessDenied));
    }
}

/// Reads a file in pieces of some bytes.
fn read(bytes: &[u8], step: usize) -> Result<Events> {
    let mut events = Events::default();
    for piece in bytes.chunks(step) {
        events.feed(piece)?;
    }
    Ok(events)
}

/// Three transactions: one of rows, a statement by itself, and one of tables without transactions.
fn sample() -> Vec<u8> {
    let mut file = File::new(&[(0, 1, 4)]);
    file.gtid(5, TIME + 1, 0).event(30, TIME, b"rows").event(kind::XID, TIME + 2, &[0; 8]);
    file.gtid(6, TIME + 3, STANDALONE).query(TIME + 3, "create table t (n int)");
    file.gtid(7, TIME + 4, 0).query(TIME + 4, "insert").query(TIME + 4, "COMMIT");
    file.event(kind::ROTATE, TIME + 5, &[&4_u64.to_le_bytes()[..], b"bin.000009"].concat());
    file.0
}

#[test]
fn transactions_are_found_however_the_bytes_come() {
    let bytes = sample();
    for step in [1, 7, 4096] {
        let mut events = read(&bytes, step).unwrap();
        let groups = events.groups();
        let told: Vec<_> = groups.iter().map(|group| (group.gtid.to_string(), group.time - i64::from(TIME))).collect();
        assert_eq!(told, [("0-1-5".to_owned(), 2), ("0-1-6".to_owned(), 3), ("0-1-7".to_owned(), 4)]);
        assert!(groups.is_sorted_by_key(|group| group.end));
        assert_eq!(events.at(), bytes.len() as u64);
        assert_eq!(events.next().unwrap().to_string(), "bin.000009");
        assert_eq!(events.created(), Some(i64::from(TIME)));
        assert_eq!(events.begin().unwrap().position(), "0-1-4");
        assert_eq!(events.state().position(), "0-1-7");
        assert!(events.whole().is_ok() && !events.incident());
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = sample();
    let whole = |bytes: &[u8]| read(bytes, 64).and_then(|events| events.whole());
    // The format's flag that a file is being written, which no sum knows.
    let in_use = MAGIC.len() + 17;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[at] ^= 1 << bit;
            assert_eq!(whole(&other).is_ok(), at == in_use && bit == 0, "bit {bit} of byte {at}");
        }
    }
    let mut boundaries = vec![];
    let mut at = MAGIC.len();
    while at < bytes.len() {
        at += Header::read(&bytes[at..]).unwrap().size;
        boundaries.push(at);
    }
    for end in 1..bytes.len() {
        assert_eq!(whole(&bytes[..end]).is_ok(), boundaries.contains(&end), "cut at {end}");
    }
}

#[test]
fn what_does_not_follow_is_refused() {
    let bytes = sample();
    let told = |bytes: &[u8]| read(bytes, 4096).err().unwrap().text;
    let first = MAGIC.len() + Header::read(&bytes[4..]).unwrap().size;
    let list = Header::read(&bytes[first..]).unwrap().size;
    let without = [&bytes[..first], &bytes[first + list..]].concat();
    assert!(told(&without).contains("something is missing or was moved"));
    assert!(told(&[&bytes[..], &bytes[4..first]].concat()).contains("does not end where it says"));
    assert!(told(b"\xfdbin\0").contains("does not begin as a binary log does"));
    let mut file = File::new(&[]);
    file.gtid(1, TIME, 0).gtid(2, TIME, 0);
    assert!(told(&file.0).contains("transaction 0-1-1 has no end"));
    let mut file = File::new(&[]);
    file.event(kind::STOP, TIME, &[]).gtid(1, TIME, 0);
    assert!(told(&file.0).contains("behind its end"));
    let mut file = File::new(&[]);
    file.event(kind::ENCRYPTION, TIME, &[0; 17]);
    assert!(told(&file.0).contains("encrypt_binlog"));
    let mut file = File::new(&[]);
    file.event(kind::INCIDENT, TIME, &[0; 3]);
    assert!(read(&file.0, 9).unwrap().incident());
}

#[test]
fn a_position_may_be_left_out_within_a_transaction_alone() {
    let mut file = File::new(&[]);
    file.gtid(1, TIME, 0).event_before(0, kind::XID, TIME, &[0; 8]).gtid(2, TIME, 0);
    let mut events = read(&file.0, 50).unwrap();
    assert_eq!(events.groups().len(), 1);
    // What is missing within is told by what comes behind.
    let first = MAGIC.len() + Header::read(&file.0[4..]).unwrap().size;
    let (list, xid) = (Header::read(&file.0[first..]).unwrap().size, HEADER + 8 + CHECKSUM);
    let begin = first + list;
    let gtid = Header::read(&file.0[begin..]).unwrap().size;
    let without = [&file.0[..begin + gtid], &file.0[begin + gtid + xid..]].concat();
    assert!(read(&without, 50).is_err());
    let mut file = File::new(&[]);
    file.event_before(0, kind::ROTATE, TIME, &[0; 20]);
    assert!(read(&file.0, 50).err().unwrap().text.contains("does not end where it says"));
    let mut file = File::new(&[]);
    file.gtid(1, TIME, 0).event_before(7, kind::QUERY, TIME, &[0; 20]);
    assert!(read(&file.0, 50).err().unwrap().text.contains("does not end where it says"));
}

#[test]
fn only_the_last_statement_of_a_transaction_ends_it() {
    let mut file = File::new(&[]);
    file.gtid(1, TIME, 0).query(TIME, "insert into t values ('COMMIT')");
    let mut events = read(&file.0, 50).unwrap();
    assert!(events.groups().is_empty());
    file.query(TIME + 9, "ROLLBACK");
    events = read(&file.0, 50).unwrap();
    assert_eq!(events.groups().iter().map(|group| group.time).collect::<Vec<_>>(), [i64::from(TIME) + 9]);
}
