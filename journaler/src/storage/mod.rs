//! The one door to whatever keeps bytes: a real directory, or a simulated disk.
//!
//! Everything else in this crate is arithmetic over bytes and positions; a
//! system call, a clock or a wait happens only behind [`Storage`] and [`File`].
//! That is what lets a whole journal live in one thread, crash ten thousand
//! times a second and come back, from one seed.
//!
//! ```text
//!  journal, recovery, snapshots, tools
//!            │ names, offsets, bytes
//!            ▼
//!     Storage / File ──┬── Disk        a directory, through libc
//!                      ├── Simulated   512-byte sectors, crashes, faults, own clock
//!                      └── Faulty<S>   any of them, with an error at the nth call
//! ```
//!
//! # Invariants
//!
//! * `ST1` A name is relative, of whole components joined by `/`, and stays below
//!   the root: no empty component, no `.`, no `..`, no NUL.
//! * `ST2` `write_at` and `write_durable_at` write every byte, or return an error:
//!   a short write is an error, never continued behind the caller's back.
//! * `ST3` Only an interrupted call (`EINTR`) is repeated. An error from a write
//!   or a sync reaches the caller exactly once, as it came.
//! * `ST4` Bytes are durable after `sync_data` or `sync_all` of their file, or
//!   after `write_durable_at` of themselves, returned `Ok`; a name is durable
//!   after `sync_directory` of its directory returned `Ok`. Nothing else promises.
//! * `ST5` A clone is another handle to the same storage.

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::ops::Deref;
use std::time::Duration;

#[cfg(target_os = "linux")]
mod disk;
mod faulty;
mod removal;
mod simulated;

#[cfg(target_os = "linux")]
pub use disk::{Disk, DiskFile, DiskLock};
pub use faulty::{Errno, Faulty, FaultyFile, Operation};
#[cfg(test)]
pub(crate) use removal::CUT_BYTES;
pub use removal::{remove_in_steps, remove_in_steps_while};
pub use simulated::{Fault, SECTOR_BYTES, Simulated, SimulatedFile, SimulatedLock, Unsynced};

/// A directory of files, and the only clock this crate may look at.
///
/// Names are relative paths with `/` (`ST1`). Handles are cheap to clone and
/// may be used from several threads at once (`ST5`).
pub trait Storage: Clone + fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: File;
    /// Held for as long as this process owns the directory; dropping it gives
    /// the directory free.
    type Lock: fmt::Debug + Send + Sync + 'static;

    /// Opens one file.
    ///
    /// # Errors
    ///
    /// `NotFound` if it should exist and does not, `AlreadyExists` if it should
    /// be new and is not, `InvalidInput` for a name against `ST1`.
    fn open(&self, name: &str, how: Open) -> io::Result<Self::File>;

    /// Gives a file another name, replacing a file that has it.
    /// The change is atomic, and durable only after `sync_directory` (`ST4`).
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no `from`; whatever the file system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes one file.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; whatever the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Removes one empty directory.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none, `DirectoryNotEmpty` if it holds anything.
    fn remove_dir(&self, name: &str) -> io::Result<()>;

    /// What a directory holds, sorted by name; `""` is the root. A directory
    /// that does not exist holds nothing.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn list(&self, directory: &str) -> io::Result<Vec<Entry>>;

    /// Creates a directory whose parent exists. One that is there already is fine.
    ///
    /// # Errors
    ///
    /// `NotFound` if the parent is missing; whatever the file system says.
    fn create_dir(&self, name: &str) -> io::Result<()>;

    /// Makes the names in a directory durable; `""` is the root.
    ///
    /// # Errors
    ///
    /// As a failed sync of a file: what the disk holds is unknown, and nobody asks again.
    fn sync_directory(&self, name: &str) -> io::Result<()>;

    /// How many bytes an unprivileged writer may still use.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn free_bytes(&self) -> io::Result<u64>;

    /// What lies under the root, and whether a sync there means anything.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn medium(&self) -> io::Result<Medium>;

    /// Takes the exclusive lock `name`, for as long as the returned value lives,
    /// and leaves in it who holds it: process, host, boot.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another holds it; its message is the text that the other left.
    fn lock(&self, name: &str) -> io::Result<Self::Lock>;

    /// Who holds the lock `name` now, if anybody does; takes and changes nothing, so a reader
    /// may ask beside a writer that is just starting.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn holder(&self, name: &str) -> io::Result<Option<String>>;

    /// Takes away everybody's right to write a file: it is sealed.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn set_read_only(&self, name: &str) -> io::Result<()>;

    /// Gives the owner's right to write back: a sealed file is about to be removed or mended.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn set_writable(&self, name: &str) -> io::Result<()>;

    /// Nanoseconds of a clock that never goes back; for pacing and for measuring
    /// a sync, never for the time of an event.
    fn now_ns(&self) -> u64;

    /// Waits. The simulated storage moves its clock instead.
    fn pause(&self, duration: Duration);
}

/// One open file. Several threads may use it at once; the caller keeps their
/// ranges apart.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Writes all parts, one behind the other, from `at` on (`ST2`). Not durable
    /// before a sync (`ST4`).
    ///
    /// # Errors
    ///
    /// A short write is `WriteZero`; everything else as it came (`ST3`).
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()>;

    /// As [`write_at`](File::write_at), and durable when it returns (`RWF_DSYNC`),
    /// as far as the data goes: the caller has given the file its length before.
    ///
    /// # Errors
    ///
    /// As `write_at`.
    fn write_durable_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()>;

    /// As [`write_at`](File::write_at), for long writes: what is copied is on its way to the disk
    /// while the rest is copied, where the storage can. Not durable before a sync either.
    ///
    /// # Errors
    ///
    /// As `write_at`.
    fn write_onward_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.write_at(parts, at)
    }

    /// As [`write_durable_at`](File::write_durable_at) of all of `buffer`, whose first `filled`
    /// bytes are there; `fill` is called with the pieces behind them, in order, until it is full.
    /// What is filled is on its way to the disk while the rest is filled, where the storage can.
    ///
    /// # Errors
    ///
    /// As `write_at`.
    fn write_durable_filled(
        &self,
        buffer: &mut [u8],
        filled: usize,
        at: u64,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> io::Result<()> {
        fill(&mut buffer[filled..]);
        self.write_durable_at(&[IoSlice::new(buffer)], at)
    }

    /// Waits until what was written from `at` to `end` is with the disk, so that no later sync has it
    /// all to do at once, its own file's or another's. It makes nothing durable.
    ///
    /// # Errors
    ///
    /// As they came: a write that could not be carried out.
    fn settle(&self, at: u64, end: u64) -> io::Result<()> {
        let _ = (at, end);
        Ok(())
    }

    /// Reads from `at` on until `into` is full or the file ends, and says how
    /// many bytes that were.
    ///
    /// # Errors
    ///
    /// As they came; `EIO` for a bad sector anywhere in the range.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;

    /// Makes the written bytes durable, and the length if it grew.
    ///
    /// # Errors
    ///
    /// As they came. A failed sync is fatal to whoever relied on it: the next
    /// one may say `Ok` while the disk does not have the bytes.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`sync_data`](File::sync_data), and all of the file's attributes.
    ///
    /// # Errors
    ///
    /// As `sync_data`.
    fn sync_all(&self) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// As `len`.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or makes it longer by bytes that read as zero.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// The first `length` bytes for reading, without copying where the storage
    /// can. **For sealed files only**: they are immutable, and the directory is
    /// locked by us; nobody changes or cuts what we look at.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file is shorter; whatever the file system says.
    fn map(&self, length: u64) -> io::Result<Mapped>;

    /// Says that it is read from front to back: the storage may fetch more at a time.
    fn reads_on(&self) {}

    /// Says that what is stored before `end` is not looked at again soon: the storage may give up the
    /// memory that it has for it, as far as that is with the disk. Who reads it then reads the disk.
    fn forget(&self, end: u64) {
        let _ = end;
    }

    /// Whether nobody else has the file open, or mapped: only then may it be cut while it has a name
    /// that nobody opens any more. `false` where the storage cannot tell.
    fn is_alone(&self) -> bool {
        true
    }

    /// Reads exactly `into.len()` bytes from `at` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let wanted = into.len();
        let read = self.read_at(into, at)?;
        if read == wanted {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("wanted {wanted} bytes at offset {at}, the file has {read} of them"),
        ))
    }
}

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// For what.
    pub access: Access,
    /// Past the page cache: memory, offset and length of every access are then
    /// multiples of [`DIRECT_ALIGN`].
    pub direct: bool,
}

impl Open {
    /// An existing file, for reading.
    pub const READ: Open = Open {
        access: Access::Read,
        direct: false,
    };
    /// An existing file, for reading and writing.
    pub const WRITE: Open = Open {
        access: Access::Write,
        direct: false,
    };
    /// A file that must not exist yet, for reading and writing.
    pub const CREATE: Open = Open {
        access: Access::Create,
        direct: false,
    };

    /// The same, past the page cache.
    #[must_use]
    pub const fn direct(self) -> Open {
        Open {
            direct: true,
            ..self
        }
    }
}

/// What an open file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading what exists.
    Read,
    /// Reading and writing what exists.
    Write,
    /// Reading and writing what must not exist yet.
    Create,
}

/// Memory, offset and length of direct access are multiples of this many bytes:
/// the largest logical block of the disks we know, and a page.
pub const DIRECT_ALIGN: usize = 4096;

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Without the directory's name.
    pub name: String,
    /// A directory, not a file.
    pub is_directory: bool,
    /// Bytes; 0 for a directory.
    pub length: u64,
}

/// What a storage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The file system's name: `ext4`, `xfs`, `tmpfs`, `simulated`, or its number.
    pub name: String,
    /// Whether a sync there survives a power cut, as far as anyone can tell:
    /// `false` for memory, overlays and shares (tmpfs, overlay, 9p and the like).
    pub is_durable: bool,
}

/// The bytes of a sealed file: mapped, or an owned copy. Aligned to 64 bytes.
pub struct Mapped(Held);

enum Held {
    #[cfg(target_os = "linux")]
    Map(memmap2::Mmap),
    Copy {
        lines: Vec<Line>,
        length: usize,
    },
}

/// 64 bytes at a multiple of 64: what an event may ask for (events are aligned to 64 at most).
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Mapped {
    /// An owned, aligned copy of `length` bytes that `fill` writes.
    ///
    /// # Errors
    ///
    /// What `fill` says.
    pub fn copied(
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Mapped> {
        let mut lines = vec![Line([0; 64]); length.div_ceil(64)];
        fill(&mut bytemuck::cast_slice_mut::<Line, u8>(&mut lines)[..length])?;
        Ok(Mapped(Held::Copy { lines, length }))
    }

    /// Whether looking at it needs no disk, as far as a few samples tell. Where it does, reading is
    /// faster: a map fetches what is looked at, piece by piece, and the looker waits for each.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        match &self.0 {
            #[cfg(target_os = "linux")]
            Held::Map(map) => disk::is_resident(map),
            Held::Copy { .. } => true,
        }
    }

    #[cfg(target_os = "linux")]
    fn map(map: memmap2::Mmap) -> Mapped {
        Mapped(Held::Map(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            #[cfg(target_os = "linux")]
            Held::Map(map) => map,
            Held::Copy { lines, length } => &bytemuck::cast_slice::<Line, u8>(lines)[..*length],
        }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.0 {
            #[cfg(target_os = "linux")]
            Held::Map(_) => "map",
            Held::Copy { .. } => "copy",
        };
        write!(f, "Mapped({how}, {} bytes)", self.len())
    }
}

/// Refuses a name that could leave the root or that differs between storages (`ST1`).
pub(crate) fn checked_name(name: &str) -> io::Result<&str> {
    let is_whole =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if name.split('/').all(is_whole) {
        return Ok(name);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the name {name:?} is not a relative path of whole components below the root"),
    ))
}

/// As [`checked_name`], for a directory, whose root is `""`.
pub(crate) fn checked_directory(name: &str) -> io::Result<&str> {
    if name.is_empty() {
        Ok(name)
    } else {
        checked_name(name)
    }
}

/// How many bytes the parts hold together.
pub(crate) fn total(parts: &[IoSlice<'_>]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn st1_a_name_stays_below_the_root() {
        for good in ["LOCK", "snap/00/MANIFEST", "pool/1.zero", "..a", "a.b"] {
            assert_eq!(checked_name(good).unwrap(), good);
        }
        for bad in [
            "", "/etc", "a//b", "a/", "../x", "a/../b", "./a", ".", "a\0b",
        ] {
            let error = checked_name(bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
        assert_eq!(checked_directory("").unwrap(), "");
    }

    #[test]
    fn a_copy_is_aligned_to_64_and_as_long_as_asked() {
        for length in [0, 1, 63, 64, 65, 4097] {
            let copy = Mapped::copied(length, |bytes| {
                bytes.fill(7);
                Ok(())
            })
            .unwrap();
            assert_eq!(copy.len(), length);
            assert!(copy.iter().all(|&byte| byte == 7));
            assert_eq!(copy.as_ptr().align_offset(64), 0);
        }
    }
}
