//! Sealed segments in another directory: compressed, checked, and able to come back.
//!
//! ```text
//!  archive/000000000007.seg.zst     the segment's bytes, zstd in frames of 1 MiB with a table:
//!                                   `zstd -d` gives the segment file back
//!  archive/000000000007.seg.about   what it is and what it must be, a line each; written last
//! ```
//!
//! A segment is archived from the moment its `.about` is there. Before that the
//! compressed file has been synced, read back from the disk, decompressed and
//! compared with the segment by hash; and the segment itself has been walked, so
//! that no damage is carried into the archive.
//!
//! # Invariants
//!
//! * `A1` An archived segment is equal, byte for byte, to the sealed one it was made of.
//! * `A2` An archive holds segments of one journal; those of another are refused.
//! * `A3` [`Archive::mark`] is behind no event of the journal that is not in the archive.

use std::fmt;
use std::fmt::Write as _;

use xxhash_rust::xxh3::Xxh3Default;

use crate::position::{Position, SegmentId};
use crate::scan::{Bytes, Window};
use crate::seekable::{SeekTable, SeekableWriter, read_frame};
use crate::segment::{SegmentFooter, SegmentHeader};
use crate::storage::{File, Open, Storage};
use crate::tools::survey::{Seen, survey};
use crate::tools::{
    Catalog, CatalogSegment, Progress, ToolError, failed, read_whole, remove_if_there, write_whole,
};

/// Raw bytes of a compressed frame.
const FRAME_BYTES: usize = 1 << 20;

/// Bytes that are read from a segment at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The longest `.about`.
const ABOUT_BYTES_MAX: u64 = 4096;

/// Who takes the content: bytes and their offset.
type Take<'a> = &'a mut dyn FnMut(&[u8], u64) -> Result<(), ToolError>;

/// A directory of archived segments.
#[derive(Debug, Clone)]
pub struct Archive<A> {
    storage: A,
}

/// What an archived segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Its number.
    pub segment: SegmentId,
    /// The log it is of, the same on every node.
    pub log_id: [u8; 16],
    /// The copy of the log it is of.
    pub journal_id: [u8; 16],
    /// Its first event.
    pub first_position: Position,
    /// Behind its last event.
    pub end_position: Position,
    /// The time of its first frame.
    pub first_time_ns: u64,
    /// The time of its last frame.
    pub last_time_ns: u64,
    /// The chain before its first frame.
    pub prev_chain: u32,
    /// The chain behind its last frame.
    pub chain: u32,
    /// Bytes of the segment.
    pub raw_bytes: u64,
    /// XXH3, 64 bits, of the segment.
    pub raw_hash: u64,
    /// Bytes of the compressed file.
    pub stored_bytes: u64,
    /// CRC-32C of the compressed file.
    pub stored_crc: u32,
}

impl<A: Storage> Archive<A> {
    /// The archive in this directory.
    pub fn new(storage: A) -> Self {
        Archive { storage }
    }

    /// Archives one sealed segment (`A1`); one that is there already is left alone.
    ///
    /// # Errors
    ///
    /// [`ToolError::NotSealed`], [`ToolError::Damaged`] for a segment that does not
    /// hold, [`ToolError::Foreign`] (`A2`), [`ToolError::Io`].
    pub fn put<S: Storage>(
        &self,
        journal: &S,
        segment: &CatalogSegment,
        progress: Progress<'_>,
    ) -> Result<Archived, ToolError> {
        let id = segment.id;
        let (_, header, footer) = segment
            .sealed()
            .ok_or(ToolError::NotSealed { segment: id })?;
        self.must_be_of(header)?;
        match self.about(id) {
            Ok(there) => return Ok(there),
            Err(ToolError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        must_hold(journal, id, header, footer)?;
        let archived = self.compress(journal, id, header, footer, progress)?;
        self.read_back(&unfinished_name(id), &archived)?;
        let name = data_name(id);
        self.storage
            .rename(&unfinished_name(id), &name)
            .map_err(failed("renaming", &name))?;
        self.storage
            .sync_directory("")
            .map_err(failed("syncing the directory of", &name))?;
        write_whole(&self.storage, &about_name(id), archived.encode().as_bytes())?;
        Ok(archived)
    }

    /// All archived segments, in order.
    ///
    /// # Errors
    ///
    /// [`ToolError::Io`], [`ToolError::Damaged`] for an `.about` that does not hold.
    pub fn list(&self) -> Result<Vec<Archived>, ToolError> {
        let names = self
            .storage
            .list("")
            .map_err(failed("listing", "the archive"))?;
        let ids = names
            .iter()
            .filter_map(|entry| SegmentId::of_file_name(entry.name.strip_suffix(".about")?));
        ids.map(|id| self.about(id)).collect()
    }

    /// What an archived segment is.
    ///
    /// # Errors
    ///
    /// As [`list`](Archive::list).
    pub fn about(&self, id: SegmentId) -> Result<Archived, ToolError> {
        let name = about_name(id);
        let bytes = read_whole(&self.storage, &name, ABOUT_BYTES_MAX)?;
        let text = std::str::from_utf8(&bytes).ok();
        let archived = text.and_then(Archived::decode);
        match archived {
            Some(archived) if archived.segment == id => Ok(archived),
            Some(_) | None => Err(ToolError::damaged(
                &name,
                "its lines or their CRC do not hold",
            )),
        }
    }

    /// Reads an archived segment and compares it with what it must be.
    ///
    /// # Errors
    ///
    /// [`ToolError::Damaged`], [`ToolError::Io`].
    pub fn verify(&self, id: SegmentId) -> Result<Archived, ToolError> {
        let archived = self.about(id)?;
        self.read_back(&data_name(id), &archived)?;
        Ok(archived)
    }

    /// Up to where the events of the journal are in the archive: everything in it
    /// before the returned position is (`A3`). `None` if its first segment is not.
    ///
    /// # Errors
    ///
    /// As [`list`](Archive::list).
    pub fn mark(&self, catalog: &Catalog) -> Result<Option<Position>, ToolError> {
        let archived = self.list()?;
        let mut mark = None;
        for (segment, header, footer) in catalog.sealed() {
            let is_there = archived.iter().any(|one| {
                one.segment == segment.id
                    && one.journal_id == header.journal_id
                    && one.chain == footer.chain
                    && one.end_position.0 == footer.end_position
            });
            if !is_there {
                break;
            }
            mark = Some(Position(footer.end_position));
        }
        Ok(mark)
    }

    /// Brings a segment back into a journal's directory, where none of its number
    /// may be.
    ///
    /// # Errors
    ///
    /// [`ToolError::Exists`], [`ToolError::Damaged`], [`ToolError::Io`].
    pub fn restore<S: Storage>(
        &self,
        id: SegmentId,
        journal: &S,
        progress: Progress<'_>,
    ) -> Result<Archived, ToolError> {
        let archived = self.about(id)?;
        let name = id.file_name();
        if journal.open(&name, Open::READ).is_ok() {
            return Err(ToolError::Exists { name });
        }
        let unfinished = format!("{name}.restoring");
        remove_if_there(journal, &unfinished)?;
        let file = journal
            .open(&unfinished, Open::CREATE)
            .map_err(failed("creating", &unfinished))?;
        self.decompress(&data_name(id), &archived, &mut |bytes, at| {
            progress(at, archived.raw_bytes);
            file.write_at(&[std::io::IoSlice::new(bytes)], at)
                .map_err(failed("writing", &unfinished))
        })?;
        file.sync_all().map_err(failed("syncing", &unfinished))?;
        journal
            .set_read_only(&unfinished)
            .map_err(failed("sealing", &unfinished))?;
        journal
            .rename(&unfinished, &name)
            .map_err(failed("renaming", &unfinished))?;
        journal
            .sync_directory("")
            .map_err(failed("syncing the directory of", &name))?;
        Ok(archived)
    }

    fn must_be_of(&self, header: &SegmentHeader) -> Result<(), ToolError> {
        for there in self.list()? {
            if there.journal_id != header.journal_id {
                return Err(ToolError::Foreign {
                    name: about_name(there.segment),
                    what: "journal",
                    expected: hex(&header.journal_id),
                    found: hex(&there.journal_id),
                });
            }
        }
        Ok(())
    }

    fn compress<S: Storage>(
        &self,
        journal: &S,
        id: SegmentId,
        header: &SegmentHeader,
        footer: &SegmentFooter,
        progress: Progress<'_>,
    ) -> Result<Archived, ToolError> {
        let (name, unfinished) = (id.file_name(), unfinished_name(id));
        let from = journal
            .open(&name, Open::READ)
            .map_err(failed("opening", &name))?;
        let length = from.len().map_err(failed("reading", &name))?;
        remove_if_there(&self.storage, &unfinished)?;
        let to = self
            .storage
            .open(&unfinished, Open::CREATE)
            .map_err(failed("creating", &unfinished))?;
        let mut writer =
            SeekableWriter::new(to, FRAME_BYTES).map_err(failed("writing", &unfinished))?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < length {
            let count = from
                .read_at(&mut piece, at)
                .map_err(failed("reading", &name))?;
            if count == 0 {
                return Err(ToolError::damaged(
                    &name,
                    "it became shorter while it was read",
                ));
            }
            writer
                .write(&piece[..count])
                .map_err(failed("writing", &unfinished))?;
            at += count as u64;
            progress(at, length);
        }
        let (to, summary) = writer.finish().map_err(failed("writing", &unfinished))?;
        to.sync_all().map_err(failed("syncing", &unfinished))?;
        Ok(Archived {
            segment: id,
            log_id: header.log_id,
            journal_id: header.journal_id,
            first_position: Position(header.first_position),
            end_position: Position(footer.end_position),
            first_time_ns: footer.first_time_ns,
            last_time_ns: footer.last_time_ns,
            prev_chain: header.prev_chain,
            chain: footer.chain,
            raw_bytes: summary.raw_bytes,
            raw_hash: summary.raw_hash,
            stored_bytes: summary.stored_bytes,
            stored_crc: summary.stored_crc,
        })
    }

    fn read_back(&self, name: &str, archived: &Archived) -> Result<(), ToolError> {
        self.decompress(name, archived, &mut |_, _| Ok(()))
    }

    /// Hands the content out in pieces with their offsets, and checks the whole of it.
    fn decompress(&self, name: &str, archived: &Archived, take: Take<'_>) -> Result<(), ToolError> {
        let file = self
            .storage
            .open(name, Open::READ)
            .map_err(unreadable(name))?;
        let table = SeekTable::read(&file).map_err(unreadable(name))?;
        let mut hash = Xxh3Default::new();
        let mut crcs = Vec::with_capacity(table.rows.len());
        let mut piece = Vec::new();
        for row in &table.rows {
            if row.raw_bytes > FRAME_BYTES {
                return Err(ToolError::damaged(
                    name,
                    "a frame holds more than frames do",
                ));
            }
            piece.resize(row.raw_bytes, 0);
            crcs.push(read_frame(&file, row, &mut piece).map_err(unreadable(name))?);
            hash.update(&piece);
            take(&piece, row.raw_at)?;
        }
        let stored_bytes = file.len().map_err(failed("reading", name))?;
        let found = (
            stored_bytes,
            table.raw_bytes(),
            table.stored_crc(&crcs),
            hash.digest(),
        );
        let expected = (
            archived.stored_bytes,
            archived.raw_bytes,
            archived.stored_crc,
            archived.raw_hash,
        );
        if found == expected {
            return Ok(());
        }
        let what = format!(
            "expected {} bytes of {} with CRC {:08x} and hash {:016x}, found {} of {} with {:08x} and {:016x}",
            expected.0, expected.1, expected.2, expected.3, found.0, found.1, found.2, found.3
        );
        Err(ToolError::damaged(name, what))
    }
}

/// Walks a sealed segment: nothing damaged goes into an archive.
pub(crate) fn must_hold<S: Storage>(
    journal: &S,
    id: SegmentId,
    header: &SegmentHeader,
    footer: &SegmentFooter,
) -> Result<(), ToolError> {
    let name = id.file_name();
    let file = journal
        .open(&name, Open::READ)
        .map_err(failed("opening", &name))?;
    let mut bytes = Bytes::Window(Window::tolerant(file, PIECE_BYTES));
    survey(
        header,
        &mut bytes,
        footer.data_end,
        &mut |seen, _| match seen {
            Seen::Fault { at, fault, .. } => Err(ToolError::damaged(
                &name,
                format!("at offset {at}: {fault}"),
            )),
            Seen::End { tail, .. } if tail.chain != footer.chain => {
                let what = format!(
                    "expected chain {:08x} at its end, found {:08x}",
                    footer.chain, tail.chain
                );
                Err(ToolError::damaged(&name, what))
            }
            Seen::End { .. } | Seen::Frame { .. } | Seen::Mark { .. } | Seen::Resumed { .. } => {
                Ok(())
            }
        },
    )
}

impl Archived {
    /// The lines of the `.about`, the last of which is the CRC of those before.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("lockstep archive 1\n{self}");
        let crc = crc32c::crc32c(text.as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    /// The lines back.
    #[must_use]
    pub fn decode(text: &str) -> Option<Archived> {
        let (lines, crc) = text.strip_suffix('\n')?.rsplit_once("\ncrc ")?;
        let lines = format!("{lines}\n");
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(lines.as_bytes()) {
            return None;
        }
        let lines = lines.strip_prefix("lockstep archive 1\n")?;
        let word = |key: &str| {
            lines
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        };
        let number = |key: &str| word(key)?.parse::<u64>().ok();
        let hex_number = |key: &str| u64::from_str_radix(word(key)?, 16).ok();
        let identity = |key: &str| {
            u128::from_str_radix(word(key)?, 16)
                .ok()
                .map(u128::to_be_bytes)
        };
        Some(Archived {
            segment: SegmentId(number("segment")?),
            log_id: identity("log")?,
            journal_id: identity("journal")?,
            first_position: Position(number("first_position")?),
            end_position: Position(number("end_position")?),
            first_time_ns: number("first_time_ns")?,
            last_time_ns: number("last_time_ns")?,
            prev_chain: u32::try_from(hex_number("prev_chain")?).ok()?,
            chain: u32::try_from(hex_number("chain")?).ok()?,
            raw_bytes: number("raw_bytes")?,
            raw_hash: hex_number("raw_xxh3")?,
            stored_bytes: number("stored_bytes")?,
            stored_crc: u32::try_from(hex_number("stored_crc")?).ok()?,
        })
    }
}

impl fmt::Display for Archived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "segment {}", self.segment)?;
        writeln!(f, "log {}", hex(&self.log_id))?;
        writeln!(f, "journal {}", hex(&self.journal_id))?;
        writeln!(f, "first_position {}", self.first_position)?;
        writeln!(f, "end_position {}", self.end_position)?;
        writeln!(f, "first_time_ns {}", self.first_time_ns)?;
        writeln!(f, "last_time_ns {}", self.last_time_ns)?;
        writeln!(f, "prev_chain {:08x}", self.prev_chain)?;
        writeln!(f, "chain {:08x}", self.chain)?;
        writeln!(f, "raw_bytes {}", self.raw_bytes)?;
        writeln!(f, "raw_xxh3 {:016x}", self.raw_hash)?;
        writeln!(f, "stored_bytes {}", self.stored_bytes)?;
        writeln!(f, "stored_crc {:08x}", self.stored_crc)
    }
}

pub(crate) fn hex(identity: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*identity))
}

fn unreadable(name: &str) -> impl FnOnce(std::io::Error) -> ToolError {
    move |error| match error.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
            ToolError::damaged(name, error.to_string())
        }
        std::io::ErrorKind::NotFound => ToolError::damaged(name, "it is missing"),
        _ => failed("reading", name)(error),
    }
}

fn data_name(id: SegmentId) -> String {
    format!("{}.zst", id.file_name())
}

fn unfinished_name(id: SegmentId) -> String {
    format!("{}.zst.tmp", id.file_name())
}

fn about_name(id: SegmentId) -> String {
    format!("{}.about", id.file_name())
}
