//! Positions and counts for other processes: a file that a cold thread keeps up to date.
//!
//! ```text
//!   0 magic LOCKCNTR   12 rows u32        24 pid         u64    40 zeros
//!   8 format u32       16 generation u64  32 updated_ns  u64    64 rows × { name [u8; 56], value u64 }
//!                                                               behind them: generation u64, again
//! ```
//!
//! Little-endian. The whole file is written at once, and small enough for one page; a reader
//! that finds two different generations reads again. The hot path is not touched: the thread
//! reads what the stages publish anyway.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The file's name in the engine's directory.
pub const FILE: &str = "counters";

const MAGIC: [u8; 8] = *b"LOCKCNTR";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 64;
const ROW_BYTES: usize = 64;
const NAME_BYTES: usize = 56;

/// More rows than this are none of ours: a page holds them.
const ROWS_MAX: usize = 62;

/// Looks at a file that is being written, before it is taken for damaged.
const LOOKS: usize = 100;

/// One name and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// `stage.journal.released`
    pub name: String,
    /// The number.
    pub value: u64,
}

/// What a look at the file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// The process that writes it, or wrote it last.
    pub pid: u64,
    /// When it was written, in nanoseconds since 1970.
    pub updated_ns: u64,
    /// The counters, in their order.
    pub rows: Vec<Counter>,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct CounterFile {
    file: File,
    generation: u64,
    bytes: Vec<u8>,
}

impl CounterFile {
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Self {
            file,
            generation: 0,
            bytes: Vec::with_capacity(4096),
        })
    }

    /// Writes all rows.
    pub(crate) fn write(&mut self, now_ns: u64, rows: &[Counter]) -> io::Result<()> {
        let rows = &rows[..rows.len().min(ROWS_MAX)];
        self.generation += 1;
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(rows.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&u64::from(std::process::id()).to_le_bytes());
        bytes.extend_from_slice(&now_ns.to_le_bytes());
        bytes.resize(HEAD_BYTES, 0);
        for row in rows {
            let mut name = [0; NAME_BYTES];
            let length = row.name.len().min(NAME_BYTES);
            name[..length].copy_from_slice(&row.name.as_bytes()[..length]);
            bytes.extend_from_slice(&name);
            bytes.extend_from_slice(&row.value.to_le_bytes());
        }
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        self.file.write_all_at(bytes, 0)
    }
}

impl Counters {
    /// Reads the counters of the engine in this directory, running or not.
    ///
    /// # Errors
    ///
    /// `NotFound` if there are none, `InvalidData` if the file is none of ours.
    pub fn read(directory: impl AsRef<Path>) -> io::Result<Self> {
        let path = directory.as_ref().join(FILE);
        for _ in 0..LOOKS {
            let bytes = std::fs::read(&path)?;
            if let Some(counters) = decode(&bytes) {
                return Ok(counters);
            }
        }
        let text = format!(
            "{}: expected counters of format {FORMAT}, found something else",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// The number of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.rows
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.value)
    }

    /// As Prometheus wants it, names with underscores behind `lockstep_`.
    #[must_use]
    pub fn prometheus(rows: &[Counter]) -> String {
        let mut text = String::new();
        for row in rows {
            let name = row.name.replace(['.', '-'], "_");
            text.push_str(&format!(
                "# TYPE lockstep_{name} gauge\nlockstep_{name} {}\n",
                row.value
            ));
        }
        text
    }
}

fn decode(bytes: &[u8]) -> Option<Counters> {
    let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if bytes.get(..8)? != MAGIC || number(8)? & 0xffff_ffff != u64::from(FORMAT) {
        return None;
    }
    let count = usize::try_from(number(8)? >> 32)
        .ok()
        .filter(|count| *count <= ROWS_MAX)?;
    if number(16)? != number(HEAD_BYTES + count * ROW_BYTES)? {
        return None;
    }
    let row = |at: usize| {
        let name = bytes.get(at..at + NAME_BYTES)?;
        let name = String::from_utf8_lossy(name)
            .trim_end_matches('\0')
            .to_owned();
        Some(Counter {
            name,
            value: number(at + NAME_BYTES)?,
        })
    };
    let rows = (0..count)
        .map(|at| row(HEAD_BYTES + at * ROW_BYTES))
        .collect::<Option<Vec<_>>>()?;
    Some(Counters {
        pid: number(24)?,
        updated_ns: number(32)?,
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_half_written_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = CounterFile::create(directory.path()).unwrap();
        let rows = vec![
            Counter {
                name: "stage.logic.released".into(),
                value: 7,
            },
            Counter {
                name: "door.refused".into(),
                value: u64::MAX,
            },
        ];
        file.write(99, &rows).unwrap();
        let read = Counters::read(directory.path()).unwrap();
        assert_eq!((read.updated_ns, &read.rows), (99, &rows));
        assert_eq!(read.get("stage.logic.released"), Some(7));
        let mut bytes = std::fs::read(directory.path().join(FILE)).unwrap();
        for at in 0..bytes.len() {
            assert_eq!(decode(&bytes[..at]), None, "{at}");
        }
        bytes[16] += 1;
        assert_eq!(decode(&bytes), None);
        assert!(Counters::prometheus(&rows).contains("lockstep_stage_logic_released 7\n"));
    }
}
