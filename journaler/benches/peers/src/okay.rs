//! `okaywal`: one file of zeros, large enough, so that it never checkpoints; a group is an entry of
//! one chunk. It reads back when it is opened, and only then.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use okaywal::{
    Configuration, Entry, EntryId, LogManager, ReadChunkResult, SegmentReader, WriteAheadLog,
};

use crate::contender::{Contender, Read, Source};
use crate::rounds::Outcome;

pub(crate) struct Okay {
    log: WriteAheadLog,
    source: Source,
}

/// The file is never full, and a write of the longest group needs no second turn of its buffer.
fn configuration(directory: &Path, bytes: u64) -> Configuration {
    Configuration::default_for(directory)
        .preallocate_bytes(u32::try_from(bytes).unwrap_or(u32::MAX))
        .checkpoint_after_bytes(u64::MAX)
}

impl Okay {
    pub(crate) fn create(directory: &Path, bytes: u64) -> Outcome<Okay> {
        let keeper = Keeper::default();
        Ok(Okay {
            log: configuration(directory, bytes).open(keeper)?,
            source: Source::new(),
        })
    }
}

impl Contender for Okay {
    fn append(&mut self, events: usize) -> Outcome<()> {
        let [first, second] = self.source.take(events);
        let mut entry = self.log.begin_entry()?;
        // A chunk that is written in two parts is still one chunk.
        let length = u32::try_from(first.len() + second.len())?;
        let mut chunk = entry.begin_chunk(length)?;
        std::io::Write::write_all(&mut chunk, first)?;
        std::io::Write::write_all(&mut chunk, second)?;
        chunk.finish()?;
        entry.commit()?;
        Ok(())
    }
}

/// Adds up what it is shown.
#[derive(Debug, Default, Clone)]
struct Keeper(Arc<Mutex<Read>>);

impl LogManager for Keeper {
    fn recover(&mut self, entry: &mut Entry<'_>) -> std::io::Result<()> {
        loop {
            let mut chunk = match entry.read_chunk()? {
                ReadChunkResult::Chunk(chunk) => chunk,
                ReadChunkResult::EndOfEntry | ReadChunkResult::AbortedEntry => return Ok(()),
            };
            let bytes = chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add_bytes(&bytes);
        }
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> std::io::Result<()> {
        Err(std::io::Error::other("nothing is to be given up here"))
    }
}

pub(crate) fn read(directory: &Path) -> Outcome<Read> {
    let keeper = Keeper::default();
    let read = Arc::clone(&keeper.0);
    let log = configuration(directory, 1 << 20).open(keeper)?;
    drop(log);
    Ok(*read.lock().unwrap_or_else(PoisonError::into_inner))
}
