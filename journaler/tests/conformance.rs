//! One suite for every storage: what the trait promises, on the real disk, the
//! simulated one, and each of them behind the wrapper that can make calls fail.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "the whole file is a test: a failure panics, and a skip is said aloud"
)]

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use lockstep_journaler::storage::{
    DIRECT_ALIGN, Disk, Errno, Faulty, File, Mapped, Open, Operation, Simulated, Storage,
};

/// Runs one check of the suite on each storage.
macro_rules! conformance {
    ($($check:ident),+ $(,)?) => {
        mod on_disk {
            $(#[test] fn $check() {
                let place = super::Place::new(stringify!($check));
                super::$check(&place.disk);
            })+
        }
        mod on_simulated {
            $(#[test] fn $check() {
                super::$check(&super::Simulated::new(1));
            })+
        }
        mod behind_faulty {
            $(#[test] fn $check() {
                let place = super::Place::new(concat!("faulty_", stringify!($check)));
                super::$check(&super::Faulty::new(place.disk.clone()));
                super::$check(&super::Faulty::new(super::Simulated::new(1)));
            })+
        }
    };
}

conformance!(
    a_new_file_is_empty_and_must_be_new,
    bytes_come_back_as_they_were_written,
    reading_stops_at_the_end,
    a_gap_reads_as_zeros,
    many_pieces_are_one_write,
    a_long_write_is_a_write,
    a_long_direct_write_is_filled_in_order,
    a_durable_write_is_a_write,
    direct_access_wants_alignment,
    the_length_can_be_cut_and_grown,
    a_rename_replaces,
    names_are_listed_by_directory,
    directories_come_and_go,
    names_stay_below_the_root,
    a_lock_is_held_once,
    a_sealed_file_is_mapped,
    a_map_of_more_than_there_is_is_refused,
    a_removed_file_is_readable_while_open,
    what_is_forgotten_is_still_there,
    a_file_is_alone_while_nobody_else_has_it_open,
    the_clock_does_not_go_back,
);

/// A directory of the real disk, gone with the test.
struct Place {
    disk: Disk,
}

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("lockstep-{}-{name}", std::process::id()));
        Place {
            disk: Disk::create(path).unwrap(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.disk.root());
    }
}

fn write(file: &impl File, bytes: &[u8], at: u64) {
    file.write_at(&[IoSlice::new(bytes)], at).unwrap();
}

fn read(file: &impl File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn names(storage: &impl Storage, directory: &str) -> Vec<String> {
    storage
        .list(directory)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}

fn a_new_file_is_empty_and_must_be_new<S: Storage>(storage: &S) {
    assert_eq!(
        storage.open("a", Open::READ).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        storage.open("a", Open::WRITE).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(storage.open("a", Open::CREATE).unwrap().is_empty().unwrap());
    assert_eq!(
        storage.open("a", Open::CREATE).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert!(storage.open("a", Open::WRITE).is_ok());
    assert_eq!(
        storage.open("d/a", Open::CREATE).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

fn bytes_come_back_as_they_were_written<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    let bytes: Vec<u8> = (0..10_000u32).map(|at| (at % 251) as u8).collect();
    write(&file, &bytes, 0);
    write(&file, b"inside", 5000);
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    let mut expected = bytes;
    expected[5000..5006].copy_from_slice(b"inside");
    assert_eq!(read(&file), expected);
    assert_eq!(read(&storage.open("a", Open::READ).unwrap()), expected);
    let readonly = storage.open("a", Open::READ).unwrap();
    assert!(readonly.write_at(&[IoSlice::new(b"x")], 0).is_err());
}

fn reading_stops_at_the_end<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    write(&file, b"12345", 0);
    let mut bytes = [0xee; 8];
    assert_eq!(file.read_at(&mut bytes, 2).unwrap(), 3);
    assert_eq!(&bytes, b"345\xee\xee\xee\xee\xee");
    assert_eq!(file.read_at(&mut bytes, 5).unwrap(), 0);
    assert_eq!(file.read_at(&mut bytes, 500).unwrap(), 0);
    assert_eq!(
        file.read_exact_at(&mut bytes, 2).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
}

fn a_gap_reads_as_zeros<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    write(&file, b"end", 9000);
    let bytes = read(&file);
    assert_eq!(bytes.len(), 9003);
    assert!(bytes[..9000].iter().all(|&byte| byte == 0));
    assert_eq!(&bytes[9000..], b"end");
}

fn many_pieces_are_one_write<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    let pieces: Vec<[u8; 3]> = (0..2500u32).map(|at| [(at % 7) as u8, 1, 2]).collect();
    let parts: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    file.write_at(&parts, 10).unwrap();
    assert_eq!(read(&file)[10..], pieces.concat());
    file.write_at(&[], 0).unwrap();
    file.write_at(&[IoSlice::new(b"")], 0).unwrap();
    assert_eq!(file.len().unwrap(), 10 + 7500);
}

/// Bytes of which no two neighbouring kilobytes are alike.
fn bytes_of(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| at.wrapping_mul(0x9e37_79b9).to_le_bytes()[2])
        .collect()
}

/// Long enough to go out in pieces, from and to odd places, in slices of odd lengths.
fn a_long_write_is_a_write<S: Storage>(storage: &S) {
    let bytes = bytes_of(1_500_003);
    for (name, at, longest) in [("a", 0, 700_001), ("b", 4_097, 1_009), ("c", 262_143, 64)] {
        let parts: Vec<IoSlice<'_>> = bytes.chunks(longest).map(IoSlice::new).collect();
        let file = storage.open(name, Open::CREATE).unwrap();
        file.write_onward_at(&parts, at).unwrap();
        file.sync_data().unwrap();
        let found = read(&file);
        let at = usize::try_from(at).unwrap();
        assert!(found[..at].iter().all(|&byte| byte == 0), "{name}");
        assert!(found[at..] == bytes, "{name}");
    }
    let file = storage.open("a", Open::READ).unwrap();
    let refused = file.write_onward_at(&[IoSlice::new(&bytes)], 0);
    assert!(refused.is_err(), "a file opened for reading");
}

fn a_long_direct_write_is_filled_in_order<S: Storage>(storage: &S) {
    if let Err(error) = storage.open("probe", Open::CREATE.direct()) {
        eprintln!("SKIPPED: this file system has no direct access: {error}");
        return;
    }
    // Shorter than a piece, just long enough for some, and more of them than fit one queue.
    for pages in [1, 129, 2_100] {
        let name = format!("{pages}");
        let expected = bytes_of(pages * DIRECT_ALIGN);
        drop(storage.open(&name, Open::CREATE).unwrap());
        let file = storage.open(&name, Open::WRITE.direct()).unwrap();
        file.set_len((pages as u64 + 1) * DIRECT_ALIGN as u64)
            .unwrap();
        let mut memory = vec![0; expected.len() + DIRECT_ALIGN];
        let skip = memory.as_ptr().align_offset(DIRECT_ALIGN);
        let buffer = &mut memory[skip..skip + expected.len()];
        buffer[..100].copy_from_slice(&expected[..100]);
        let mut filled = 100;
        file.write_durable_filled(buffer, 100, DIRECT_ALIGN as u64, &mut |piece| {
            piece.copy_from_slice(&expected[filled..filled + piece.len()]);
            filled += piece.len();
        })
        .unwrap();
        assert_eq!(filled, expected.len(), "{name}");
        let found = read(&storage.open(&name, Open::READ).unwrap());
        assert!(found[DIRECT_ALIGN..] == expected, "{name}");
        let refused = file.write_durable_filled(buffer, buffer_length(pages), 100, &mut |_| {});
        assert!(refused.is_err(), "an odd offset: {name}");
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            file.write_durable_filled(buffer, 100, 0, &mut |_| {
                panic!("while pieces are under way")
            })
        }));
        assert!(unwound.is_err(), "{name}");
        file.write_durable_filled(buffer, buffer_length(pages), 0, &mut |_| {})
            .unwrap();
        let found = read(&storage.open(&name, Open::READ).unwrap());
        assert!(
            found[..expected.len()] == expected,
            "behind a panic: {name}"
        );
    }
}

fn buffer_length(pages: usize) -> usize {
    pages * DIRECT_ALIGN
}

fn a_durable_write_is_a_write<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    file.set_len(100).unwrap();
    file.write_durable_at(&[IoSlice::new(b"abc"), IoSlice::new(b"def")], 50)
        .unwrap();
    assert_eq!(&read(&file)[48..58], b"\0\0abcdef\0\0");
}

fn direct_access_wants_alignment<S: Storage>(storage: &S) {
    let aligned = |fill: u8| {
        Mapped::copied(4 * DIRECT_ALIGN, |bytes| {
            bytes.fill(fill);
            Ok(())
        })
        .unwrap()
    };
    let memory = aligned(0x5a);
    let skip = memory.as_ptr().align_offset(DIRECT_ALIGN);
    let page = &memory[skip..skip + DIRECT_ALIGN];
    let file = match storage.open("a", Open::CREATE.direct()) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("SKIPPED: this file system has no direct access: {error}");
            return;
        }
    };
    file.set_len(2 * DIRECT_ALIGN as u64).unwrap();
    file.write_durable_at(&[IoSlice::new(page)], DIRECT_ALIGN as u64)
        .unwrap();
    assert!(
        file.write_at(&[IoSlice::new(&page[..100])], 0).is_err(),
        "an odd length"
    );
    assert!(
        file.write_at(&[IoSlice::new(page)], 100).is_err(),
        "an odd offset"
    );
    let buffered = storage.open("a", Open::READ).unwrap();
    assert_eq!(read(&buffered)[DIRECT_ALIGN..], *page);
    assert!(
        read(&buffered)[..DIRECT_ALIGN]
            .iter()
            .all(|&byte| byte == 0)
    );
}

fn the_length_can_be_cut_and_grown<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    write(&file, &[9; 6000], 0);
    file.set_len(10).unwrap();
    assert_eq!(read(&file), [9; 10]);
    file.set_len(6000).unwrap();
    let bytes = read(&file);
    assert_eq!(bytes[..10], [9; 10]);
    assert!(
        bytes[10..].iter().all(|&byte| byte == 0),
        "cut bytes do not come back"
    );
}

fn what_is_forgotten_is_still_there<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    let mut bytes = vec![3; 40_000];
    write(&file, &bytes, 0);
    file.sync_data().unwrap();
    bytes[10_000..20_000].fill(4);
    write(&file, &bytes[10_000..20_000], 10_000);
    for end in [0, 1, 15_000, 40_000, u64::MAX] {
        file.forget(end);
        assert!(read(&file) == bytes, "before {end}");
    }
}

/// Advice may go unheard: this says whether it is heard where it matters.
#[test]
fn what_is_forgotten_is_not_in_memory() {
    let place = Place::new("forgotten");
    if !place.disk.medium().unwrap().is_durable {
        eprintln!("SKIPPED: no disk under the temporary directory");
        return;
    }
    let bytes = vec![3; 1 << 20];
    let file = place.disk.open("a", Open::CREATE).unwrap();
    write(&file, &bytes, 0);
    file.sync_all().unwrap();
    let is_in_memory = || file.map(bytes.len() as u64).unwrap().is_resident();
    assert!(is_in_memory());
    file.forget(bytes.len() as u64);
    assert!(!is_in_memory());
    assert!(read(&file) == bytes);
}

fn a_file_is_alone_while_nobody_else_has_it_open<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    assert!(file.is_alone());
    let other = storage.open("a", Open::READ).unwrap();
    assert!(!file.is_alone());
    drop(other);
    assert!(file.is_alone());
}

fn a_rename_replaces<S: Storage>(storage: &S) {
    write(&storage.open("a", Open::CREATE).unwrap(), b"a", 0);
    write(&storage.open("b", Open::CREATE).unwrap(), b"b", 0);
    storage.rename("a", "b").unwrap();
    storage.sync_directory("").unwrap();
    assert_eq!(names(storage, ""), ["b"]);
    assert_eq!(read(&storage.open("b", Open::READ).unwrap()), b"a");
    assert_eq!(
        storage.rename("a", "c").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

fn names_are_listed_by_directory<S: Storage>(storage: &S) {
    assert!(names(storage, "").is_empty());
    assert!(
        names(storage, "nowhere").is_empty(),
        "a missing directory holds nothing"
    );
    storage.create_dir("d").unwrap();
    write(&storage.open("d/x", Open::CREATE).unwrap(), b"123", 0);
    write(&storage.open("b", Open::CREATE).unwrap(), b"1", 0);
    storage.open("a", Open::CREATE).unwrap();
    assert_eq!(names(storage, ""), ["a", "b", "d"]);
    let inside = storage.list("d").unwrap();
    assert_eq!(
        (inside.len(), inside[0].name.as_str(), inside[0].length),
        (1, "x", 3)
    );
    assert!(storage.list("").unwrap()[2].is_directory);
}

fn directories_come_and_go<S: Storage>(storage: &S) {
    assert_eq!(
        storage.create_dir("d/e").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    storage.create_dir("d").unwrap();
    storage.create_dir("d").unwrap();
    storage.create_dir("d/e").unwrap();
    storage.sync_directory("d").unwrap();
    assert_eq!(
        storage.remove_dir("d").unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
    storage.remove_dir("d/e").unwrap();
    storage.remove_dir("d").unwrap();
    assert_eq!(
        storage.remove_dir("d").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    storage.open("f", Open::CREATE).unwrap();
    assert_eq!(
        storage.create_dir("f").unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert!(storage.sync_directory("nowhere").is_err());
}

fn names_stay_below_the_root<S: Storage>(storage: &S) {
    for bad in ["", "/x", "../x", "a/../b", "a//b", "."] {
        let refused = ErrorKind::InvalidInput;
        assert_eq!(
            storage.open(bad, Open::CREATE).unwrap_err().kind(),
            refused,
            "{bad:?}"
        );
        assert_eq!(storage.remove(bad).unwrap_err().kind(), refused, "{bad:?}");
        assert_eq!(
            storage.rename("a", bad).unwrap_err().kind(),
            refused,
            "{bad:?}"
        );
        assert_eq!(
            storage.create_dir(bad).unwrap_err().kind(),
            refused,
            "{bad:?}"
        );
    }
}

fn a_lock_is_held_once<S: Storage>(storage: &S) {
    assert_eq!(storage.holder("LOCK").unwrap(), None);
    let held = storage.lock("LOCK").unwrap();
    assert!(
        storage
            .holder("LOCK")
            .unwrap()
            .is_some_and(|holder| !holder.is_empty())
    );
    let refused = storage.clone().lock("LOCK").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    assert!(!refused.to_string().is_empty(), "the holder is named");
    drop(held);
    assert_eq!(storage.holder("LOCK").unwrap(), None);
    storage.lock("LOCK").unwrap();
}

fn a_sealed_file_is_mapped<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    let bytes: Vec<u8> = (0..9000u32).map(|at| (at % 253) as u8).collect();
    write(&file, &bytes, 0);
    storage.set_read_only("a").unwrap();
    let file = storage.open("a", Open::READ).unwrap();
    let map = file.map(8999).unwrap();
    assert_eq!(map[..], bytes[..8999]);
    assert_eq!(map.as_ptr().align_offset(64), 0);
    assert!(file.map(0).unwrap().is_empty());
}

#[test]
fn a_file_that_is_mapped_is_not_alone() {
    let place = Place::new("alone");
    let file = place.disk.open("a", Open::CREATE).unwrap();
    write(&file, &[7; 10_000], 0);
    assert!(file.is_alone());
    let reader = place.disk.open("a", Open::READ).unwrap();
    assert!(!file.is_alone(), "it is open");
    let map = reader.map(10_000).unwrap();
    drop(reader);
    assert!(!file.is_alone(), "it is mapped");
    drop(map);
    assert!(file.is_alone());
}

fn a_map_of_more_than_there_is_is_refused<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    write(&file, b"123", 0);
    assert_eq!(file.map(4).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

fn a_removed_file_is_readable_while_open<S: Storage>(storage: &S) {
    let file = storage.open("a", Open::CREATE).unwrap();
    write(&file, b"123", 0);
    storage.remove("a").unwrap();
    storage.sync_directory("").unwrap();
    assert!(names(storage, "").is_empty());
    assert_eq!(read(&file), b"123");
    assert_eq!(storage.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
}

fn the_clock_does_not_go_back<S: Storage>(storage: &S) {
    let before = storage.now_ns();
    storage.pause(Duration::from_millis(2));
    assert!(storage.now_ns() >= before + 2_000_000);
    assert!(storage.free_bytes().unwrap() > 0);
    assert!(!storage.medium().unwrap().name.is_empty());
}

#[test]
fn the_wrapper_fails_the_call_that_was_asked_for() {
    let place = Place::new("faults");
    let storage = Faulty::new(place.disk.clone());
    let file = storage.open("journal.seg", Open::CREATE).unwrap();
    let other = storage.open("meta", Open::CREATE).unwrap();
    storage.fail_once(Operation::Write, ".seg", 1, Errno::Io);
    write(&file, b"first", 0);
    write(&other, b"not counted", 0);
    let error = file.write_at(&[IoSlice::new(b"second")], 5).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    write(&file, b"third", 5);
    assert_eq!(read(&file), b"firstthird");

    storage.fail_from(Operation::Sync, "", 0, Errno::Full);
    for _ in 0..3 {
        assert_eq!(
            file.sync_data().unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
    }
    storage.heal();
    file.sync_data().unwrap();
}
