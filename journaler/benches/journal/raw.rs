//! The bare system calls that a durable log cannot do without: the physical limit.

#![expect(
    unsafe_code,
    reason = "durable writes, advice and maps have no safe face"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytemuck::{Pod, Zeroable};

use crate::ours::Engine;
use crate::rounds::Outcome;

const BLOCK: usize = 4096;
/// As large as the ring that the journal writes from: no write finds its bytes in a nearer cache
/// than ours would.
const SOURCE_RING: usize = 4 << 20;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; BLOCK]);

/// Memory that direct writes take.
pub(crate) struct Pages(Vec<Page>);

impl Pages {
    pub(crate) fn filled(bytes: usize, with: u8) -> Pages {
        Pages(vec![Page([with; BLOCK]); bytes.div_ceil(BLOCK)])
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// A file written full of zeros, appended to as the journal's engines do, and begun again at its end.
pub(crate) struct RawFile {
    file: File,
    engine: Engine,
    length: u64,
    at: u64,
    source: Pages,
}

impl RawFile {
    pub(crate) fn zeroed(path: &Path, length: u64, engine: Engine) -> Outcome<RawFile> {
        let mut options = OpenOptions::new();
        options.write(true).read(true).create(true).truncate(true);
        let file = options.clone().custom_flags(libc::O_DIRECT).open(path)?;
        let zeros = Pages::filled(1 << 20, 0);
        for at in (0..length).step_by(1 << 20) {
            file.write_all_at(zeros.bytes(), at)?;
        }
        file.sync_all()?;
        let file = match engine {
            Engine::Direct => file,
            Engine::Sync => OpenOptions::new().write(true).read(true).open(path)?,
        };
        Ok(RawFile {
            file,
            engine,
            length,
            at: 0,
            source: Pages::filled(SOURCE_RING + (9 << 20), 0x5a),
        })
    }

    /// The next bytes go to the start of the file.
    pub(crate) fn begin_again(&mut self) {
        self.at = 0;
    }

    /// Writes so many bytes behind the last ones and makes them durable. Both ways end with a whole
    /// block, or the system would read the rest of it from the disk first; a direct write also
    /// begins with the block that it continues.
    pub(crate) fn append(&mut self, bytes: usize) -> io::Result<()> {
        if self.at + (bytes + 2 * BLOCK) as u64 > self.length {
            self.at = 0;
        }
        let at = self.at;
        self.at += bytes as u64;
        let turn = usize::try_from(at % SOURCE_RING as u64).map_err(io::Error::other)?;
        let source = &self.source.bytes()[turn - turn % BLOCK..];
        let lead = usize::try_from(at % BLOCK as u64).map_err(io::Error::other)?;
        let whole = (lead + bytes).next_multiple_of(BLOCK);
        match self.engine {
            Engine::Sync => {
                self.file.write_all_at(&source[..whole - lead], at)?;
                self.file.sync_data()
            }
            Engine::Direct => write_durable(&self.file, &source[..whole], at - lead as u64),
        }
    }
}

/// `pwritev2` with `RWF_DSYNC`.
fn write_durable(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let at = libc::off_t::try_from(at).map_err(io::Error::other)?;
    // SAFETY: `pwritev2` wants (1) an open descriptor: `file` lives on; (2) so many pieces: `piece` is
    // one; (3) readable bytes behind each, which it does not write to: `bytes` is borrowed.
    let written =
        unsafe { libc::pwritev2(file.as_raw_fd(), &raw const piece, 1, at, libc::RWF_DSYNC) };
    match usize::try_from(written) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Takes the file out of the page cache; what is not on the disk yet is put there before.
pub(crate) fn forget(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    // SAFETY: `posix_fadvise` wants an open descriptor and touches no memory.
    let answer = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    match answer {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The whole file through a buffer of a mebibyte; how many bytes that were.
pub(crate) fn read_through(path: &Path, buffer: &mut Pages) -> io::Result<u64> {
    let file = File::open(path)?;
    // SAFETY: `posix_fadvise` wants an open descriptor and touches no memory. Advice may be refused.
    let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL) };
    let mut at = 0;
    // Ends: each turn moves on in a file of fixed length.
    loop {
        match file.read_at(buffer.bytes_mut(), at)? {
            0 => return Ok(at),
            count => at += count as u64,
        }
    }
}

/// The whole file mapped, and a CRC-32C over each `piece` bytes of it: the least that a reader
/// which trusts nothing has to do.
pub(crate) fn map_and_check(path: &Path, piece: usize) -> io::Result<(u64, u32)> {
    let file = File::open(path)?;
    // SAFETY: `map` wants that nobody changes the file meanwhile: it is a sealed segment of a journal
    // that only this process has.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    let _ = map.advise(memmap2::Advice::Sequential);
    let check = map
        .chunks(piece)
        .fold(0, |all, piece| all ^ crc32c::crc32c(piece));
    Ok((map.len() as u64, check))
}
