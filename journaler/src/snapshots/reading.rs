//! The parts of a snapshot are read and checked: whole, by several threads, or a frame at a time.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::{PartRow, SnapshotError, damaged, failed};
use crate::seekable::{SeekRow, SeekTable, read_frame, read_frame_by};
use crate::storage::{File, Open, Storage};

/// A part whose table and lengths fit the manifest.
pub(super) struct OpenPart<F> {
    name: String,
    file: F,
    row: PartRow,
    table: SeekTable,
    pub(super) raw_bytes: usize,
}

impl<F: File> OpenPart<F> {
    pub(super) fn open<S: Storage<File = F>>(
        storage: &S,
        name: String,
        row: &PartRow,
    ) -> Result<Self, SnapshotError> {
        let file = storage
            .open(&name, Open::READ)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    damaged(&name, "the manifest names it, and it is missing".to_owned())
                }
                _ => failed("opening", &name, error),
            })?;
        let length = file
            .len()
            .map_err(|error| failed("reading", &name, error))?;
        if length != row.stored_bytes {
            return Err(damaged(
                &name,
                format!("{length} bytes, the manifest says {}", row.stored_bytes),
            ));
        }
        let table = SeekTable::read(&file).map_err(|error| unreadable(&name, error))?;
        let raw_bytes = usize::try_from(row.raw_bytes)
            .ok()
            .filter(|_| table.raw_bytes() == row.raw_bytes);
        let Some(raw_bytes) = raw_bytes else {
            let what = format!(
                "it holds {} bytes, the manifest says {}",
                table.raw_bytes(),
                row.raw_bytes
            );
            return Err(damaged(&name, what));
        };
        Ok(OpenPart {
            name,
            file,
            row: *row,
            table,
            raw_bytes,
        })
    }

    /// Reads and checks all of it, a frame at a time, as long as `between` says so; whether it came to the end.
    pub(super) fn walk(self, between: &mut dyn FnMut() -> bool) -> Result<bool, SnapshotError> {
        let mut walk = PartWalk::new(self);
        // Ends: each turn takes a frame.
        while walk.step()? {
            if !between() {
                return Ok(false);
            }
        }
        walk.end().map(|()| true)
    }

    /// What only the whole part shows.
    fn check(&self, hash: u64, frame_crcs: &[u32]) -> Result<(), SnapshotError> {
        let crc = self.table.stored_crc(frame_crcs);
        if crc != self.row.stored_crc {
            let what = format!(
                "CRC {crc:08x}, the manifest says {:08x}",
                self.row.stored_crc
            );
            return Err(damaged(&self.name, what));
        }
        if hash != self.row.raw_hash {
            let what = format!(
                "hash {hash:016x}, the manifest says {:016x}",
                self.row.raw_hash
            );
            return Err(damaged(&self.name, what));
        }
        Ok(())
    }
}

/// A look at a part from its first frame to its last, in steps.
pub(super) struct PartWalk<F> {
    part: OpenPart<F>,
    hasher: xxhash_rust::xxh3::Xxh3Default,
    crcs: Vec<u32>,
    stored: Vec<u8>,
    into: Vec<u8>,
}

impl<F: File> PartWalk<F> {
    pub(super) fn new(part: OpenPart<F>) -> Self {
        PartWalk {
            crcs: Vec::with_capacity(part.table.rows.len()),
            part,
            hasher: xxhash_rust::xxh3::Xxh3Default::new(),
            stored: Vec::new(),
            into: Vec::new(),
        }
    }

    /// Reads and checks the next frame; `false` if there is none.
    pub(super) fn step(&mut self) -> Result<bool, SnapshotError> {
        let Some(row) = self.part.table.rows.get(self.crcs.len()) else {
            return Ok(false);
        };
        self.into.resize(row.raw_bytes, 0);
        let file = &self.part.file;
        let crc = read_frame_by(file, row, &mut self.stored, &mut self.into)
            .map_err(|error| unreadable(&self.part.name, error))?;
        file.forget(row.at + row.stored_bytes as u64);
        self.crcs.push(crc);
        self.hasher.update(&self.into);
        Ok(true)
    }

    pub(super) fn end(self) -> Result<(), SnapshotError> {
        self.part.check(self.hasher.digest(), &self.crcs)
    }
}

/// One frame to decompress: from which part, and where to.
struct Job<'a> {
    part: usize,
    frame: usize,
    row: &'a SeekRow,
    into: &'a mut [u8],
}

/// Decompresses all frames of all parts, several at a time, and checks each part.
pub(super) fn fill<F: File>(
    opened: &[OpenPart<F>],
    parts: &mut [Vec<u8>],
    threads: usize,
) -> Result<(), SnapshotError> {
    let mut crcs: Vec<Vec<u32>> = opened
        .iter()
        .map(|part| vec![0; part.table.rows.len()])
        .collect();
    let jobs = Mutex::new(jobs_of(opened, parts).into_iter());
    let done = Mutex::new(Ok(&mut crcs));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(opened, &jobs, &done));
        }
        work(opened, &jobs, &done);
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    for ((part, raw), crcs) in opened.iter().zip(parts).zip(crcs) {
        part.check(xxhash_rust::xxh3::xxh3_64(raw), &crcs)?;
    }
    Ok(())
}

fn jobs_of<'a, F>(opened: &'a [OpenPart<F>], parts: &'a mut [Vec<u8>]) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    for (part, (open, raw)) in opened.iter().zip(parts).enumerate() {
        let mut rest = &mut raw[..];
        for (frame, row) in open.table.rows.iter().enumerate() {
            let (into, behind) = rest.split_at_mut(row.raw_bytes);
            rest = behind;
            jobs.push(Job {
                part,
                frame,
                row,
                into,
            });
        }
    }
    jobs
}

/// Takes jobs until there are none, or one failed.
fn work<'a, F: File>(
    opened: &[OpenPart<F>],
    jobs: &Mutex<std::vec::IntoIter<Job<'a>>>,
    done: &Mutex<Result<&mut Vec<Vec<u32>>, SnapshotError>>,
) {
    // Ends: each turn takes a job from a finite list.
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(job) = next else { return };
        let part = &opened[job.part];
        let read = read_frame(&part.file, job.row, job.into)
            .map_err(|error| unreadable(&part.name, error));
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *done, read) {
            (Err(_), _) => return,
            (Ok(crcs), Ok(crc)) => crcs[job.part][job.frame] = crc,
            (Ok(_), Err(error)) => {
                *done = Err(error);
                return;
            }
        }
    }
}

/// Bytes that make no sense are damage; anything else is the storage's answer.
fn unreadable(name: &str, error: io::Error) -> SnapshotError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            damaged(name, error.to_string())
        }
        _ => failed("reading", name, error),
    }
}
