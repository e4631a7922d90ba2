//! The simulated disk as a [`Storage`]: names, directories and locks.

use std::io;
use std::time::Duration;

use super::file::SimulatedFile;
use super::world::{NameChange, Node, parent};
use super::{Fault, SYNC_NS, Simulated};
use crate::storage::{
    Access, Entry, Errno, Medium, Open, Operation, Storage, checked_directory, checked_name,
};

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

/// The lock of a simulated directory; a crash gives it free, as a reboot does.
#[derive(Debug)]
pub struct SimulatedLock {
    pub(super) disk: Simulated,
    pub(super) name: String,
    pub(super) boot: u64,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.boot == self.boot {
            world.locks.remove(&self.name);
        }
    }
}
