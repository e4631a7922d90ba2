//! Names, files and faults of one simulated disk, and what a crash leaves of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::inode::{Change, Inode, settle};
use super::{Fault, Unsynced, WRITE_NS};
use crate::storage::{Entry, Errno, Operation};

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) names: Names,
    pub(super) durable_names: Names,
    pub(super) changes: Vec<NameChange>,
    pub(super) locks: BTreeSet<String>,
    /// Counts the crashes; a handle carries the one it was opened under (`SD3`).
    pub(super) boot: u64,
    pub(super) is_off: bool,
    pub(super) cut_after: Option<u64>,
    pub(super) change_count: u64,
    pub(super) plan: Vec<Planned>,
    pub(super) capacity: u64,
    pub(super) now_ns: u64,
    pub(super) random: Random,
}

pub(super) type Names = BTreeMap<String, Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(u64),
}

#[derive(Debug, Clone)]
pub(super) struct NameChange {
    /// Whose sync makes it durable.
    pub(super) directory: String,
    /// The name that goes; empty if none does.
    pub(super) from: String,
    /// The name that appears, and what it names.
    pub(super) to: Option<(String, Node)>,
}

#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) fault: Fault,
    pub(super) matching: String,
    pub(super) skip: u64,
}

impl World {
    pub(super) fn must_be_on(&self) -> io::Result<()> {
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
    pub(super) fn power_cut(&self) -> io::Error {
        io::Error::other("the power of the simulated disk is cut")
    }

    /// Counts a change; `false` if the power goes while it is under way.
    pub(super) fn begin_change(&mut self) -> io::Result<bool> {
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
    pub(super) fn fault(&mut self, operation: Operation, name: &str) -> Option<Fault> {
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

    pub(super) fn file(&mut self, name: &str) -> io::Result<&mut Inode> {
        match self.names.get(name) {
            Some(Node::File(inode)) => Ok(self
                .inodes
                .get_mut(inode)
                .expect("a name names an inode that exists")),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn must_have_directory(&self, name: &str) -> io::Result<()> {
        match self.names.get(name) {
            _ if name.is_empty() => Ok(()),
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn entries(&self, directory: &str) -> Vec<Entry> {
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

    pub(super) fn used(&self) -> u64 {
        let is_named = |node: &Node| match node {
            Node::File(inode) => self.inodes[inode].cache.length(),
            Node::Directory => 0,
        };
        self.names.values().map(is_named).sum()
    }

    pub(super) fn create(&mut self, name: &str) {
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

    pub(super) fn unlink(&mut self, name: &str) {
        self.change(NameChange {
            directory: parent(name).to_owned(),
            from: name.to_owned(),
            to: None,
        });
    }

    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
        self.forget_unreachable();
    }

    /// Makes the changes of one directory durable, in order (`ST4`).
    pub(super) fn sync_names(&mut self, directory: &str) {
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

    pub(super) fn forget_unreachable(&mut self) {
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

    pub(super) fn crash(&mut self, keep: &mut dyn FnMut(&Unsynced) -> bool) {
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

impl World {
    pub(super) fn file_at(&mut self, inode: u64) -> &mut Inode {
        self.inodes
            .get_mut(&inode)
            .expect("an open file of this boot keeps its inode")
    }

    /// How many of `length` bytes at `at` there is room for.
    pub(super) fn room(&mut self, inode: u64, at: u64, length: usize) -> usize {
        let free = self.capacity.saturating_sub(self.used());
        let end = at + length as u64;
        let grows = end.saturating_sub(self.file_at(inode).cache.length());
        let missing = usize::try_from(grows.saturating_sub(free)).unwrap_or(length);
        length.saturating_sub(missing)
    }

    /// A durable write makes its own changes durable, and no others.
    pub(super) fn settle_own(&mut self, inode: u64, before: usize, name: &str) -> io::Result<()> {
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
    pub(super) fn apply(&self, names: &mut Names) {
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
    pub(super) fn moved(&self) -> Option<(String, Node)> {
        self.to.as_ref().map(|(_, node)| (self.from.clone(), *node))
    }

    pub(super) fn described(&self) -> Unsynced {
        let name = self.to.as_ref().map_or(&self.from, |(name, _)| name);
        Unsynced::Name {
            directory: self.directory.clone(),
            name: name.clone(),
        }
    }
}

/// The directory that a name lies in; `""` for the root.
pub(super) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// A small generator (splitmix64): the campaign needs spread, not secrecy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
