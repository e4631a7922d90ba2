//! Sealing the newest segment of a journal that nobody has open, so that an archive takes all of it.
//!
//! A segment is sealed when it is full, and only sealed ones are archived: they never change again. A small
//! journal has one segment, which is not full for a long time. It is opened here as its owner opens it, with
//! the schema of that segment, and closed in order: what comes next goes into a new one.

use crate::Journal;
use crate::options::{Background, Existing, Options};
use crate::position::SegmentId;
use crate::storage::Storage;

use super::{Catalog, CatalogSegment, ToolError, lock};

impl Catalog {
    /// The newest segment, if it is not sealed and has a header: what no archive takes yet.
    #[must_use]
    pub fn unsealed(&self) -> Option<&CatalogSegment> {
        let newest = self.segments.iter().rev().find(|one| one.header.is_ok())?;
        newest.footer.is_none().then_some(newest)
    }
}

/// Seals the newest segment; `None` if there is none that has events and is not sealed.
///
/// # Errors
///
/// [`ToolError::InUse`], [`ToolError::NoJournal`], [`ToolError::Journal`] where the journal does not open.
pub fn seal<S: Storage>(storage: &S) -> Result<Option<SegmentId>, ToolError> {
    // Said in a tool's words; the opening takes it again.
    drop(lock(storage)?);
    let catalog = Catalog::of_journal(storage)?;
    let newest = catalog.unsealed();
    let Some((newest, Ok(header), Ok(schema))) =
        newest.map(|one| (one.id, &one.header, &one.schema))
    else {
        return Ok(None);
    };
    let options = Options {
        seals_newest: true,
        existing: Existing::Required,
        background: Background::Stepped,
        allow_volatile_medium: true,
        ..Options::new(schema).with_segment_bytes(header.segment_bytes)
    };
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| ToolError::Journal(error);
    let (journal, recovered) =
        Journal::open(storage.clone(), &options).map_err(|error| failed(error.into()))?;
    journal.close().map_err(|error| failed(error.into()))?;
    Ok(recovered.resealed.contains(&newest).then_some(newest))
}
