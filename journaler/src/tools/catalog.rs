//! Which segments there are, by their headers and footers.

use std::fmt;

use super::{ToolError, failed};
use crate::directory::{LOCK, META, MetaFound, MetaSlot, Watermark, read_meta};
use crate::position::{Offset, Position, SegmentId};
use crate::schema::{Schema, SchemaError};
use crate::segment::{BLOCK, BlockFault, Place, SegmentFooter, SegmentHeader, is_zero};
use crate::storage::{File, Open, Storage};

/// All segment files of a directory, in the order of their numbers.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// The segments.
    pub segments: Vec<CatalogSegment>,
    /// What `journal.meta` holds.
    pub meta: MetaFound,
    /// Who has the journal open now.
    pub in_use: Option<String>,
    /// Where the durable bytes end, if the journal is open: what is behind may vanish.
    pub durable_end: Option<Place>,
}

/// One segment file, as far as header, schema and footer tell.
#[derive(Debug, Clone)]
pub struct CatalogSegment {
    /// Its number, from its name.
    pub id: SegmentId,
    /// Bytes of the file.
    pub length: u64,
    /// Its header, or what is there instead.
    pub header: Result<SegmentHeader, BlockFault>,
    /// Its schema, or what is wrong with it.
    pub schema: Result<Schema, SchemaFault>,
    /// Whether there are zeros between the descriptor and the first group.
    pub is_padded: bool,
    /// Its footer, if it is sealed.
    pub footer: Option<SegmentFooter>,
}

/// Why a segment's schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaFault {
    /// There is no header to say where it is.
    NoHeader,
    /// The descriptor does not hold.
    Damaged(SchemaError),
    /// It holds, and is not the one the header names.
    Other {
        /// As the header says.
        expected: u64,
        /// Of the descriptor.
        found: u64,
    },
}

impl fmt::Display for SchemaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaFault::NoHeader => write!(f, "schema: no header says where it is"),
            SchemaFault::Damaged(error) => error.fmt(f),
            SchemaFault::Other { expected, found } => {
                write!(
                    f,
                    "schema: expected hash {expected:016x}, found {found:016x}"
                )
            }
        }
    }
}

impl Catalog {
    /// Reads headers, schemas and footers; believes none that does not hold.
    ///
    /// # Errors
    ///
    /// [`ToolError::Io`]; what is wrong with a segment is in it.
    pub fn read<S: Storage>(storage: &S) -> Result<Catalog, ToolError> {
        let mut segments = Vec::new();
        for entry in storage
            .list("")
            .map_err(failed("listing", "the journal's directory"))?
        {
            if let Some(id) = SegmentId::of_file_name(&entry.name) {
                segments.push(CatalogSegment::read(storage, id)?);
            }
        }
        let meta = read_meta(storage).map_err(ToolError::of_fault)?;
        let in_use = storage.holder(LOCK).map_err(failed("asking for", LOCK))?;
        let durable_end = match (&in_use, &meta) {
            (Some(_), MetaFound::Slot(slot)) => Some(durable_end(storage, slot)?),
            (None, _)
            | (Some(_), MetaFound::Missing | MetaFound::Damaged | MetaFound::Future(_)) => None,
        };
        Ok(Catalog {
            segments,
            meta,
            in_use,
            durable_end,
        })
    }

    /// As [`read`](Catalog::read); a directory without segments is an error.
    ///
    /// # Errors
    ///
    /// [`ToolError::NoJournal`], and as `read`.
    pub fn of_journal<S: Storage>(storage: &S) -> Result<Catalog, ToolError> {
        let catalog = Catalog::read(storage)?;
        if catalog.segments.is_empty() {
            Err(ToolError::NoJournal)
        } else {
            Ok(catalog)
        }
    }

    /// The segments that are sealed, in order.
    pub fn sealed(
        &self,
    ) -> impl Iterator<Item = (&CatalogSegment, &SegmentHeader, &SegmentFooter)> {
        self.segments.iter().filter_map(CatalogSegment::sealed)
    }

    /// One segment.
    ///
    /// # Errors
    ///
    /// [`ToolError::NoSegment`].
    pub fn segment(&self, id: SegmentId) -> Result<&CatalogSegment, ToolError> {
        let found = self.segments.iter().find(|segment| segment.id == id);
        found.ok_or(ToolError::NoSegment { segment: id })
    }

    /// The first position of the first segment that has a header.
    #[must_use]
    pub fn first_position(&self) -> Option<Position> {
        let first = self
            .segments
            .iter()
            .find_map(|segment| segment.header.as_ref().ok());
        first.map(|header| Position(header.first_position))
    }

    /// Up to where a segment may be looked at: all of its data, or what is durable of it.
    #[must_use]
    pub fn limit_in(&self, segment: &CatalogSegment, header: &SegmentHeader) -> u64 {
        let data_end = segment
            .footer
            .map_or(header.data_limit(), |footer| footer.data_end);
        match self.durable_end {
            Some(end) if end.segment == segment.id => {
                end.offset.0.clamp(header.data_start(), data_end)
            }
            Some(end) if end.segment < segment.id => header.data_start(),
            Some(_) | None => data_end,
        }
    }

    /// Bytes of all segment files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }
}

/// The watermark of the present opening, or the hint, which is older and as true.
fn durable_end<S: Storage>(storage: &S, slot: &MetaSlot) -> Result<Place, ToolError> {
    let hint = slot.durable();
    let hint = Place {
        segment: hint.segment,
        offset: Offset(hint.offset),
    };
    let file = storage
        .open(META, Open::READ)
        .map_err(failed("opening", META))?;
    let cell = Watermark::read(&file).map_err(ToolError::of_fault)?;
    let cell = cell.filter(|cell| cell.open_epoch == slot.open_epoch);
    let cell = cell.map(|cell| Place {
        segment: cell.segment(),
        offset: cell.offset(),
    });
    Ok(cell.map_or(hint, |cell| cell.max(hint)))
}

impl CatalogSegment {
    fn read<S: Storage>(storage: &S, id: SegmentId) -> Result<CatalogSegment, ToolError> {
        let name = id.file_name();
        let file = storage
            .open(&name, Open::READ)
            .map_err(failed("opening", &name))?;
        let length = file.len().map_err(failed("reading", &name))?;
        let header = SegmentHeader::decode(&block_at(&file, 0, &name)?);
        let (schema, is_padded) = match &header {
            Ok(header) => read_schema(&file, header, &name)?,
            Err(_) => (Err(SchemaFault::NoHeader), true),
        };
        let footer = match &header {
            Ok(header) if length >= header.segment_bytes => {
                SegmentFooter::decode(&block_at(&file, header.data_limit(), &name)?, header)
            }
            Ok(_) | Err(_) => None,
        };
        Ok(CatalogSegment {
            id,
            length,
            header,
            schema,
            is_padded,
            footer,
        })
    }

    /// Header and footer, if it has both.
    #[must_use]
    pub fn sealed(&self) -> Option<(&CatalogSegment, &SegmentHeader, &SegmentFooter)> {
        Some((self, self.header.as_ref().ok()?, self.footer.as_ref()?))
    }

    /// Zeros where a header would be: prepared, and not used yet.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.header == Err(BlockFault::Zero)
    }
}

/// A block of a file; what cannot be read, or is not there, is no block of ours.
fn block_at<F: File>(file: &F, at: u64, name: &str) -> Result<Vec<u8>, ToolError> {
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(4096)];
    match file.read_at(&mut block, at) {
        Ok(_) => Ok(block),
        // A bad sector in it is damage to be reported, not a reason to see nothing at all.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {
            block.fill(0xbd);
            Ok(block)
        }
        Err(error) => Err(failed("reading", name)(error)),
    }
}

fn read_schema<F: File>(
    file: &F,
    header: &SegmentHeader,
    name: &str,
) -> Result<(Result<Schema, SchemaFault>, bool), ToolError> {
    let length = usize::try_from(header.data_start() - BLOCK).unwrap_or(0);
    let mut bytes = vec![0; length];
    match file.read_at(&mut bytes, BLOCK) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EIO) => bytes.fill(0xbd),
        Err(error) => return Err(failed("reading", name)(error)),
    }
    let (descriptor, padding) = bytes.split_at(length.min(header.schema_bytes as usize));
    let schema = match Schema::decode(descriptor) {
        Err(error) => Err(SchemaFault::Damaged(error)),
        Ok(schema) if schema.hash() != header.schema_hash => Err(SchemaFault::Other {
            expected: header.schema_hash,
            found: schema.hash(),
        }),
        Ok(schema) => Ok(schema),
    };
    Ok((schema, is_zero(padding)))
}
