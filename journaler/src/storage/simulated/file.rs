//! A handle to a simulated file, as a [`File`].

use std::io;
use std::io::IoSlice;
use std::sync::MutexGuard;

use super::image::SECTOR;
use super::inode::Landing;
use super::world::World;
use super::{Fault, SYNC_NS, Simulated};
use crate::storage::{Access, DIRECT_ALIGN, Errno, File, Mapped, Open, Operation, total};

/// A file of a simulated disk.
#[derive(Debug)]
pub struct SimulatedFile {
    pub(super) disk: Simulated,
    pub(super) inode: u64,
    pub(super) boot: u64,
    pub(super) how: Open,
    pub(super) name: String,
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

    fn forget(&self, end: u64) {
        // A disk without power has forgotten it already.
        if let Ok(mut world) = self.world() {
            world.file_at(self.inode).forget(end);
        }
    }

    fn is_alone(&self) -> bool {
        self.world()
            .is_ok_and(|mut world| world.file_at(self.inode).open_count == 1)
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
