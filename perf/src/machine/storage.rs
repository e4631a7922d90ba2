//! The disk under a directory: its file system, its room, and what a sync costs.
#![cfg_attr(unix, expect(unsafe_code, reason = "statvfs is a C call"))]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::clock::{Clock, Ticks};
use super::cpus::Files;
use crate::args::quantity::nanos;

/// One block of a small journal write.
const BLOCK_BYTES: usize = 4096;
/// Size of the prepared file: as many blocks as are written before it starts again.
const BLOCKS: u64 = 256;

/// What was found under a directory.
#[derive(Debug)]
pub struct Storage {
    /// The file system's type, `ext4`, where the kernel tells.
    pub filesystem: Option<String>,
    /// Bytes free for us.
    pub free_bytes: Option<u64>,
    /// Whether files can be opened past the page cache.
    pub direct: bool,
    /// Cost of writing 4 KiB into a prepared file and making them durable, in nanoseconds.
    pub sync_ns: Histogram<u64>,
}

/// Looks at `directory` and times syncs for a while. What it writes, it removes.
///
/// # Errors
///
/// When the directory cannot be created or written.
pub fn examine(clock: &Clock, directory: &Path, duration: Duration) -> io::Result<Storage> {
    fs::create_dir_all(directory)?;
    let probe = Probe(directory.join(format!(".lockstep-probe-{}", std::process::id())));
    let sync_ns = time_syncs(clock, &probe.0, duration)?;
    Ok(Storage {
        filesystem: filesystem(&Files(Path::new("/")), directory),
        free_bytes: free_bytes(directory),
        direct: opens_directly(&probe.0),
        sync_ns,
    })
}

/// A file that is removed at the end, however that comes.
#[derive(Debug)]
struct Probe(PathBuf);

impl Drop for Probe {
    fn drop(&mut self) {
        // What cannot be removed has a name that says whose it is.
        let _ = fs::remove_file(&self.0);
    }
}

fn time_syncs(clock: &Clock, path: &Path, duration: Duration) -> io::Result<Histogram<u64>> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
    for _ in 0..BLOCKS {
        file.write_all(&[0; BLOCK_BYTES])?;
    }
    file.sync_all()?;
    let mut syncs = crate::measure::recorder::histogram();
    let end = clock.early() + clock.to_ticks(nanos(duration));
    let mut block = 0;
    // Ends: the clock passes `end`.
    while clock.early() < end {
        let start = clock.ordered();
        write_block(&file, block)?;
        file.sync_data()?;
        syncs.saturating_record(clock.to_ns(clock.ordered() - start));
        block = (block + 1) % BLOCKS;
    }
    Ok(syncs)
}

#[cfg(unix)]
fn write_block(file: &File, block: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    file.write_all_at(&[1; BLOCK_BYTES], block * BLOCK_BYTES as u64)
}

#[cfg(not(unix))]
fn write_block(file: &File, block: u64) -> io::Result<()> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::Start(block * BLOCK_BYTES as u64))?;
    file.write_all(&[1; BLOCK_BYTES])
}

#[cfg(target_os = "linux")]
fn opens_directly(path: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    opened.is_ok()
}

#[cfg(not(target_os = "linux"))]
fn opens_directly(_: &Path) -> bool {
    false
}

/// Bytes that a process without privileges may still write below `directory`.
#[cfg(unix)]
#[must_use]
pub fn free_bytes(directory: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is a valid one: it is integers only.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends in a zero byte and `found` is writable; both outlive the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), &raw mut found) };
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the fields are narrower on some systems"
    )]
    let bytes = u64::from(found.f_bavail) * u64::from(found.f_frsize);
    (result == 0).then_some(bytes)
}

#[cfg(not(unix))]
#[must_use]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// The type of the file system whose mount point is the longest prefix of `directory`.
fn filesystem(files: &Files<'_>, directory: &Path) -> Option<String> {
    let directory = fs::canonicalize(directory).ok()?;
    let mounts = files.text("proc/self/mountinfo")?;
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let (mount, rest) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        let depth = point.components().count();
        if directory.starts_with(point) && best.as_ref().is_none_or(|(most, _)| depth >= *most) {
            best = Some((depth, rest.split(' ').next()?.to_owned()));
        }
    }
    best.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_examined_and_left_as_it_was() {
        let directory =
            std::env::temp_dir().join(format!("lockstep-storage-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let clock = Clock::monotonic();
        let storage = examine(&clock, &directory, Duration::from_millis(5)).unwrap();
        assert!(!storage.sync_ns.is_empty());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir(&directory).unwrap();
    }
}
