//! What a snapshot says of itself, as bytes.

use bytemuck::{Pod, Zeroable};

use super::{PARTS_MAX, SnapshotError, SnapshotOf};
use crate::position::{Position, Reached, Term};
use crate::seekable::Summary;

const MAGIC: [u8; 8] = *b"LOCKSNAP";
const FORMAT: u32 = 1;
const BUILD_BYTES: usize = 64;

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The log's number.
    pub log: [u8; 16],
    /// The state is that after all events before this, in so many frames.
    pub reached: Reached,
    /// The consensus' number of the last frame in it.
    pub index: u64,
    /// That frame's term.
    pub term: Term,
    /// That frame's `header_crc`.
    pub chain: u32,
    /// The time of the log then.
    pub time_ns: u64,
    /// The version of the events' schema.
    pub schema_version: u32,
    /// Its hash.
    pub schema_hash: u64,
    /// Which program took it.
    pub build: String,
    /// The hash of the state, by the logic's own way of hashing.
    pub state_hash: u64,
    /// What each part must be.
    pub parts: Vec<PartRow>,
}

/// What one part must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PartRow {
    /// Bytes of the file.
    pub stored_bytes: u64,
    /// Bytes of its content.
    pub raw_bytes: u64,
    /// XXH3, 64 bits, of the content.
    pub raw_hash: u64,
    /// CRC-32C of the file.
    pub stored_crc: u32,
    reserved: u32,
}

/// ```text
///   0 magic LOCKSNAP      40 position   u64     88 schema_hash u64
///   8 format     u32      48 frames     u64     96 state_hash  u64
///  12 length     u32      56 index      u64    104 build [u8; 64], zeros behind
///  16 crc u32 over 20..   64 term       u64    168 zeros
///  20 parts      u32      72 time_ns    u64    192 parts × { stored_bytes u64, raw_bytes u64,
///  24 log       [u8; 16]  80 chain      u32                  raw_hash u64, stored_crc u32, 0 u32 }
///                         84 schema_version u32
/// ```
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    format: u32,
    length: u32,
    crc: u32,
    parts: u32,
    log: [u8; 16],
    position: u64,
    frames: u64,
    index: u64,
    term: u64,
    time_ns: u64,
    chain: u32,
    schema_version: u32,
    schema_hash: u64,
    state_hash: u64,
    build: [u8; BUILD_BYTES],
    reserved: [u8; 24],
}

const HEAD_BYTES: usize = size_of::<Head>();
const ROW_BYTES: usize = size_of::<PartRow>();
const _: () = assert!(HEAD_BYTES == 192 && ROW_BYTES == 32);

impl PartRow {
    pub(super) fn of(summary: &Summary) -> PartRow {
        PartRow {
            stored_bytes: summary.stored_bytes,
            raw_bytes: summary.raw_bytes,
            raw_hash: summary.raw_hash,
            stored_crc: summary.stored_crc,
            reserved: 0,
        }
    }
}

impl Manifest {
    /// The longest manifest.
    pub const BYTES_MAX: u64 = (HEAD_BYTES + PARTS_MAX * ROW_BYTES) as u64;

    pub(super) fn new(of: &SnapshotOf, state_hash: u64, parts: Vec<PartRow>) -> Manifest {
        let build = of.build.chars().scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= BUILD_BYTES).then_some(c)
        });
        Manifest {
            log: of.log,
            reached: of.reached,
            index: of.index,
            term: of.term,
            chain: of.chain,
            time_ns: of.time_ns,
            schema_version: of.schema_version,
            schema_hash: of.schema_hash,
            build: build.collect(),
            state_hash,
            parts,
        }
    }

    /// Its bytes, as in the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = HEAD_BYTES + self.parts.len() * ROW_BYTES;
        let mut head = Head {
            magic: MAGIC,
            format: FORMAT,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            crc: 0,
            parts: u32::try_from(self.parts.len()).unwrap_or(u32::MAX),
            log: self.log,
            position: self.reached.position.0,
            frames: self.reached.frames,
            index: self.index,
            term: self.term.0,
            time_ns: self.time_ns,
            chain: self.chain,
            schema_version: self.schema_version,
            schema_hash: self.schema_hash,
            state_hash: self.state_hash,
            build: [0; BUILD_BYTES],
            reserved: [0; 24],
        };
        for (to, from) in head.build.iter_mut().zip(self.build.bytes()) {
            *to = from;
        }
        let mut bytes = bytemuck::bytes_of(&head).to_vec();
        bytes.extend_from_slice(bytemuck::cast_slice(&self.parts));
        let crc = crc32c::crc32c(&bytes[20..]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The manifest in these bytes, which came from `name`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Damaged`] and what does not hold, [`SnapshotError::Format`].
    pub fn decode(bytes: &[u8], name: &str) -> Result<Manifest, SnapshotError> {
        let damaged = |what: &str| super::damaged(name, what.to_owned());
        let head = bytes
            .get(..HEAD_BYTES)
            .ok_or_else(|| damaged("shorter than its head"))?;
        let head: Head = bytemuck::pod_read_unaligned(head);
        if head.magic != MAGIC {
            return Err(damaged("the magic is not LOCKSNAP"));
        }
        if crc32c::crc32c(&bytes[20..]) != head.crc {
            return Err(damaged("the CRC does not hold"));
        }
        if head.format != FORMAT {
            let name = name.to_owned();
            return Err(SnapshotError::Format {
                name,
                found: head.format,
                expected: FORMAT,
            });
        }
        let rows = &bytes[HEAD_BYTES..];
        let is_whole = head.length as usize == bytes.len()
            && head.parts as usize <= PARTS_MAX
            && head.parts as usize * ROW_BYTES == rows.len();
        if !is_whole {
            return Err(damaged("its length is not what it says"));
        }
        let build = head
            .build
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(BUILD_BYTES);
        Ok(Manifest {
            log: head.log,
            reached: Reached {
                position: Position(head.position),
                frames: head.frames,
            },
            index: head.index,
            term: Term(head.term),
            chain: head.chain,
            time_ns: head.time_ns,
            schema_version: head.schema_version,
            schema_hash: head.schema_hash,
            build: String::from_utf8_lossy(&head.build[..build]).into_owned(),
            state_hash: head.state_hash,
            parts: rows
                .chunks_exact(ROW_BYTES)
                .map(bytemuck::pod_read_unaligned)
                .collect(),
        })
    }

    /// Bytes of all parts as they are stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.stored_bytes).sum()
    }

    /// Bytes of the state.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.raw_bytes).sum()
    }
}
