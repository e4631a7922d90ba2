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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Access, DIRECT_ALIGN, Entry, Errno, File, Mapped, Medium, Open, Operation, Storage,
    checked_directory, checked_name, total,
};

mod image;

use image::{Image, SECTOR};

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

#[derive(Debug, Clone)]
struct World {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: Names,
    durable_names: Names,
    changes: Vec<NameChange>,
    locks: BTreeSet<String>,
    /// Counts the crashes; a handle carries the one it was opened under (`SD3`).
    boot: u64,
    is_off: bool,
    cut_after: Option<u64>,
    change_count: u64,
    plan: Vec<Planned>,
    capacity: u64,
    now_ns: u64,
    random: Random,
}

type Names = BTreeMap<String, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(u64),
}

#[derive(Debug, Clone)]
struct NameChange {
    /// Whose sync makes it durable.
    directory: String,
    /// The name that goes; empty if none does.
    from: String,
    /// The name that appears, and what it names.
    to: Option<(String, Node)>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What it was called when it was last opened; for reports.
    name: String,
    cache: Image,
    disk: Image,
    unsynced: Vec<Change>,
    bad: BTreeSet<u64>,
    is_read_only: bool,
    open_count: usize,
}

#[derive(Debug, Clone)]
enum Change {
    Sector {
        seen_at: u64,
        lands_at: u64,
        bytes: Arc<[u8; SECTOR]>,
    },
    Length(u64),
}

#[derive(Debug, Clone)]
struct Planned {
    fault: Fault,
    matching: String,
    skip: u64,
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
            let mut cache = inode.disk.clone();
            for change in &inode.unsynced {
                show(&mut cache, change);
            }
            inode.cache = cache;
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

impl Storage for Simulated {
    type File = SimulatedFile;
    type Lock = SimulatedLock;

    fn open(&self, name: &str, how: Open) -> io::Result<SimulatedFile> {
        let name = checked_name(name)?;
        let mut world = self.world();
        world.must_be_on()?;
        let inode = match (world.names.get(name).copied(), how.access) {
            (Some(Node::Directory), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), Access::Create) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Some(Node::File(inode)), _) => inode,
            (None, Access::Create) => {
                world.must_have_directory(parent(name))?;
                let inode = world.next_inode;
                self.changing(&mut world, |world| world.create(name))?;
                inode
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let file = world
            .inodes
            .get_mut(&inode)
            .expect("a name names an inode that exists");
        if file.is_read_only && how.access == Access::Write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        file.open_count += 1;
        name.clone_into(&mut file.name);
        Ok(SimulatedFile {
            disk: self.clone(),
            inode,
            boot: world.boot,
            how,
            name: name.to_owned(),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (checked_name(from)?, checked_name(to)?);
        let mut world = self.world();
        world.must_be_on()?;
        world.must_have_directory(parent(to))?;
        let Some(&node) = world.names.get(from) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if node == Node::Directory || world.names.get(to) == Some(&Node::Directory) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.changing(&mut world, |world| {
            world.change(NameChange {
                directory: parent(to).to_owned(),
                from: from.to_owned(),
                to: Some((to.to_owned(), node)),
            });
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let name = checked_name(name)?;
        let mut world = self.world();
        world.must_be_on()?;
        match world.names.get(name) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(_)) => self.changing(&mut world, |world| world.unlink(name)),
        }
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        let name = checked_name(name)?;
        let mut world = self.world();
        world.must_be_on()?;
        match world.names.get(name) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            Some(Node::Directory) if !world.entries(name).is_empty() => {
                Err(io::ErrorKind::DirectoryNotEmpty.into())
            }
            Some(Node::Directory) => self.changing(&mut world, |world| world.unlink(name)),
        }
    }

    fn list(&self, directory: &str) -> io::Result<Vec<Entry>> {
        let directory = checked_directory(directory)?;
        let world = self.world();
        world.must_be_on()?;
        Ok(world.entries(directory))
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        let name = checked_name(name)?;
        let mut world = self.world();
        world.must_be_on()?;
        match world.names.get(name) {
            Some(Node::Directory) => return Ok(()),
            Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => world.must_have_directory(parent(name))?,
        }
        self.changing(&mut world, |world| {
            world.change(NameChange {
                directory: parent(name).to_owned(),
                from: String::new(),
                to: Some((name.to_owned(), Node::Directory)),
            });
        })
    }

    fn sync_directory(&self, name: &str) -> io::Result<()> {
        let name = checked_directory(name)?;
        let mut world = self.world();
        world.must_be_on()?;
        world.must_have_directory(name)?;
        if !world.begin_change()? {
            return Err(world.power_cut());
        }
        world.now_ns += SYNC_NS;
        match world.fault(Operation::SyncDirectory, name) {
            Some(Fault::DirectorySyncError) => Err(Errno::Io.error()),
            Some(_) => Ok(()),
            None => {
                world.sync_names(name);
                Ok(())
            }
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let world = self.world();
        world.must_be_on()?;
        Ok(world.capacity.saturating_sub(world.used()))
    }

    fn medium(&self) -> io::Result<Medium> {
        Ok(Medium {
            name: "simulated".to_owned(),
            is_durable: true,
        })
    }

    fn lock(&self, name: &str) -> io::Result<SimulatedLock> {
        let name = checked_name(name)?;
        let mut world = self.world();
        world.must_be_on()?;
        if !world.locks.insert(name.to_owned()) {
            let holder = format!("another handle of this simulated disk, boot {}", world.boot);
            return Err(io::Error::new(io::ErrorKind::WouldBlock, holder));
        }
        Ok(SimulatedLock {
            disk: self.clone(),
            name: name.to_owned(),
            boot: world.boot,
        })
    }

    fn holder(&self, name: &str) -> io::Result<Option<String>> {
        let world = self.world();
        world.must_be_on()?;
        let is_held = world.locks.contains(checked_name(name)?);
        Ok(is_held.then(|| format!("another handle of this simulated disk, boot {}", world.boot)))
    }

    fn set_read_only(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.must_be_on()?;
        world.file(checked_name(name)?)?.is_read_only = true;
        Ok(())
    }

    fn set_writable(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.must_be_on()?;
        world.file(checked_name(name)?)?.is_read_only = false;
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.world().now_ns
    }

    fn pause(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let mut world = self.world();
        world.now_ns = world.now_ns.saturating_add(ns);
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

impl World {
    fn must_be_on(&self) -> io::Result<()> {
        if self.is_off {
            Err(self.power_cut())
        } else {
            Ok(())
        }
    }

    #[expect(
        clippy::unused_self,
        reason = "reads as what it is: the state of this disk"
    )]
    fn power_cut(&self) -> io::Error {
        io::Error::other("the power of the simulated disk is cut")
    }

    /// Counts a change; `false` if the power goes while it is under way.
    fn begin_change(&mut self) -> io::Result<bool> {
        self.must_be_on()?;
        self.change_count += 1;
        self.now_ns += WRITE_NS;
        match &mut self.cut_after {
            None => Ok(true),
            Some(0) => {
                self.is_off = true;
                Ok(false)
            }
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
        }
    }

    /// The fault that hits this call, if one does.
    fn fault(&mut self, operation: Operation, name: &str) -> Option<Fault> {
        let mut hit = None;
        for (index, planned) in self.plan.iter_mut().enumerate() {
            if planned.fault.operation() != operation || !name.contains(planned.matching.as_str()) {
                continue;
            }
            if planned.skip > 0 {
                planned.skip -= 1;
            } else if hit.is_none() {
                hit = Some(index);
            }
        }
        hit.map(|index| self.plan.remove(index).fault)
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Inode> {
        match self.names.get(name) {
            Some(Node::File(inode)) => Ok(self
                .inodes
                .get_mut(inode)
                .expect("a name names an inode that exists")),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn must_have_directory(&self, name: &str) -> io::Result<()> {
        match self.names.get(name) {
            _ if name.is_empty() => Ok(()),
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn entries(&self, directory: &str) -> Vec<Entry> {
        let inside = self
            .names
            .iter()
            .filter(|(name, _)| parent(name) == directory);
        inside
            .map(|(name, node)| Entry {
                name: name
                    .rsplit_once('/')
                    .map_or(name.as_str(), |(_, last)| last)
                    .to_owned(),
                is_directory: *node == Node::Directory,
                length: match node {
                    Node::Directory => 0,
                    Node::File(inode) => self.inodes[inode].cache.length(),
                },
            })
            .collect()
    }

    fn used(&self) -> u64 {
        let is_named = |node: &Node| match node {
            Node::File(inode) => self.inodes[inode].cache.length(),
            Node::Directory => 0,
        };
        self.names.values().map(is_named).sum()
    }

    fn create(&mut self, name: &str) {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(
            inode,
            Inode {
                name: name.to_owned(),
                ..Inode::default()
            },
        );
        self.change(NameChange {
            directory: parent(name).to_owned(),
            from: String::new(),
            to: Some((name.to_owned(), Node::File(inode))),
        });
    }

    fn unlink(&mut self, name: &str) {
        self.change(NameChange {
            directory: parent(name).to_owned(),
            from: name.to_owned(),
            to: None,
        });
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
        self.forget_unreachable();
    }

    /// Makes the changes of one directory durable, in order (`ST4`).
    fn sync_names(&mut self, directory: &str) {
        let (now, later): (Vec<_>, Vec<_>) = self
            .changes
            .drain(..)
            .partition(|change| change.directory == directory);
        self.changes = later;
        for change in now {
            change.apply(&mut self.durable_names);
            // A file that moved here has left where it came from: what waits there
            // about its old name would bring it back under two names.
            if !change.from.is_empty() && parent(&change.from) != directory {
                self.changes
                    .retain(|other| other.to.as_ref() != change.moved().as_ref());
            }
        }
        self.forget_unreachable();
    }

    fn forget_unreachable(&mut self) {
        if self.inodes.len() <= self.names.len() {
            return;
        }
        let mut reachable = BTreeSet::new();
        let changed = self
            .changes
            .iter()
            .filter_map(|change| change.to.as_ref().map(|(_, node)| node));
        for node in self
            .names
            .values()
            .chain(self.durable_names.values())
            .chain(changed)
        {
            if let Node::File(inode) = node {
                reachable.insert(*inode);
            }
        }
        self.inodes
            .retain(|inode, file| file.open_count > 0 || reachable.contains(inode));
    }

    fn crash(&mut self, keep: &mut dyn FnMut(&Unsynced) -> bool) {
        for inode in self.inodes.values_mut() {
            inode.crash(keep);
        }
        let mut lost = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            if !keep(&change.described()) || lost.contains(&change.directory) {
                lost.insert(change.directory);
            } else {
                change.apply(&mut self.durable_names);
            }
        }
        drop_orphans(&mut self.durable_names);
        self.names = self.durable_names.clone();
        self.locks.clear();
        self.boot += 1;
        self.is_off = false;
        self.cut_after = None;
        for inode in self.inodes.values_mut() {
            inode.open_count = 0;
        }
        let named: BTreeSet<u64> = self
            .names
            .values()
            .filter_map(|node| match node {
                Node::File(inode) => Some(*inode),
                Node::Directory => None,
            })
            .collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }
}

/// Removes names whose directory was lost.
fn drop_orphans(names: &mut Names) {
    // Ends: each turn removes a name, or is the last. A directory sorts before
    // what is in it, so one turn nearly always is.
    loop {
        let is_there = |name: &str| {
            parent(name).is_empty() || names.get(parent(name)) == Some(&Node::Directory)
        };
        let orphans: Vec<String> = names
            .keys()
            .filter(|name| !is_there(name))
            .cloned()
            .collect();
        if orphans.is_empty() {
            return;
        }
        for name in orphans {
            names.remove(&name);
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        if !self.from.is_empty() {
            let is_same = match &self.to {
                // The old name may name another file by now.
                Some((_, node)) => names.get(&self.from) == Some(node),
                None => true,
            };
            if is_same {
                names.remove(&self.from);
            }
        }
        if let Some((name, node)) = &self.to {
            names.insert(name.clone(), *node);
        }
    }

    /// The old name with the file it named: what a change that created it says.
    fn moved(&self) -> Option<(String, Node)> {
        self.to.as_ref().map(|(_, node)| (self.from.clone(), *node))
    }

    fn described(&self) -> Unsynced {
        let name = self.to.as_ref().map_or(&self.from, |(name, _)| name);
        Unsynced::Name {
            directory: self.directory.clone(),
            name: name.clone(),
        }
    }
}

impl Inode {
    /// Makes everything durable that waits (`ST4`).
    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            settle(&mut self.disk, &change);
        }
        self.disk.drop_behind_the_end();
    }

    fn crash(&mut self, keep: &mut dyn FnMut(&Unsynced) -> bool) {
        for change in std::mem::take(&mut self.unsynced) {
            if keep(&described(&self.name, &change)) {
                settle(&mut self.disk, &change);
            }
        }
        self.disk.drop_behind_the_end();
        self.cache = self.disk.clone();
    }

    /// Writes into the cache and notes the sectors as unsynced.
    fn write(&mut self, bytes: &[u8], at: u64, landing: Landing) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len() as u64;
        let is_blank = bytes.iter().all(|&byte| byte == 0)
            && self.cache.is_blank(at, end)
            && self.disk.is_blank(at, end);
        // Zeros over what was never written change nothing that a crash could show.
        if !is_blank {
            self.cache.write(bytes, at);
            let sectors = at / SECTOR as u64..end.div_ceil(SECTOR as u64);
            for sector in sectors {
                self.bad.remove(&sector);
                self.note(sector, landing);
            }
        }
        if end > self.cache.length() {
            self.cache.set_length(end);
            self.unsynced.push(Change::Length(end));
        }
    }

    fn note(&mut self, sector: u64, landing: Landing) {
        let lands_at = match landing {
            Landing::Nowhere => return,
            Landing::There => sector,
            Landing::Shifted(by) => sector + by,
        };
        let bytes = Arc::new(self.cache.sector(sector));
        self.unsynced.push(Change::Sector {
            seen_at: sector,
            lands_at,
            bytes,
        });
    }

    /// A failed sync: of the changes from this one on the bytes are clean now, and nowhere. The length
    /// is the file system's own affair, and stays for the next sync.
    fn forget_bytes(&mut self, from: usize) {
        let later = self.unsynced.split_off(from);
        let lengths = later
            .into_iter()
            .filter(|change| matches!(change, Change::Length(_)));
        self.unsynced.extend(lengths);
    }

    fn set_length(&mut self, length: u64) {
        self.cache.set_length(length);
        self.unsynced.push(Change::Length(length));
    }

    fn has_bad_sector(&self, at: u64, length: u64) -> bool {
        let first = at / SECTOR as u64;
        let behind = (at + length).div_ceil(SECTOR as u64);
        self.bad.range(first..behind).next().is_some()
    }
}

/// Where the sectors of a write end up.
#[derive(Clone, Copy)]
enum Landing {
    There,
    Nowhere,
    Shifted(u64),
}

fn settle(disk: &mut Image, change: &Change) {
    match change {
        Change::Sector {
            lands_at, bytes, ..
        } => disk.write(&bytes[..], lands_at * SECTOR as u64),
        Change::Length(length) => disk.set_length(*length),
    }
}

/// As [`settle`], where the writer believes it to be.
fn show(cache: &mut Image, change: &Change) {
    match change {
        Change::Sector { seen_at, bytes, .. } => cache.write(&bytes[..], seen_at * SECTOR as u64),
        Change::Length(length) => cache.set_length(*length),
    }
}

fn described(file: &str, change: &Change) -> Unsynced {
    let file = file.to_owned();
    match change {
        Change::Sector { seen_at, .. } => Unsynced::Sector {
            file,
            sector: *seen_at,
        },
        Change::Length(length) => Unsynced::Length {
            file,
            length: *length,
        },
    }
}

/// The directory that a name lies in; `""` for the root.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The lock of a simulated directory; a crash gives it free, as a reboot does.
#[derive(Debug)]
pub struct SimulatedLock {
    disk: Simulated,
    name: String,
    boot: u64,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.boot == self.boot {
            world.locks.remove(&self.name);
        }
    }
}

/// A file of a simulated disk.
#[derive(Debug)]
pub struct SimulatedFile {
    disk: Simulated,
    inode: u64,
    boot: u64,
    how: Open,
    name: String,
}

impl SimulatedFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.disk.world();
        world.must_be_on()?;
        if world.boot != self.boot {
            return Err(io::Error::other("this file was opened before the crash"));
        }
        Ok(world)
    }

    fn write(&self, parts: &[IoSlice<'_>], at: u64, is_durable: bool) -> io::Result<()> {
        self.must_be_aligned(at, parts.iter().map(|part| &part[..]))?;
        let mut world = self.world()?;
        if self.how.access == Access::Read {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let survives = world.begin_change()?;
        let bytes: Vec<u8> = parts
            .iter()
            .map(|part| &part[..])
            .collect::<Vec<_>>()
            .concat();
        let fault = world.fault(Operation::Write, &self.name);
        if fault == Some(Fault::WriteError) {
            return Err(Errno::Io.error());
        }
        let before = world.file_at(self.inode).unsynced.len();
        let written = match fault {
            Some(Fault::ShortWrite | Fault::NoSpace) => bytes.len() / 2 / SECTOR * SECTOR,
            _ => world.room(self.inode, at, bytes.len()),
        };
        let landing = match fault {
            Some(Fault::WriteLost) => Landing::Nowhere,
            Some(Fault::WriteMisdirected) => Landing::Shifted(1 + world.random.below(64)),
            _ => Landing::There,
        };
        let file = world.file_at(self.inode);
        if !survives {
            // Some of it may be on the disk later; nobody has seen it.
            let seen = file.cache.clone();
            file.write(&bytes[..written], at, landing);
            file.cache = seen;
            return Err(world.power_cut());
        }
        file.write(&bytes[..written], at, landing);
        if written < bytes.len() {
            return Err(match fault {
                Some(Fault::NoSpace) => Errno::Full.error(),
                // As the kernel has it: what there is room for is written, and then there is none.
                _ if written > 0 || fault.is_some() => io::Error::new(
                    io::ErrorKind::WriteZero,
                    format!(
                        "short write: {written} of {} bytes at offset {at}",
                        bytes.len()
                    ),
                ),
                _ => Errno::Full.error(),
            });
        }
        if is_durable {
            world.now_ns += SYNC_NS;
            world.settle_own(self.inode, before, &self.name)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world()?;
        if !world.begin_change()? {
            return Err(world.power_cut());
        }
        world.now_ns += SYNC_NS;
        match world.fault(Operation::Sync, &self.name) {
            Some(Fault::SyncError) => {
                world.file_at(self.inode).forget_bytes(0);
                Err(Errno::Io.error())
            }
            Some(_) => Ok(()),
            None => {
                world.file_at(self.inode).sync();
                Ok(())
            }
        }
    }

    /// Direct access wants memory, offset and length aligned, as the kernel does.
    fn must_be_aligned<'a>(
        &self,
        at: u64,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        if !self.how.direct {
            return Ok(());
        }
        let is_aligned = |part: &[u8]| {
            part.len().is_multiple_of(DIRECT_ALIGN)
                && part.as_ptr().addr().is_multiple_of(DIRECT_ALIGN)
        };
        let mut parts = parts;
        if at.is_multiple_of(DIRECT_ALIGN as u64) && parts.all(is_aligned) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

impl World {
    fn file_at(&mut self, inode: u64) -> &mut Inode {
        self.inodes
            .get_mut(&inode)
            .expect("an open file of this boot keeps its inode")
    }

    /// How many of `length` bytes at `at` there is room for.
    fn room(&mut self, inode: u64, at: u64, length: usize) -> usize {
        let free = self.capacity.saturating_sub(self.used());
        let end = at + length as u64;
        let grows = end.saturating_sub(self.file_at(inode).cache.length());
        let missing = usize::try_from(grows.saturating_sub(free)).unwrap_or(length);
        length.saturating_sub(missing)
    }

    /// A durable write makes its own changes durable, and no others.
    fn settle_own(&mut self, inode: u64, before: usize, name: &str) -> io::Result<()> {
        let fault = self.fault(Operation::Sync, name);
        let file = self.file_at(inode);
        match fault {
            Some(Fault::SyncError) => {
                file.forget_bytes(before);
                Err(Errno::Io.error())
            }
            Some(_) => Ok(()),
            None => {
                for change in file.unsynced.split_off(before) {
                    if let Change::Sector { seen_at, .. } = change {
                        file.unsynced.retain(|old| !old.is_at(seen_at));
                    }
                    settle(&mut file.disk, &change);
                }
                Ok(())
            }
        }
    }
}

impl Change {
    fn is_at(&self, sector: u64) -> bool {
        matches!(self, Change::Sector { seen_at, .. } if *seen_at == sector)
    }
}

impl File for SimulatedFile {
    fn write_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        if total(parts) == 0 {
            return Ok(());
        }
        self.write(parts, at, false)
    }

    fn write_durable_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        if total(parts) == 0 {
            return Ok(());
        }
        self.write(parts, at, true)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.must_be_aligned(at, std::iter::once(&*into))?;
        let mut world = self.world()?;
        let fault = world.fault(Operation::Read, &self.name);
        let file = world.file_at(self.inode);
        let behind = file
            .cache
            .length()
            .saturating_sub(at)
            .min(into.len() as u64);
        if fault.is_some() || file.has_bad_sector(at, behind) {
            return Err(Errno::Io.error());
        }
        Ok(file.cache.read(into, at))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.world()?.file_at(self.inode).cache.length())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut world = self.world()?;
        if self.how.access == Access::Read {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let survives = world.begin_change()?;
        let now = world.file_at(self.inode).cache.length();
        if length.saturating_sub(now) > world.capacity.saturating_sub(world.used()) {
            return Err(Errno::Full.error());
        }
        world.file_at(self.inode).set_length(length);
        if survives {
            Ok(())
        } else {
            Err(world.power_cut())
        }
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
        Mapped::copied(length, |bytes| {
            let mut world = self.world()?;
            let fault = world.fault(Operation::Read, &self.name);
            let file = world.file_at(self.inode);
            if fault.is_some() || file.has_bad_sector(0, bytes.len() as u64) {
                return Err(Errno::Io.error());
            }
            file.cache.read(bytes, 0);
            Ok(())
        })
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.boot == self.boot {
            world.file_at(self.inode).open_count -= 1;
            world.forget_unreachable();
        }
    }
}

/// A small generator (splitmix64): the campaign needs spread, not secrecy.
#[derive(Debug, Clone, Copy)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[cfg(test)]
mod tests;
