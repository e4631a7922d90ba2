//! Sealed segments for another place, and the list that says what they must be.
//!
//! Shipping is archiving, repeatedly, with a list: whatever carries files (a
//! mounted share, `rsync`, an object store) can carry the directory, in any order
//! and with interruptions, and the other side knows from `SHIPPED` what it has,
//! what is missing, and whether each file is what was sent.
//!
//! ```text
//!  shipped/000000000007.seg.zst, .about      as in an archive
//!  shipped/SHIPPED                           lockstep shipment 1
//!                                            7 1000000 1250000 0a1b2c3d 55667788 0123456789abcdef 41234
//!                                            segment, first and end position, chain before and behind,
//!                                            hash of the segment, bytes of the compressed file
//!                                            crc 89abcdef
//! ```
//!
//! # Invariants
//!
//! * `SH1` A segment is in the list only when its files are there, whole and durable.
//! * `SH2` The list's segments follow one another: position and chain go on.

use std::fmt::Write as _;
use std::io;

use crate::archive::{Archive, Archived};
use crate::position::{Position, SegmentId};
use crate::storage::Storage;
use crate::tools::{Catalog, Progress, ToolError, read_whole, write_whole};

/// The list's name.
pub const LIST_NAME: &str = "SHIPPED";

const FIRST_LINE: &str = "lockstep shipment 1";

/// A line for each segment; 64 bytes of numbers and some room.
const LIST_BYTES_MAX: u64 = 256 << 20;

/// What was shipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shipped {
    /// All segments in the list, in order.
    pub segments: Vec<ShippedSegment>,
    /// How many of them are new.
    pub new: usize,
}

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShippedSegment {
    /// Its number.
    pub segment: SegmentId,
    /// Its first event.
    pub first_position: Position,
    /// Behind its last event.
    pub end_position: Position,
    /// The chain before its first frame.
    pub prev_chain: u32,
    /// The chain behind its last frame.
    pub chain: u32,
    /// XXH3, 64 bits, of the segment.
    pub raw_hash: u64,
    /// Bytes of the compressed file.
    pub stored_bytes: u64,
}

/// Ships all sealed segments that are not in the destination's list yet.
///
/// # Errors
///
/// As [`Archive::put`]; what is in the list until then stays good.
pub fn ship<S: Storage, A: Storage>(
    journal: &S,
    destination: &A,
    progress: Progress<'_>,
) -> Result<Shipped, ToolError> {
    let catalog = Catalog::of_journal(journal)?;
    let archive = Archive::new(destination.clone());
    let mut shipped = Shipped {
        segments: list(destination)?,
        new: 0,
    };
    let all: u64 = catalog.sealed().map(|(segment, ..)| segment.length).sum();
    let mut before = 0;
    for (segment, ..) in catalog.sealed() {
        let next = shipped
            .segments
            .last()
            .map_or(segment.id, |last| last.segment.next());
        if segment.id >= next {
            let archived = archive.put(journal, segment, &mut |done, _| {
                progress(before + done, all)
            })?;
            shipped
                .segments
                .push(following(shipped.segments.last(), &archived)?);
            write_whole(destination, LIST_NAME, encode(&shipped.segments).as_bytes())?;
            shipped.new += 1;
        }
        before += segment.length;
    }
    Ok(shipped)
}

/// What the destination's list says; nothing if there is none.
///
/// # Errors
///
/// [`ToolError::Damaged`] for a list that does not hold.
pub fn list<A: Storage>(destination: &A) -> Result<Vec<ShippedSegment>, ToolError> {
    let bytes = match read_whole(destination, LIST_NAME, LIST_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(ToolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let text = std::str::from_utf8(&bytes).ok();
    text.and_then(decode)
        .ok_or_else(|| ToolError::damaged(LIST_NAME, "its lines or their CRC do not hold"))
}

/// Reads all that the list says is there, to the last byte.
///
/// # Errors
///
/// [`ToolError::Damaged`] for the first that is missing or not what was sent.
pub fn verify<A: Storage>(
    destination: &A,
    progress: Progress<'_>,
) -> Result<Vec<ShippedSegment>, ToolError> {
    let archive = Archive::new(destination.clone());
    let segments = list(destination)?;
    let all = segments.iter().map(|segment| segment.stored_bytes).sum();
    let mut done = 0;
    for (at, segment) in segments.iter().enumerate() {
        let found = archive.verify(segment.segment)?;
        let before = at.checked_sub(1).and_then(|before| segments.get(before));
        if following(before, &found)? != *segment {
            let name = segment.segment.file_name();
            return Err(ToolError::damaged(
                &name,
                format!("it is not the one in {LIST_NAME}"),
            ));
        }
        done += segment.stored_bytes;
        progress(done, all);
    }
    Ok(segments)
}

/// The line of a segment that follows the last one (`SH2`).
fn following(
    last: Option<&ShippedSegment>,
    archived: &Archived,
) -> Result<ShippedSegment, ToolError> {
    let follows = last.is_none_or(|last| {
        last.segment.next() == archived.segment
            && last.end_position == archived.first_position
            && last.chain == archived.prev_chain
    });
    if !follows {
        let what =
            format!("it does not follow what {LIST_NAME} ends with: ship into an empty directory");
        return Err(ToolError::damaged(&archived.segment.file_name(), what));
    }
    Ok(ShippedSegment {
        segment: archived.segment,
        first_position: archived.first_position,
        end_position: archived.end_position,
        prev_chain: archived.prev_chain,
        chain: archived.chain,
        raw_hash: archived.raw_hash,
        stored_bytes: archived.stored_bytes,
    })
}

fn encode(segments: &[ShippedSegment]) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for one in segments {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} {} {} {:08x} {:08x} {:016x} {}",
            one.segment,
            one.first_position,
            one.end_position,
            one.prev_chain,
            one.chain,
            one.raw_hash,
            one.stored_bytes
        );
    }
    let crc = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "crc {crc:08x}");
    text
}

fn decode(text: &str) -> Option<Vec<ShippedSegment>> {
    let (lines, crc) = text.strip_suffix('\n')?.rsplit_once("\ncrc ")?;
    let lines = format!("{lines}\n");
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(lines.as_bytes()) {
        return None;
    }
    lines
        .strip_prefix(FIRST_LINE)?
        .strip_prefix('\n')?
        .lines()
        .map(decode_line)
        .collect()
}

fn decode_line(line: &str) -> Option<ShippedSegment> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    let segment = ShippedSegment {
        segment: SegmentId(word()?.parse().ok()?),
        first_position: Position(word()?.parse().ok()?),
        end_position: Position(word()?.parse().ok()?),
        prev_chain: u32::from_str_radix(word()?, 16).ok()?,
        chain: u32::from_str_radix(word()?, 16).ok()?,
        raw_hash: u64::from_str_radix(word()?, 16).ok()?,
        stored_bytes: word()?.parse().ok()?,
    };
    word().is_none().then_some(segment)
}
