//! The file of the counters: one writer, which maps it, and readers, which map it too.
//!
//! ```text
//!   0 magic LOCKCNTR   16 turn u64         40 updated_ns u64   64 rows × { name [u8; 56], value u64 }
//!   8 format u32 = 2   24 pid u64          48 is_running u64      then zeros to a multiple of 4096
//!  12 rows u32         32 started_ns u64   56 8 zeros
//! ```
//!
//! # Invariants
//!
//! * `CF1` Names, count and process never change in one file: an engine that starts makes a new file
//!   and renames it over the old one, so a reader's map stays whole, and is of one engine.
//! * `CF2` `turn` is odd while numbers are written and rises by two for each writing. A reader takes
//!   numbers only if it saw the same even turn before and behind them: they are of one moment.
//! * `CF3` The file has its full length, in real blocks, before anybody maps it, and never another.

#![expect(
    unsafe_code,
    reason = "a map of a file that two processes use, seen as atomics"
)]

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{Mmap, MmapMut};

use super::{Counter, Counters};

/// The file's name in the engine's directory.
pub const FILE: &str = "counters";

/// While it is made.
const TEMPORARY: &str = "counters.tmp";

const MAGIC: [u8; 8] = *b"LOCKCNTR";
const FORMAT: u32 = 2;
const HEAD_BYTES: usize = 64;
const ROW_BYTES: usize = 64;
const NAME_BYTES: usize = 56;
const PAGE_BYTES: usize = 4096;

/// More rows than this are none of ours.
const ROWS_MAX: usize = 4096;

const TURN: usize = 16;
const PID: usize = 24;
const STARTED: usize = 32;
const UPDATED: usize = 40;
const RUNNING: usize = 48;

/// Looks at a file that is being written, before a reader gives up: a writing takes microseconds,
/// unless its process was stopped in the middle of it.
const LOOKS: usize = 100_000;

/// The number at this offset of a map.
///
/// # Safety
///
/// `at` is a multiple of 8 and lies within the map; nobody holds a `&` or `&mut` to these
/// bytes that is no atomic.
unsafe fn cell(base: *const u8, at: usize) -> *const AtomicU64 {
    debug_assert!(at.is_multiple_of(8));
    // SAFETY: the caller says that it lies within the map.
    unsafe { base.add(at) }.cast()
}

fn value_at(row: usize) -> usize {
    HEAD_BYTES + row * ROW_BYTES + NAME_BYTES
}

fn bytes_of(rows: usize) -> usize {
    (HEAD_BYTES + rows * ROW_BYTES).next_multiple_of(PAGE_BYTES)
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct CounterFile {
    map: MmapMut,
    rows: usize,
}

impl CounterFile {
    /// A new file with these names, in place of the one of an earlier engine (`CF1`).
    pub(crate) fn create(directory: &Path, now_ns: u64, names: &[String]) -> io::Result<Self> {
        let names = &names[..names.len().min(ROWS_MAX)];
        let path = directory.join(TEMPORARY);
        let _stale = std::fs::remove_file(&path);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        // CF3: a store into a hole of a full disk would be a signal, a write is an error.
        file.write_all(&image(now_ns, names))?;
        // SAFETY: the file was created by us under a name that no reader opens, and whoever has the
        // directory's lock is the only one that does. Cut by force, every map of it ends.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        std::fs::rename(&path, directory.join(FILE))?;
        Ok(Self {
            map,
            rows: names.len(),
        })
    }

    /// Writes all numbers (`CF2`); there are as many as names.
    pub(crate) fn write(&mut self, now_ns: u64, values: &[u64]) {
        debug_assert!(self.rows == values.len().min(ROWS_MAX));
        let turn = self.cell(TURN).load(Ordering::Relaxed); // ORDERING: Relaxed, ours alone.
        // ORDERING: Relaxed, with the fence behind it: who sees a number sees the odd turn.
        self.cell(TURN).store(turn + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (row, value) in values.iter().enumerate().take(self.rows) {
            // ORDERING: Relaxed, between the fence and the Release.
            self.cell(value_at(row)).store(*value, Ordering::Relaxed);
        }
        // ORDERING: Relaxed, as above.
        self.cell(UPDATED).store(now_ns, Ordering::Relaxed);
        // ORDERING: Release, pairs with the Acquire of the reader's first look.
        self.cell(TURN).store(turn + 2, Ordering::Release);
    }

    /// Says that nothing will come any more.
    pub(crate) fn end(&mut self) {
        // ORDERING: Release, behind the last numbers.
        self.cell(RUNNING).store(0, Ordering::Release);
    }

    fn cell(&self, at: usize) -> &AtomicU64 {
        // SAFETY: the map is as long as `bytes_of` says for our rows, `at` is one of its multiples of
        // 8, and the map is only ever used by way of this function.
        let cell = unsafe { cell(self.map.as_ptr(), at) };
        // SAFETY: as above, and the map lives as long as we do.
        unsafe { &*cell }
    }
}

/// The whole file as it begins: numbers are 0.
fn image(now_ns: u64, names: &[String]) -> Vec<u8> {
    let mut bytes = vec![0; bytes_of(names.len())];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &MAGIC);
    put(8, &FORMAT.to_le_bytes());
    put(12, &u32::try_from(names.len()).unwrap_or(0).to_le_bytes());
    put(PID, &u64::from(std::process::id()).to_le_bytes());
    put(STARTED, &now_ns.to_le_bytes());
    put(UPDATED, &now_ns.to_le_bytes());
    put(RUNNING, &1_u64.to_le_bytes());
    for (row, name) in names.iter().enumerate() {
        let end = name.floor_char_boundary_to(NAME_BYTES);
        put(HEAD_BYTES + row * ROW_BYTES, &name.as_bytes()[..end]);
    }
    bytes
}

/// Where a name is cut that is too long.
trait CharBoundary {
    fn floor_char_boundary_to(&self, most: usize) -> usize;
}

impl CharBoundary for str {
    fn floor_char_boundary_to(&self, most: usize) -> usize {
        let mut end = self.len().min(most);
        // Ends: 0 is a boundary.
        while !self.is_char_boundary(end) {
            end -= 1;
        }
        end
    }
}

/// The counters of one engine, mapped: each look costs a copy of the numbers, and no call.
#[derive(Debug)]
pub struct Live {
    map: Mmap,
    names: Vec<String>,
}

impl Live {
    /// Maps the counters of the engine in this directory. An engine that starts later makes a new file:
    /// open again when [`Counters::is_running`] is false or `updated_ns` stands still.
    ///
    /// # Errors
    ///
    /// `NotFound` if there are none, `InvalidData` if the file is none of ours or of another version.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        let path = directory.as_ref().join(FILE);
        let file = File::open(&path)?;
        let bad = |found: String| {
            let text = format!(
                "{}: expected counters of format {FORMAT}, found {found}",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let mut head = [0; HEAD_BYTES];
        let length = file.metadata()?.len();
        if length < HEAD_BYTES as u64 {
            return Err(bad(format!("{length} bytes")));
        }
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0)?;
        if head[..8] != MAGIC {
            return Err(bad("another magic".to_owned()));
        }
        let [format, rows] = [8, 12].map(|at| u32::from_le_bytes(quarter(&head, at)));
        if format != FORMAT {
            return Err(bad(format!("format {format}")));
        }
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        if rows > ROWS_MAX || length != bytes_of(rows) as u64 {
            return Err(bad(format!("{rows} rows in {length} bytes")));
        }
        // SAFETY: the file has its length for ever (CF3), and no writer of ours cuts it. Cut by force,
        // every map of it ends.
        let map = unsafe { Mmap::map(&file) }?;
        let names = (0..rows).map(|row| name(&map, row)).collect();
        Ok(Self { map, names })
    }

    /// All numbers, of one moment.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the writer was stopped in the middle of a writing: look again later.
    pub fn look(&self) -> io::Result<Counters> {
        for _ in 0..LOOKS {
            // ORDERING: Acquire, pairs with the Release of the turn that ended the writing.
            let before = self.cell(TURN).load(Ordering::Acquire);
            if !before.is_multiple_of(2) {
                std::hint::spin_loop();
                continue;
            }
            let counters = self.take();
            fence(Ordering::Acquire);
            // ORDERING: Relaxed, with the fence before it: a writing that was met has moved the turn.
            if self.cell(TURN).load(Ordering::Relaxed) == before {
                return Ok(counters);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "the counters are being written: the engine's process is stopped, or has died in it",
        ))
    }

    fn take(&self) -> Counters {
        // ORDERING: Relaxed, between two looks at the turn.
        let number = |at: usize| self.cell(at).load(Ordering::Relaxed);
        let rows = self.names.iter().enumerate().map(|(row, name)| Counter {
            name: name.clone(),
            value: number(value_at(row)),
        });
        Counters {
            pid: number(PID),
            started_ns: number(STARTED),
            updated_ns: number(UPDATED),
            is_running: number(RUNNING) != 0,
            rows: rows.collect(),
        }
    }

    fn cell(&self, at: usize) -> &AtomicU64 {
        // SAFETY: `open` has compared the map's length with the number of rows; `at` is one of its
        // multiples of 8. Names are read once, as bytes that never change (CF1).
        let cell = unsafe { cell(self.map.as_ptr(), at) };
        // SAFETY: as above, and the map lives as long as we do. Only loads are done: the
        // pages cannot be written.
        unsafe { &*cell }
    }
}

fn quarter(bytes: &[u8], at: usize) -> [u8; 4] {
    let mut own = [0; 4];
    own.copy_from_slice(&bytes[at..at + 4]);
    own
}

fn name(map: &[u8], row: usize) -> String {
    let at = HEAD_BYTES + row * ROW_BYTES;
    let name = String::from_utf8_lossy(&map[at..at + NAME_BYTES]);
    name.trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["stage.logic.released".into(), "door.refused".into()]
    }

    #[test]
    fn what_is_written_is_read_before_meanwhile_and_behind_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let missing = super::super::read(directory.path()).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let mut file = CounterFile::create(directory.path(), 98, &names()).unwrap();
        let live = Live::open(directory.path()).unwrap();
        assert_eq!(live.look().unwrap().get("door.refused"), Some(0));
        file.write(99, &[7, u64::MAX]);
        let read = live.look().unwrap();
        assert_eq!((read.started_ns, read.updated_ns), (98, 99));
        assert_eq!(read.get("stage.logic.released"), Some(7));
        assert_eq!(read.get("door.refused"), Some(u64::MAX));
        assert_eq!(read.stages().collect::<Vec<_>>(), ["logic"]);
        assert!(read.is_running);
        file.end();
        drop(file);
        assert!(!live.look().unwrap().is_running);
        let text = Counters::prometheus(&read.rows);
        assert!(text.contains("lockstep_stage_logic_released 7\n"), "{text}");
    }

    #[test]
    fn cf1_a_reader_keeps_its_engine_when_another_one_starts() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = CounterFile::create(directory.path(), 1, &names()).unwrap();
        let live = Live::open(directory.path()).unwrap();
        let second = CounterFile::create(directory.path(), 2, &["only".to_owned()]).unwrap();
        first.write(5, &[50, 60]);
        assert_eq!(live.look().unwrap().get("door.refused"), Some(60));
        let other = super::super::read(directory.path()).unwrap();
        assert_eq!((other.started_ns, other.rows.len()), (2, 1));
        drop(second);
    }

    #[test]
    fn cf2_numbers_are_of_one_moment() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..100).map(|row| format!("row.{row}")).collect();
        let mut file = CounterFile::create(directory.path(), 0, &names).unwrap();
        let live = Live::open(directory.path()).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for turn in 1..=2_000_u64 {
                    file.write(turn, &vec![turn; 100]);
                }
            });
            // Ends: with the writer.
            while !writer.is_finished() {
                let Ok(read) = live.look() else { continue };
                let first = read.updated_ns;
                assert!(read.rows.iter().all(|row| row.value == first), "{read:?}");
            }
        });
        assert_eq!(live.look().unwrap().get("row.99"), Some(2_000));
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let whole = image(1, &names());
        for length in [0, 8, 63, 64, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = Live::open(directory.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
        for (at, text) in [(0, "magic"), (8, "format"), (13, "rows")] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&path, bytes).unwrap();
            let error = Live::open(directory.path()).unwrap_err().to_string();
            assert!(
                error.contains(text) && error.contains("counters"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_writer_that_died_in_the_middle_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = image(1, &names());
        bytes[TURN] = 3;
        std::fs::write(directory.path().join(FILE), bytes).unwrap();
        let error = super::super::read(directory.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
