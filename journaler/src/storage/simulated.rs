//! A disk that crashes, lies and rots, from one seed.
//!
//! ```text
//!   write ──► cache (what reads see) ──┐
//!             └► unsynced: sectors and lengths, in order ── sync ──► disk
//!   create, rename, remove ──► names ──┐
//!             └► unsynced name changes, in order ── sync_directory ─► durable names
//!
//!   crash: the disk and the durable names, plus any subset of the unsynced
//!   sectors and, per directory, any prefix of the unsynced name changes
//! ```
//!
//! A write is atomic per sector of 512 bytes and in nothing larger, so a write
//! of many sectors tears at any of them. A rename belongs to the directory that
//! it renames into. Syncing a file does *not* make its name durable: some file
//! systems do that as a favour, and no one may rely on it.
//!
//! # Faults, and who must survive them
//!
//! | fault | what happens | who must survive it |
//! |---|---|---|
//! | crash | see above | opening: everything acknowledged is there (I1-I4), and opening again gives the same (I6) |
//! | [`Fault::WriteError`], [`Fault::ShortWrite`], [`Fault::NoSpace`] | the write says no, all or half of it undone | the journal: poisoned, nothing acknowledged behind it |
//! | [`Fault::SyncError`] | the sync says no once; the cache shows the new bytes, the disk does not have them, and the next sync says yes | the journal: poisoned, never syncs again; whoever retries loses data here |
//! | [`Fault::ReadError`], a bad sector | reading says no | opening and tools: name the place, never take it for zeros |
//! | [`Fault::WriteLost`], [`Fault::WriteMisdirected`], rot | the disk says yes and has something else | opening and `verify`: refused where there is evidence, never shortened in silence (I5) |
//! | [`Fault::SyncLies`], [`Fault::DirectorySyncLies`] | the sync says yes and does nothing | nobody can keep the promise; opening must still refuse what it can see, and never crash |
//! | [`Fault::DirectorySyncError`] | the names are not durable | the journal and snapshots: as a failed sync |
//! | no room ([`Simulated::set_capacity`]) | every growth says `ENOSPC` | the preparer: an alarm first, then "busy" |
//! | power cut ([`Simulated::cut_power_after`]) | the nth change is under way, and every call from then on says no | all of the above, at every step |
//!
//! # Invariants
//!
//! * `SD1` `disk` changes only by a sync, a durable write, a crash, or a fault.
//! * `SD2` What a crash leaves is a function of the seed and of the calls before.
//! * `SD3` A handle from before a crash reaches nothing: each call on it fails.
//! * `SD4` A fork shares no state with its origin, only pages that neither changes.

mod file;
mod image;
mod inode;
mod names;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::file::SimulatedFile;
use self::image::SECTOR;
use self::inode::described;
pub use self::names::SimulatedLock;
use self::world::{NameChange, Names, Planned, Random, World};
use super::Operation;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = SECTOR;

const WRITE_NS: u64 = 2_000;
const SYNC_NS: u64 = 150_000;

/// A simulated disk. A clone is another handle to the same disk; a
/// [`fork`](Simulated::fork) is another disk.
#[derive(Clone)]
pub struct Simulated {
    world: Arc<Mutex<World>>,
}

/// What can be made to happen to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A write says `EIO`, and nothing of it was written.
    WriteError,
    /// A write says `WriteZero`, and half of its sectors were written.
    ShortWrite,
    /// A write says `ENOSPC`, and half of its sectors were written.
    NoSpace,
    /// A write says yes and is seen until the crash, but the disk never gets it.
    WriteLost,
    /// A write says yes and is seen until the crash, but the disk puts it elsewhere in the same file.
    WriteMisdirected,
    /// A read says `EIO`, once.
    ReadError,
    /// A sync says `EIO`, once: the cache keeps the new bytes and calls them clean.
    SyncError,
    /// A sync says yes and does nothing; what was unsynced stays so.
    SyncLies,
    /// A sync of a directory says `EIO`, and did nothing.
    DirectorySyncError,
    /// A sync of a directory says yes and does nothing.
    DirectorySyncLies,
}

impl Fault {
    /// The calls that this fault can hit.
    #[must_use]
    pub fn operation(self) -> Operation {
        match self {
            Fault::WriteError
            | Fault::ShortWrite
            | Fault::NoSpace
            | Fault::WriteLost
            | Fault::WriteMisdirected => Operation::Write,
            Fault::ReadError => Operation::Read,
            Fault::SyncError | Fault::SyncLies => Operation::Sync,
            Fault::DirectorySyncError | Fault::DirectorySyncLies => Operation::SyncDirectory,
        }
    }
}

/// Something that a crash may keep or lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsynced {
    /// One sector of one write.
    Sector {
        /// The file's name when it was opened.
        file: String,
        /// Which sector of the file.
        sector: u64,
    },
    /// A change of a file's length.
    Length {
        /// The file's name when it was opened.
        file: String,
        /// The length it was given.
        length: u64,
    },
    /// A change of a name. A crash that loses one loses the later ones of the
    /// same directory too.
    Name {
        /// The directory, `""` for the root.
        directory: String,
        /// The name that appears or goes.
        name: String,
    },
}

impl Simulated {
    /// An empty disk; the seed decides every crash.
    #[must_use]
    pub fn new(seed: u64) -> Simulated {
        let world = World {
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: Names::new(),
            durable_names: Names::new(),
            changes: Vec::new(),
            locks: BTreeSet::new(),
            boot: 0,
            is_off: false,
            cut_after: None,
            change_count: 0,
            plan: Vec::new(),
            capacity: u64::MAX,
            now_ns: 1,
            random: Random(seed),
        };
        Simulated {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Another disk in the same state, with its own future (`SD4`). Open handles
    /// and locks stay with the origin.
    #[must_use]
    pub fn fork(&self) -> Simulated {
        let mut world = self.world().clone();
        world.locks.clear();
        for inode in world.inodes.values_mut() {
            inode.open_count = 0;
        }
        Simulated {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Another disk, which is on and shows what reads of this one saw when its power went. The change
    /// that was under way then is not among it.
    #[must_use]
    pub fn as_before_the_cut(&self) -> Simulated {
        let fork = self.fork();
        let mut world = fork.world();
        (world.is_off, world.cut_after) = (false, None);
        drop(world);
        fork
    }

    /// Decides the crashes from here on by another seed.
    pub fn reseed(&self, seed: u64) {
        self.world().random = Random(seed);
    }

    /// Loses power: what was synced stays, of the rest a random subset, and the
    /// machine is on again with nothing in its cache.
    pub fn crash(&self) {
        let mut world = self.world();
        // Mostly a fair coin for each; at times nearly all or nearly nothing,
        // which finds other bugs than the coin does.
        let odds = match world.random.below(4) {
            0 => 10,
            1 => 90,
            _ => 50,
        };
        let mut random = world.random;
        world.crash(&mut |_| random.below(100) < odds);
        world.random = random;
        world.random.next();
    }

    /// Loses power and keeps of the unsynced what `keep` says, asked in the
    /// order of [`unsynced`](Simulated::unsynced).
    pub fn crash_keeping(&self, mut keep: impl FnMut(&Unsynced) -> bool) {
        self.world().crash(&mut keep);
    }

    /// What a crash may keep or lose: files by the order of their creation, the
    /// changes of each in order; then the changes of names, in order.
    #[must_use]
    pub fn unsynced(&self) -> Vec<Unsynced> {
        let world = self.world();
        let files = world.inodes.values().flat_map(|inode| {
            inode
                .unsynced
                .iter()
                .map(|change| described(&inode.name, change))
        });
        files
            .chain(world.changes.iter().map(NameChange::described))
            .collect()
    }

    /// Cuts the power in the midst of a change (a write, a sync, a rename and so
    /// on): after `count` more changes the next is under way and does not come
    /// back, and every call from then on fails, until [`crash`](Simulated::crash).
    pub fn cut_power_after(&self, count: u64) {
        self.world().cut_after = Some(count);
    }

    /// Whether the power is cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.world().is_off
    }

    /// How many changes were asked of this disk: what `cut_power_after` counts.
    #[must_use]
    pub fn change_count(&self) -> u64 {
        self.world().change_count
    }

    /// Lets a fault hit one call: after `skip` more calls of its kind on names
    /// that contain `matching` (all do, if it is empty), the next one.
    pub fn inject(&self, fault: Fault, matching: &str, skip: u64) {
        self.world().plan.push(Planned {
            fault,
            matching: matching.to_owned(),
            skip,
        });
    }

    /// Forgets the faults that have not hit yet.
    pub fn heal(&self) {
        self.world().plan.clear();
    }

    /// How many bytes the files may have together; beyond it `ENOSPC`.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// Flips bits of one byte, on the disk and in the cache: rot.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file, `UnexpectedEof` behind its end.
    pub fn rot(&self, name: &str, at: u64, mask: u8) -> io::Result<()> {
        let mut byte = [0];
        let mut world = self.world();
        let inode = world.file(name)?;
        if inode.disk.read(&mut byte, at) == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        inode.disk.write(&[byte[0] ^ mask], at);
        inode.cache.write(&[byte[0] ^ mask], at);
        Ok(())
    }

    /// Puts bytes on the disk and into the cache behind the owner's back.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file.
    pub fn overwrite(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        let inode = world.file(name)?;
        for image in [&mut inode.disk, &mut inode.cache] {
            image.write(bytes, at);
            let end = at + bytes.len() as u64;
            image.set_length(image.length().max(end));
        }
        Ok(())
    }

    /// Lets reads of the sector at offset `at` fail, until it is written again.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file.
    pub fn spoil_sector(&self, name: &str, at: u64) -> io::Result<()> {
        self.world().file(name)?.bad.insert(at / SECTOR as u64);
        Ok(())
    }

    /// Forgets what is in the cache and not waiting to be written, as
    /// `POSIX_FADV_DONTNEED` does: reads see the disk.
    pub fn drop_caches(&self) {
        for inode in self.world().inodes.values_mut() {
            inode.cache = inode.without_cache();
        }
    }

    /// The bytes of a file that a crash cannot take.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file.
    pub fn durable_bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut world = self.world();
        Ok(world.file(name)?.disk.to_vec())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a change of names: counts it, and says whether the power holds.
    fn changing(&self, world: &mut World, make: impl FnOnce(&mut World)) -> io::Result<()> {
        let survives = world.begin_change()?;
        make(world);
        if survives {
            Ok(())
        } else {
            Err(world.power_cut())
        }
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world();
        write!(
            f,
            "Simulated(boot {}, {} names)",
            world.boot,
            world.names.len()
        )
    }
}
#[cfg(test)]
mod tests;
