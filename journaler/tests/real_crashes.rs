#![expect(
    unsafe_code,
    reason = "cutting a file system's power and dropping its cache are system calls"
)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the whole file is a test: a failure panics, a skip is said aloud, and the child tells what is durable"
)]
//! Crashes of the real thing: a writer that is killed, a file system whose power
//! is cut under it, and a sync that really fails.
//!
//! The simulated disk explores; this shows that the real disk, the kernel and
//! [`Disk`] behave as it believes. `docs/CRASHES.md` tells how to run more rounds
//! (`LOCKSTEP_CRASH_ROUNDS`). The last two want root and loop devices, and say so
//! aloud when they are skipped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytemuck::{Pod, Zeroable};
use lockstep_journaler::storage::{Disk, File as _, Open, Storage as _};
use lockstep_journaler::{
    Background, Cutter, Frame, From, Journal, Mode, Options, Pace, Position, WriteError,
};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Step {
    time_ns: u64,
    number: u64,
}

lockstep_journaler::schema! {
    STEPS: "test.steps" version 1 for Step, one kind;
    header { time_ns: time; number: plain; }
    0 = "step" as Step {}
}

/// One test at a time: between fork and exec a child has all descriptors of this process, and
/// with them the locks and mounts of the tests beside.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the child that it is one, and where to write.
const CHILD_DIR: &str = "LOCKSTEP_CRASH_CHILD_DIR";
const CHILD_MODE: &str = "LOCKSTEP_CRASH_CHILD_MODE";
/// How many crashes; more for a campaign.
const ROUNDS: &str = "LOCKSTEP_CRASH_ROUNDS";

fn rounds(default: u64) -> u64 {
    std::env::var(ROUNDS).map_or(default, |text| text.parse().unwrap())
}

fn options(mode: Mode) -> Options {
    let mut options = Options::new(&STEPS)
        .with_segment_bytes(1 << 20)
        .with_mode(mode);
    options.prepare_pause = Duration::ZERO;
    options.allow_volatile_medium = true;
    options
}

fn mode_of(word: &str) -> Mode {
    if word == "direct" {
        Mode::Direct
    } else {
        Mode::Sync
    }
}

/// Writes one group of `count` steps, or of a number that changes, and does not sync it.
fn write_group(
    journal: &mut Journal<Disk>,
    cutter: &mut Cutter,
    count: Option<u64>,
) -> Result<Position, WriteError> {
    let first = cutter.tail().reached.position.0;
    let count = count.unwrap_or(1 + first * 7 % 300);
    let steps: Vec<Step> = (first..first + count)
        .map(|number| Step {
            time_ns: number,
            number,
        })
        .collect();
    let body: [&[u8]; 2] = [bytemuck::cast_slice(&steps), &[]];
    let header = cutter.cut(body, first);
    journal
        .write(&[Frame {
            header: &header,
            body,
        }])
        .map(|reached| reached.position)
}

/// The writer: acknowledges on stdout what is durable, until it is killed or the disk is gone.
#[test]
fn a_child_writes_until_its_end() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let mode = mode_of(&std::env::var(CHILD_MODE).unwrap_or_default());
    let (mut journal, _) = Journal::open(Disk::at(dir).unwrap(), &options(mode)).unwrap();
    let mut cutter = journal.cutter();
    println!();
    loop {
        if write_group(&mut journal, &mut cutter, None).is_err() {
            break;
        }
        let Ok(durable) = journal.sync() else { break };
        println!("durable {}", durable.position);
        std::io::stdout().flush().unwrap();
    }
    // Without this the test harness would wait for a tidy end that a crash does not have.
    std::process::exit(0);
}

struct Writer {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(dir: &Path, mode: &str) -> Writer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_child_writes_until_its_end", "--nocapture"])
            .env(CHILD_DIR, dir)
            .env(CHILD_MODE, mode)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Writer { child, out }
    }

    /// Waits for so many acknowledgements and gives the last.
    fn acknowledgements(&mut self, count: u64) -> u64 {
        let mut last = None;
        let mut seen = 0;
        while seen < count {
            let mut line = String::new();
            assert!(
                self.out.read_line(&mut line).unwrap() > 0,
                "the writer ended by itself"
            );
            if let Some(position) = durable_in(&line) {
                last = Some(position);
                seen += 1;
            }
        }
        last.unwrap()
    }

    /// Kills it, and gives the last acknowledgement that it had sent.
    fn kill(mut self) -> Option<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        // The last line may be cut.
        let _ = self.out.read_to_string(&mut rest);
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(durable_in).next_back()
    }
}

fn durable_in(line: &str) -> Option<u64> {
    line.trim().strip_prefix("durable ")?.parse().ok()
}

/// Opens what a crash has left: everything acknowledged is there, dense and as it was written.
fn must_hold(dir: &Path, mode: &str, acknowledged: u64) -> u64 {
    let (journal, recovered) =
        Journal::open(Disk::at(dir).unwrap(), &options(mode_of(mode))).unwrap();
    let reached = recovered.reached.position.0;
    assert!(
        reached >= acknowledged,
        "acknowledged {acknowledged}, recovered {reached}: {recovered:?}"
    );
    let mut reader = journal.reader(From::Oldest).unwrap();
    let mut next = 0;
    while let Some(frame) = reader.next_frame().unwrap() {
        for step in frame.events::<Step>().unwrap() {
            assert_eq!((step.number, step.time_ns), (next, next));
            next += 1;
        }
    }
    assert_eq!(next, reached, "dense up to the end");
    reached
}

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path =
            std::env::temp_dir().join(format!("lockstep-crash-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let _turn = turn();
    for mode in ["sync", "direct"] {
        let place = Place::new(&format!("kill-{mode}"));
        let dir = place.dir("j");
        let mut reached = 0;
        for round in 0..rounds(6) {
            let mut writer = Writer::start(&dir, mode);
            let acknowledged = writer.acknowledgements(1 + round * 13 % 40);
            assert!(acknowledged > reached, "it goes on where the crash left it");
            let acknowledged = writer.kill().unwrap_or(acknowledged);
            reached = must_hold(&dir, mode, acknowledged);
        }
        println!(
            "{mode}: {reached} events through {} kills, none lost",
            rounds(6)
        );
    }
}

/// An ext4 file system of its own on a loop device, whose backing file is in a tmpfs.
struct Mounted {
    place: Place,
    tmpfs: PathBuf,
    image: PathBuf,
    at: PathBuf,
}

impl Mounted {
    /// `None`, loudly, where that is not possible.
    fn new(name: &str, tmpfs_bytes: u64, image_bytes: u64) -> Option<Mounted> {
        let place = Place::new(name);
        let (tmpfs, at) = (place.dir("tmpfs"), place.dir("mount"));
        let image = tmpfs.join("image");
        let mounted = Mounted {
            place,
            tmpfs,
            image,
            at,
        };
        let size = format!("size={tmpfs_bytes}");
        let is_made = run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "none", path(&mounted.tmpfs)],
        ) && fs::File::create(&mounted.image)
            .is_ok_and(|file| file.set_len(image_bytes).is_ok())
            && run(
                "mkfs.ext4",
                &[
                    "-q",
                    "-b",
                    "4096",
                    "-E",
                    "lazy_itable_init=0,lazy_journal_init=0",
                    path(&mounted.image),
                ],
            )
            && mounted.mount();
        if is_made {
            return Some(mounted);
        }
        eprintln!(
            "\nSKIPPED {name}: it wants root, mount, mkfs.ext4 and loop devices, and one of them is missing here\n"
        );
        None
    }

    fn mount(&self) -> bool {
        run("mount", &["-o", "loop", path(&self.image), path(&self.at)])
    }

    fn unmount(&self) -> bool {
        run("umount", &[path(&self.at)])
    }

    /// The power goes: what was not synced is gone, the file system's own log included.
    fn cut_power(&self) {
        const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        // NOLOGFLUSH.
        let flags: u32 = 2;
        let directory = fs::File::open(&self.at).unwrap();
        // SAFETY: the ioctl wants (1) an open descriptor on the file system: `directory` is;
        // (2) a pointer to a u32 of flags, which it only reads: `flags`.
        let answer =
            unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.unmount();
        run("umount", &[path(&self.tmpfs)]);
        let _ = fs::remove_dir_all(&self.place.0);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_power_cut_of_a_real_file_system_loses_nothing_acknowledged() {
    let _turn = turn();
    let Some(mounted) = Mounted::new("power", 96 << 20, 80 << 20) else {
        return;
    };
    // The control: what is not made durable is lost, so this does cut the power.
    let (old, new) = (mounted.at.join("name"), mounted.at.join("name.tmp"));
    write_durably(&old, b"old");
    fs::File::open(&mounted.at).unwrap().sync_all().unwrap();
    write_durably(&new, b"new");
    fs::rename(&new, &old).unwrap();
    mounted.cut_power();
    assert!(mounted.unmount() && mounted.mount());
    assert_eq!(
        fs::read(&old).unwrap(),
        b"old",
        "a rename without a sync of its directory must be lost"
    );

    let dir = mounted.at.join("j");
    fs::create_dir(&dir).unwrap();
    fs::File::open(&mounted.at).unwrap().sync_all().unwrap();
    let (mut lost_in_flight, mut reached) = (0, 0);
    for round in 0..rounds(4) {
        let mode = if round % 2 == 0 { "sync" } else { "direct" };
        let mut writer = Writer::start(&dir, mode);
        let before = writer.acknowledgements(1 + round * 17 % 50);
        mounted.cut_power();
        // A sync that was under way may have said yes while the power went.
        let in_flight = writer.kill().unwrap_or(before);
        assert!(
            mounted.unmount() && mounted.mount(),
            "the file system comes back"
        );
        reached = must_hold(&dir, mode, before);
        lost_in_flight += u64::from(reached < in_flight);
    }
    println!(
        "{} power cuts, {reached} events, none lost that was acknowledged before; {lost_in_flight} whose \
         sync was under way",
        rounds(4)
    );
}

fn write_durably(path: &Path, bytes: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// So many steps make a group of one page with mark and header. A group that began in a block
/// that has its room and ended in one that has none would be called written by the loop
/// device as a whole: a disk that lies (`docs/CRASHES.md`).
const PAGE: u64 = (4096 - 128) / 16;

/// Bytes of the raw file that shows what the kernel does.
const RAW_BYTES: u64 = 64 * 1024;

#[test]
fn a_sync_that_really_fails_poisons_the_journal() {
    let _turn = turn();
    let Some(mounted) = Mounted::new("failed-sync", 64 << 20, 48 << 20) else {
        return;
    };
    let dir = mounted.at.join("j");
    fs::create_dir(&dir).unwrap();
    let raw = mounted.at.join("raw");
    write_durably(&raw, &vec![0; usize::try_from(RAW_BYTES).unwrap()]);
    let mut stepped = options(Mode::Sync);
    stepped.background = Background::Stepped;
    let (mut journal, _) = Journal::open(Disk::at(&dir).unwrap(), &stepped).unwrap();
    let mut cutter = journal.cutter();
    write_group(&mut journal, &mut cutter, Some(PAGE)).unwrap();
    let durable = journal.sync().unwrap();
    while journal.step_background() == Pace::Busy {}
    assert!(run("sync", &["-f", path(&mounted.at)]));

    // A thin disk runs full: blocks that hold zeros give their room back, something else takes it.
    assert!(run("fallocate", &["--dig-holes", path(&mounted.image)]));
    fill(&mounted.tmpfs.join("filler"));

    the_kernel_says_yes_the_second_time(&raw);

    let failed = loop {
        match write_group(&mut journal, &mut cutter, Some(PAGE)) {
            Err(error) => break error.to_string(),
            Ok(_) => {
                if let Err(poisoned) = journal.sync() {
                    break poisoned.to_string();
                }
            }
        }
    };
    let promised = journal.progress().durable();
    assert!(promised.position >= durable.position);
    assert!(
        journal.sync().is_err(),
        "asked again, it does not believe the kernel"
    );
    assert!(write_group(&mut journal, &mut cutter, Some(PAGE)).is_err());
    assert_eq!(
        journal.progress().durable(),
        promised,
        "the promise does not move any more"
    );
    drop(journal);

    fs::remove_file(mounted.tmpfs.join("filler")).unwrap();
    assert!(mounted.unmount() && mounted.mount(), "there is room again");
    let reached = must_hold(&dir, "sync", promised.position.0);
    println!(
        "failed with: {failed}; {} promised, {reached} recovered",
        promised.position
    );
}

/// Writes until there is no room at all.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096] {
        let piece = vec![0x77; size];
        while file.write_all(&piece).is_ok() {}
    }
}

/// Why a sync is never tried again: the first fails, the second says yes, and the disk has
/// neither; the same by `Disk` and its file.
fn the_kernel_says_yes_the_second_time(raw: &Path) {
    let storage = Disk::at(raw.parent().unwrap()).unwrap();
    let file = storage.open("raw", Open::WRITE).unwrap();
    let bytes = vec![0x55; usize::try_from(RAW_BYTES).unwrap()];
    file.write_at(&[std::io::IoSlice::new(&bytes)], 0).unwrap();
    let first = file.sync_data();
    let second = file.sync_data();
    assert!(first.is_err(), "the disk is full: {first:?}");
    let mut read = vec![0; bytes.len()];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(
        second.is_err() || read == bytes,
        "the cache shows what was written"
    );
    let plain = fs::File::open(raw).unwrap();
    // SAFETY: the call wants an open descriptor and no memory of ours.
    unsafe { libc::posix_fadvise(plain.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let is_there = plain.read_exact_at(&mut read, 0).is_ok() && read == bytes;
    println!(
        "fdatasync: {:?}, then {:?}; on the disk: {is_there}",
        first.err(),
        second.err()
    );
    assert!(
        !is_there,
        "the disk has not got the bytes, whatever the second sync said"
    );
}
