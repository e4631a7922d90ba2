#![expect(
    unsafe_code,
    reason = "vectored writes, writeback, flock, statfs, the clock and maps have no safe face in std"
)]
//! A real directory, through libc.
//!
//! Every call goes through the C library and not around it, so that a shim in
//! front of it (`LD_PRELOAD`) or a tracer (`strace -e inject`) can make it fail;
//! the campaigns in `docs/CRASHES.md` do both.
//!
//! # Invariants
//!
//! * `DK1` Nothing here opens a path that is not the root joined with a checked
//!   name (`ST1`).
//! * `DK2` A call that says `EINTR` is made again; every other answer is the caller's.
//! * `DK3` A lock that is dropped is free, also where a process that was started just now has a copy of its
//!   descriptor, as each has between `fork` and `exec`.

use std::ffi::CString;
use std::fs;
use std::io;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{
    Access, Entry, File, Mapped, Medium, Open, Storage, checked_directory, checked_name, total,
};

mod flight;

use flight::Queue;

/// The most pieces that one vectored call takes (`IOV_MAX` on Linux).
const PIECES_MAX: usize = 1024;

/// A write of at least `LONG` goes out in pieces, so that the copy of one and the disk's work on the
/// one before happen at the same time. Shorter ones gain nothing, and smaller pieces lose.
const PIECE: usize = 256 << 10;
const LONG: usize = 2 * PIECE;

/// A directory of the real file system.
#[derive(Debug, Clone)]
pub struct Disk {
    root: Arc<Path>,
    /// For long direct writes; made when the first file is opened that could want it.
    queue: Arc<OnceLock<Option<Queue>>>,
}

impl Disk {
    /// The directory at `root`, which must exist.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is nothing, `NotADirectory` if it is something else.
    pub fn at(root: impl AsRef<Path>) -> io::Result<Disk> {
        let root = fs::canonicalize(root)?;
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Disk {
            root: root.into(),
            queue: Arc::default(),
        })
    }

    /// The directory at `root`, created with its parents if it is missing, and
    /// its name made durable.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn create(root: impl AsRef<Path>) -> io::Result<Disk> {
        fs::create_dir_all(&root)?;
        let disk = Disk::at(root)?;
        if let Some(above) = disk.root.parent() {
            sync_directory_at(above)?;
        }
        Ok(disk)
    }

    /// Where the directory is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        Ok(self.root.join(checked_name(name)?))
    }

    fn directory(&self, name: &str) -> io::Result<PathBuf> {
        Ok(self.root.join(checked_directory(name)?))
    }

    fn statfs(&self) -> io::Result<libc::statfs> {
        let path = CString::new(self.root.as_os_str().as_bytes())?;
        // SAFETY: all of `statfs` is integers, and zero is a value of each.
        let mut found: libc::statfs = unsafe { std::mem::zeroed() };
        loop {
            // SAFETY: `statfs` wants (1) a NUL-terminated path: `path` is one and lives on;
            // (2) room for one `statfs`: `found` is one, and ours alone.
            let answer = unsafe { libc::statfs(path.as_ptr(), &raw mut found) };
            if !interrupted(answer)? {
                return Ok(found);
            }
        }
    }
}

impl Storage for Disk {
    type File = DiskFile;
    type Lock = DiskLock;

    fn open(&self, name: &str, how: Open) -> io::Result<DiskFile> {
        let mut options = fs::OpenOptions::new();
        match how.access {
            Access::Read => options.read(true),
            Access::Write => options.read(true).write(true),
            Access::Create => options.read(true).write(true).create_new(true),
        };
        if how.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(self.path(name)?)?;
        let queue = (how.direct && how.access == Access::Write).then(|| {
            self.queue.get_or_init(Queue::new);
            Arc::clone(&self.queue)
        });
        Ok(DiskFile {
            file,
            direct: how.direct,
            queue,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name)?)
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.path(name)?)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<Entry>> {
        let found = match fs::read_dir(self.directory(directory)?) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = found
            .map(|entry| entry_of(&entry?))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            answer => answer,
        }
    }

    fn sync_directory(&self, name: &str) -> io::Result<()> {
        sync_directory_at(&self.directory(name)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = self.statfs()?;
        let block = u64::try_from(found.f_bsize).unwrap_or(0);
        Ok(found.f_bavail.saturating_mul(block))
    }

    fn medium(&self) -> io::Result<Medium> {
        Ok(medium_of(self.statfs()?.f_type))
    }

    fn lock(&self, name: &str) -> io::Result<DiskLock> {
        let path = self.path(name)?;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        if !flock(&file, libc::LOCK_EX | libc::LOCK_NB)? {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                holder.trim_end().to_owned(),
            ));
        }
        file.set_len(0)?;
        file.write_all_at(who_we_are().as_bytes(), 0)?;
        Ok(DiskLock { file })
    }

    fn holder(&self, name: &str) -> io::Result<Option<String>> {
        let path = self.path(name)?;
        let inode = match fs::metadata(&path) {
            Ok(about) => about.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The kernel's list of locks: a line each, `… FLOCK ADVISORY WRITE pid major:minor:inode …`.
        let locks = fs::read_to_string("/proc/locks")?;
        let is_it = |line: &str| {
            let is_flock = line.contains(" FLOCK ");
            let place = line
                .split_whitespace()
                .find(|word| word.matches(':').count() == 2);
            let number = place.and_then(|place| place.rsplit(':').next()?.parse::<u64>().ok());
            is_flock && number == Some(inode)
        };
        if !locks.lines().any(is_it) {
            return Ok(None);
        }
        Ok(Some(fs::read_to_string(&path)?.trim_end().to_owned()))
    }

    fn set_read_only(&self, name: &str) -> io::Result<()> {
        fs::set_permissions(self.path(name)?, fs::Permissions::from_mode(0o444))
    }

    fn set_writable(&self, name: &str) -> io::Result<()> {
        fs::set_permissions(self.path(name)?, fs::Permissions::from_mode(0o644))
    }

    fn now_ns(&self) -> u64 {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `clock_gettime` wants room for one `timespec`: `now` is one, and ours alone.
        let answer = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        assert_eq!(answer, 0, "Linux always has a monotonic clock");
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The lock of one directory; the kernel gives it free with the file, also when
/// the process is killed.
#[derive(Debug)]
pub struct DiskLock {
    file: fs::File,
}

impl Drop for DiskLock {
    fn drop(&mut self) {
        // DK3. Closed it is free at the latest with its last copy, so a failure changes nothing that could be told.
        let _ = flock(&self.file, libc::LOCK_UN);
    }
}

/// A file of the real file system.
#[derive(Debug)]
pub struct DiskFile {
    file: fs::File,
    direct: bool,
    queue: Option<Arc<OnceLock<Option<Queue>>>>,
}

impl DiskFile {
    /// Of the bytes before `end`; 0 is the end of the file.
    fn advise(&self, end: libc::off_t, advice: libc::c_int) {
        let file = self.file.as_raw_fd();
        // SAFETY: `posix_fadvise` wants an open descriptor: `self.file` is one; it touches no memory,
        // and it is advice: a system that does not take it reads and writes as well.
        let _ = unsafe { libc::posix_fadvise(file, 0, end, advice) };
    }

    fn write_with(&self, parts: &[IoSlice<'_>], at: u64, flags: libc::c_int) -> io::Result<()> {
        let mut at = at;
        for pieces in parts.chunks(PIECES_MAX) {
            write_pieces(self.file.as_raw_fd(), pieces, at, flags)?;
            at += total(pieces);
        }
        Ok(())
    }
}

impl File for DiskFile {
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.write_with(parts, at, 0)
    }

    fn write_durable_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.write_with(parts, at, libc::RWF_DSYNC)
    }

    fn write_onward_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        if self.direct || total(parts) < LONG as u64 {
            return self.write_at(parts, at);
        }
        let file = self.file.as_raw_fd();
        let mut start = at;
        for_each_piece(parts, at, |pieces, from, is_last| {
            write_pieces(file, pieces, from, 0)?;
            let end = from + total(pieces);
            if !is_last {
                write_back(file, start, end, libc::SYNC_FILE_RANGE_WRITE)?;
                start = end;
            }
            Ok(())
        })
    }

    fn write_durable_filled(
        &self,
        buffer: &mut [u8],
        filled: usize,
        at: u64,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> io::Result<()> {
        let queue = self.queue.as_ref().and_then(|queue| queue.get()?.as_ref());
        if let Some(queue) = queue.filter(|_| buffer.len() >= LONG) {
            let file = self.file.as_raw_fd();
            if queue.write_filled(file, buffer, filled, at, PIECE, fill)? {
                return self.file.sync_data();
            }
        }
        fill(&mut buffer[filled..]);
        self.write_durable_at(&[IoSlice::new(buffer)], at)
    }

    fn settle(&self, at: u64, end: u64) -> io::Result<()> {
        let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let how = wait | libc::SYNC_FILE_RANGE_WRITE;
        write_back(self.file.as_raw_fd(), at, end, how)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        // Ends: each turn fills some of `into`, or returns.
        while done < into.len() {
            match self.file.read_at(&mut into[done..], at + done as u64) {
                Ok(0) => return Ok(done),
                // A direct read that comes short has met the end of the file, and
                // asking again from an odd offset would be refused.
                Ok(count) if self.direct && done + count < into.len() => return Ok(done + count),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn reads_on(&self) {
        self.advise(0, libc::POSIX_FADV_SEQUENTIAL);
    }

    fn forget(&self, end: u64) {
        // To the system an end of 0 is that of the file.
        if let Some(end) = libc::off_t::try_from(end).ok().filter(|end| *end != 0) {
            self.advise(end, libc::POSIX_FADV_DONTNEED);
        }
    }

    fn is_alone(&self) -> bool {
        let file = self.file.as_raw_fd();
        // SAFETY: `fcntl` wants an open descriptor: `self.file` is one; a lease is a number, and touches
        // no memory. The kernel gives a write lease only to who has the file alone.
        let answer = unsafe { libc::fcntl(file, libc::F_SETLEASE, libc::F_WRLCK) };
        if answer != 0 {
            return false;
        }
        // SAFETY: as above; the lease is given back, or whoever opens the file would wait for us.
        unsafe { libc::fcntl(file, libc::F_SETLEASE, libc::F_UNLCK) == 0 }
    }

    fn map(&self, length: u64) -> io::Result<Mapped> {
        let found = self.len()?;
        if found < length {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("wanted a map of {length} bytes, the file has {found}"),
            ));
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        if length == 0 {
            return Mapped::copied(0, |_| Ok(()));
        }
        let mut options = memmap2::MmapOptions::new();
        options.len(length);
        // SAFETY: `map` wants that nobody changes or cuts the file while it is mapped. Our
        // caller maps sealed files only: no writer of ours touches them again (mode 0444),
        // and `LOCK` keeps other writers of this program out. Whoever overwrites a sealed
        // file as root breaks more than this map.
        let map = unsafe { options.map(&self.file) }?;
        // Advice only: a kernel that does not take it maps just as well.
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(Mapped::map(map))
    }
}

/// One vectored call (`DK2`); a short one is an error (`ST2`).
fn write_pieces(
    file: RawFd,
    pieces: &[IoSlice<'_>],
    at: u64,
    flags: libc::c_int,
) -> io::Result<()> {
    let wanted = total(pieces);
    let offset = libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = libc::c_int::try_from(pieces.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        let vector = pieces.as_ptr().cast::<libc::iovec>();
        let written = if flags == 0 {
            // SAFETY: `pwritev` wants (1) an open descriptor: our caller holds its file;
            // (2) `count` iovecs: `IoSlice` promises the layout of `iovec`, and `pieces`
            // has `count`; (3) each of them readable: they borrow slices that outlive us.
            unsafe { libc::pwritev(file, vector, count, offset) }
        } else {
            // SAFETY: as `pwritev` above, by the same three reasons.
            unsafe { libc::pwritev2(file, vector, count, offset, flags) }
        };
        match u64::try_from(written) {
            Ok(written) if written == wanted => return Ok(()),
            Ok(written) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    format!("short write: {written} of {wanted} bytes at offset {at}"),
                ));
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Cuts the parts at every multiple of `PIECE` in the file, and where a vectored call is full.
fn for_each_piece(
    parts: &[IoSlice<'_>],
    at: u64,
    mut each: impl FnMut(&[IoSlice<'_>], u64, bool) -> io::Result<()>,
) -> io::Result<()> {
    const SLICES: usize = 64;
    let (mut from, mut left) = (at, total(parts));
    let mut slices = [IoSlice::new(&[]); SLICES];
    let (mut count, mut bytes) = (0, 0);
    for part in parts {
        let mut part: &[u8] = part;
        while !part.is_empty() {
            let to_cut = PIECE as u64 - (from + bytes) % PIECE as u64;
            let taken = part.len().min(usize::try_from(to_cut).unwrap_or(PIECE));
            let (now, rest) = part.split_at(taken);
            (slices[count], part) = (IoSlice::new(now), rest);
            count += 1;
            bytes += taken as u64;
            left -= taken as u64;
            if taken as u64 == to_cut || count == SLICES || left == 0 {
                each(&slices[..count], from, left == 0)?;
                (from, count, bytes) = (from + bytes, 0, 0);
            }
        }
    }
    Ok(())
}

/// Puts what is written on its way, and waits for it if asked to. It makes nothing durable, and a write that fails later is told
/// by the sync that follows; a system that cannot start it early writes when it is synced.
fn write_back(file: RawFd, from: u64, to: u64, how: libc::c_uint) -> io::Result<()> {
    let range = |at| libc::off64_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput);
    let (offset, length) = (range(from)?, range(to - from)?);
    loop {
        // SAFETY: `sync_file_range` wants an open descriptor, which our caller holds, and touches no
        // memory.
        let answer = unsafe { libc::sync_file_range(file, offset, length, how) };
        match interrupted(answer) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP) => Ok(()),
                    _ => Err(error),
                };
            }
        }
    }
}

/// Takes a lock without waiting, or gives it free; `false` if another has it.
fn flock(file: &fs::File, operation: libc::c_int) -> io::Result<bool> {
    loop {
        // SAFETY: `flock` wants an open descriptor: `file` is one until we return.
        let answer = unsafe { libc::flock(file.as_raw_fd(), operation) };
        match interrupted(answer) {
            Ok(true) => {}
            Ok(false) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// `Ok(false)` for an answer of 0, `Ok(true)` if the call is to be made again (`DK2`).
fn interrupted(answer: libc::c_int) -> io::Result<bool> {
    if answer == 0 {
        return Ok(false);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted {
        Ok(true)
    } else {
        Err(error)
    }
}

fn sync_directory_at(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn entry_of(entry: &fs::DirEntry) -> io::Result<Entry> {
    let name = entry.file_name().into_string().map_err(|name| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file name {name:?} is not UTF-8"),
        )
    })?;
    let about = entry.metadata()?;
    let is_directory = about.is_dir();
    Ok(Entry {
        name,
        is_directory,
        length: if is_directory { 0 } else { about.len() },
    })
}

/// Whether most of a map is in memory, by the pages that are looked at: some, evenly spread.
pub(super) fn is_resident(map: &memmap2::Mmap) -> bool {
    const PAGE: usize = 4096;
    const SAMPLES: usize = 64;
    let pages = map.len().div_ceil(PAGE);
    let step = pages.div_ceil(SAMPLES).max(1);
    let is_there = |page: usize| {
        let mut found = 0_u8;
        let address = map[page * PAGE..].as_ptr().cast_mut().cast();
        // SAFETY: `mincore` wants (1) an address on a page: a map begins on one; (2) room for a byte for
        // each page asked about: `found` is one. It does not touch what it is asked about. Asking about
        // larger pages as if they were of 4 KiB is refused, and then all is taken to be there.
        let answer = unsafe { libc::mincore(address, 1, &raw mut found) };
        answer != 0 || found & 1 == 1
    };
    let (mut asked, mut there) = (0, 0);
    for page in (0..pages).step_by(step) {
        asked += 1;
        there += usize::from(is_there(page));
    }
    there * 2 >= asked
}

/// Names the file system by the number that `statfs` gives.
fn medium_of(number: i64) -> Medium {
    let (name, is_durable) = match number {
        0xEF53 => ("ext4", true),
        0x5846_5342 => ("xfs", true),
        0x9123_683E => ("btrfs", true),
        0x2FC1_2FC1 => ("zfs", true),
        0xF2F5_2010 => ("f2fs", true),
        0x0102_1994 => ("tmpfs", false),
        0x8584_58F6 => ("ramfs", false),
        0x794C_7630 => ("overlay", false),
        0x0102_1997 => ("9p", false),
        0x6969 => ("nfs", false),
        0xFF53_4D42 | 0xFE53_4D42 => ("smb", false),
        0x6573_5546 => ("fuse", false),
        other => {
            return Medium {
                name: format!("0x{other:x}"),
                is_durable: true,
            };
        }
    };
    Medium {
        name: name.to_owned(),
        is_durable,
    }
}

/// What we leave in a lock: process, host and boot, so that the refused one can
/// name us, and an operator can tell a living holder from a stale file.
fn who_we_are() -> String {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    format!(
        "pid {} host {} boot {}\n",
        std::process::id(),
        read("/proc/sys/kernel/hostname"),
        read("/proc/sys/kernel/random/boot_id"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dk3_a_lock_that_is_dropped_is_free_while_a_child_has_a_copy_of_its_descriptor() {
        let directory = std::env::temp_dir().join(format!("lockstep-dk3-{}", std::process::id()));
        let disk = Disk::create(&directory).unwrap();
        let lock = disk.lock("LOCK").unwrap();
        let copy = lock.file.try_clone().unwrap();
        let again = disk.lock("LOCK").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        let lock = disk.lock("LOCK").unwrap();
        drop((copy, lock));
        fs::remove_dir_all(&directory).unwrap();
    }
}
