//! What the simulated disk alone can do: crash and lie.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::time::Duration;

use super::*;
use crate::storage::{File, Open, Storage};

fn create(disk: &Simulated, name: &str) -> SimulatedFile {
    disk.open(name, Open::CREATE).unwrap()
}

fn write(file: &SimulatedFile, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_at(&[IoSlice::new(bytes)], at)
}

fn read(disk: &Simulated, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name, Open::READ)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A disk with a durable file of `length` bytes `0x11`.
fn with_file(length: usize) -> (Simulated, SimulatedFile) {
    let disk = Simulated::new(7);
    let file = create(&disk, "a");
    write(&file, &vec![0x11; length], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_directory("").unwrap();
    (disk, file)
}

#[test]
fn what_was_synced_survives_any_crash() {
    let (disk, _file) = with_file(2000);
    disk.crash_keeping(|_| false);
    assert_eq!(read(&disk, "a").unwrap(), vec![0x11; 2000]);
}

#[test]
fn every_subset_of_unsynced_sectors_can_survive() {
    let (disk, file) = with_file(4 * SECTOR);
    write(&file, &[0x22; 3 * SECTOR], 100).unwrap();
    let unsynced = disk.unsynced();
    assert_eq!(
        unsynced.len(),
        4,
        "a write of 3 sectors at an odd offset touches 4"
    );
    let mut seen = BTreeSet::new();
    for subset in 0..16u32 {
        let fork = disk.fork();
        let mut index = 0;
        fork.crash_keeping(|_| {
            index += 1;
            subset >> (index - 1) & 1 == 1
        });
        let bytes = read(&fork, "a").unwrap();
        for sector in 0..4 {
            // The write begins at byte 100 of the first sector and ends at byte 100 of the last.
            let inside = if sector == 0 { 200 } else { 50 };
            let is_new = bytes[sector * SECTOR + inside] == 0x22;
            assert_eq!(
                is_new,
                subset >> sector & 1 == 1,
                "subset {subset:04b} sector {sector}"
            );
        }
        assert!(seen.insert(bytes));
    }
}

#[test]
fn sd2_the_same_seed_gives_the_same_crash() {
    let after = |seed| {
        let (disk, file) = with_file(64 * SECTOR);
        disk.reseed(seed);
        write(&file, &[0x33; 64 * SECTOR], 0).unwrap();
        disk.crash();
        read(&disk, "a").unwrap()
    };
    assert_eq!(after(1), after(1));
    assert_ne!(after(1), after(2), "64 sectors under two seeds");
}

#[test]
fn names_need_a_sync_of_their_directory() {
    let (disk, file) = with_file(10);
    let other = create(&disk, "b");
    write(&other, b"x", 0).unwrap();
    other.sync_all().unwrap();
    disk.rename("a", "c").unwrap();
    drop((file, other));

    let fork = disk.fork();
    fork.crash_keeping(|_| false);
    let names: Vec<_> = fork
        .list("")
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(
        names,
        ["a"],
        "neither the new file nor the rename was durable"
    );

    disk.sync_directory("").unwrap();
    disk.crash_keeping(|_| false);
    let names: Vec<_> = disk
        .list("")
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn a_crash_keeps_a_prefix_of_the_changes_of_a_directory() {
    let (disk, _) = with_file(10);
    for name in ["b", "c", "d"] {
        create(&disk, name);
    }
    disk.crash_keeping(|unsynced| !matches!(unsynced, Unsynced::Name { name, .. } if name == "c"));
    let names: Vec<_> = disk
        .list("")
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_rename_into_another_directory_leaves_one_name() {
    let disk = Simulated::new(1);
    disk.create_dir("pool").unwrap();
    disk.sync_directory("").unwrap();
    create(&disk, "pool/1.zero");
    disk.rename("pool/1.zero", "s").unwrap();
    disk.sync_directory("").unwrap();
    disk.crash_keeping(|_| true);
    assert!(disk.open("s", Open::READ).is_ok());
    assert!(
        disk.list("pool").unwrap().is_empty(),
        "the old name must not come back"
    );
}

#[test]
fn files_in_a_lost_directory_are_lost() {
    let disk = Simulated::new(1);
    disk.create_dir("snap").unwrap();
    create(&disk, "snap/a").sync_all().unwrap();
    disk.sync_directory("snap").unwrap();
    disk.crash_keeping(|_| false);
    assert!(disk.list("").unwrap().is_empty());
    assert!(disk.list("snap").unwrap().is_empty());
}

#[test]
fn a_failed_sync_loses_the_bytes_and_the_next_one_says_yes() {
    let (disk, file) = with_file(100);
    write(&file, &[0x22; 100], 0).unwrap();
    disk.inject(Fault::SyncError, "", 0);
    let error = file.sync_data().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    file.sync_data().unwrap();
    assert_eq!(
        read(&disk, "a").unwrap(),
        [0x22; 100],
        "the cache shows what is not there"
    );
    disk.drop_caches();
    assert_eq!(read(&disk, "a").unwrap(), [0x11; 100]);
    disk.crash_keeping(|_| true);
    assert_eq!(read(&disk, "a").unwrap(), [0x11; 100]);
}

#[test]
fn a_lying_sync_leaves_everything_to_the_crash() {
    let (disk, file) = with_file(100);
    write(&file, &[0x22; 100], 0).unwrap();
    disk.inject(Fault::SyncLies, "", 0);
    file.sync_data().unwrap();
    assert_eq!(disk.unsynced().len(), 1);
    disk.crash_keeping(|_| false);
    assert_eq!(read(&disk, "a").unwrap(), [0x11; 100]);
}

#[test]
fn a_lost_write_is_seen_until_the_crash() {
    let (disk, file) = with_file(SECTOR);
    disk.inject(Fault::WriteLost, "", 0);
    write(&file, &[0x22; SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&disk, "a").unwrap(), [0x22; SECTOR]);
    disk.crash_keeping(|_| true);
    assert_eq!(read(&disk, "a").unwrap(), [0x11; SECTOR]);
}

#[test]
fn a_misdirected_write_lands_elsewhere() {
    let (disk, file) = with_file(70 * SECTOR);
    disk.inject(Fault::WriteMisdirected, "", 0);
    write(&file, &[0x22; SECTOR], 0).unwrap();
    file.sync_data().unwrap();
    disk.crash_keeping(|_| true);
    let bytes = read(&disk, "a").unwrap();
    assert_eq!(bytes[..SECTOR], [0x11; SECTOR]);
    assert_eq!(bytes.iter().filter(|&&byte| byte == 0x22).count(), SECTOR);
}

#[test]
fn errors_come_as_the_kernel_gives_them() {
    let (disk, file) = with_file(4 * SECTOR);
    disk.inject(Fault::WriteError, "", 0);
    let error = write(&file, &[0x22; 4 * SECTOR], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!(read(&disk, "a").unwrap(), [0x11; 4 * SECTOR]);

    disk.inject(Fault::ShortWrite, "", 0);
    let error = write(&file, &[0x22; 4 * SECTOR], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    assert_eq!(
        read(&disk, "a").unwrap()[2 * SECTOR - 1..2 * SECTOR + 1],
        [0x22, 0x11]
    );

    disk.inject(Fault::ReadError, "a", 0);
    assert_eq!(
        read(&disk, "a").unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert!(read(&disk, "a").is_ok());

    disk.spoil_sector("a", 700).unwrap();
    let mut bytes = [0; SECTOR];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), SECTOR);
    assert_eq!(
        file.read_at(&mut bytes, 1).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    write(&file, &[0x22; SECTOR], 512).unwrap();
    assert_eq!(
        file.read_at(&mut bytes, 1).unwrap(),
        SECTOR,
        "a written sector is good again"
    );
}

#[test]
fn a_full_disk_takes_what_fits_and_says_so() {
    let (disk, file) = with_file(1000);
    disk.set_capacity(1500);
    assert_eq!(disk.free_bytes().unwrap(), 500);
    let error = write(&file, &[1; 1000], 1000).unwrap_err();
    assert_eq!(
        error.kind(),
        io::ErrorKind::WriteZero,
        "first it comes short"
    );
    assert_eq!(file.len().unwrap(), 1500);
    assert_eq!(disk.free_bytes().unwrap(), 0);
    let error = write(&file, &[1; 1000], 1500).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    write(&file, &[2; 1000], 0).unwrap();
    assert_eq!(
        file.set_len(1501).unwrap_err().raw_os_error(),
        Some(libc::ENOSPC)
    );
}

#[test]
fn sd3_a_handle_from_before_the_crash_reaches_nothing() {
    let (disk, file) = with_file(10);
    let lock = disk.lock("LOCK").unwrap();
    assert_eq!(
        disk.lock("LOCK").unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    disk.crash();
    assert!(write(&file, b"x", 0).is_err());
    assert!(file.len().is_err());
    let next = disk.lock("LOCK").unwrap();
    drop(lock);
    assert!(
        disk.lock("LOCK").is_err(),
        "the dead lock does not free the living one"
    );
    drop(next);
    assert!(disk.lock("LOCK").is_ok());
}

#[test]
fn sd4_a_fork_has_its_own_future() {
    let (disk, file) = with_file(10);
    let fork = disk.fork();
    write(&file, b"new bytes!", 0).unwrap();
    assert_eq!(read(&fork, "a").unwrap(), [0x11; 10]);
    fork.rot("a", 3, 0xff).unwrap();
    assert_eq!(read(&disk, "a").unwrap(), b"new bytes!");
}

#[test]
fn a_power_cut_hits_the_nth_change_and_everything_behind() {
    let (disk, file) = with_file(SECTOR);
    disk.cut_power_after(1);
    write(&file, &[0x22; SECTOR], 0).unwrap();
    assert!(file.sync_data().is_err());
    assert!(disk.is_off());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.list("").is_err());
    let fork = disk.fork();
    fork.crash_keeping(|_| true);
    assert_eq!(
        read(&fork, "a").unwrap(),
        [0x22; SECTOR],
        "the sync may have come through"
    );
    disk.crash_keeping(|_| false);
    assert_eq!(read(&disk, "a").unwrap(), [0x11; SECTOR]);
}

#[test]
fn before_the_cut_is_seen_what_was_written_and_not_what_was_under_way() {
    let (disk, file) = with_file(2 * SECTOR);
    disk.cut_power_after(1);
    write(&file, &[0x22; SECTOR], 0).unwrap();
    assert!(write(&file, &[0x33; SECTOR], SECTOR as u64).is_err());
    let before = disk.as_before_the_cut();
    let expected = [[0x22; SECTOR], [0x11; SECTOR]].concat();
    assert_eq!(read(&before, "a").unwrap(), expected);
    assert!(disk.is_off() && !before.is_off());
    // What was under way may be on the disk all the same.
    disk.crash_keeping(|_| true);
    let expected = [[0x22; SECTOR], [0x33; SECTOR]].concat();
    assert_eq!(read(&disk, "a").unwrap(), expected);
}

#[test]
fn a_durable_write_settles_itself_and_no_other() {
    let (disk, file) = with_file(4 * SECTOR);
    write(&file, &[0x22; SECTOR], 0).unwrap();
    write(&file, &[0x33; SECTOR], 3 * SECTOR as u64).unwrap();
    file.write_durable_at(&[IoSlice::new(&[0x44; SECTOR])], 0)
        .unwrap();
    disk.crash_keeping(|_| false);
    let bytes = read(&disk, "a").unwrap();
    assert_eq!(bytes[0], 0x44);
    assert_eq!(bytes[3 * SECTOR], 0x11);
}

#[test]
fn a_cut_file_does_not_show_its_old_bytes_again() {
    let (disk, file) = with_file(3000);
    file.set_len(100).unwrap();
    file.set_len(3000).unwrap();
    assert_eq!(read(&disk, "a").unwrap()[100..], [0; 2900]);
    file.sync_data().unwrap();
    disk.crash_keeping(|_| false);
    assert_eq!(read(&disk, "a").unwrap()[100..], [0; 2900]);
    assert_eq!(read(&disk, "a").unwrap()[..100], [0x11; 100]);
}

#[test]
fn waiting_moves_the_clock_and_nothing_else() {
    let disk = Simulated::new(1);
    let before = disk.now_ns();
    disk.pause(Duration::from_secs(3600));
    assert!(disk.now_ns() - before >= 3_600_000_000_000);
}
