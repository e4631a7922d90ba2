//! `raft-engine`: a group is one entry of one region, without compression (the events do not
//! compress). Its files grow by `fallocate`, or are written full of zeros before (`prefilled`).

use std::path::Path;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::contender::{Contender, Read, Source};
use crate::event::RING;
use crate::rounds::Outcome;

const REGION: u64 = 1;
/// Of a file: the first is never prefilled, so what is measured begins in the second.
const FILE_BYTES: u64 = 64 << 20;

/// How its files come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    Allocated,
    Prefilled,
}

pub(crate) struct Raft {
    engine: Engine,
    source: Source,
    index: u64,
}

/// An entry is its index and the group's events.
struct Group;

impl MessageExt for Group {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let head = entry.value.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(head)
    }
}

impl Raft {
    pub(crate) fn create(directory: &Path, files: Files, bytes: u64) -> Outcome<Raft> {
        let config = Config {
            dir: text(directory)?,
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(FILE_BYTES),
            prefill_for_recycle: files == Files::Prefilled,
            prefill_limit: (files == Files::Prefilled).then_some(ReadableSize(bytes)),
            ..Config::default()
        };
        let mut raft = Raft {
            engine: Engine::open(config)?,
            source: Source::new(),
            index: 0,
        };
        if files == Files::Prefilled {
            // The first file is full then, and the next one was prefilled.
            let groups = FILE_BYTES / (RING as u64 / 4 * 64) + 1;
            for _ in 0..groups {
                raft.put(RING / 4, false)?;
            }
            raft.engine.sync()?;
        }
        Ok(raft)
    }

    fn put(&mut self, events: usize, is_durable: bool) -> Outcome<()> {
        self.index += 1;
        let [first, second] = self.source.take(events);
        let mut value = Vec::with_capacity(8 + first.len() + second.len());
        value.extend_from_slice(&self.index.to_le_bytes());
        value.extend_from_slice(first);
        value.extend_from_slice(second);
        let entry = BytesValue {
            value,
            ..BytesValue::default()
        };
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Group>(REGION, &[entry])?;
        self.engine.write(&mut batch, is_durable)?;
        Ok(())
    }
}

impl Contender for Raft {
    fn append(&mut self, events: usize) -> Outcome<()> {
        self.put(events, true)
    }

    fn write(&mut self, events: usize) -> Outcome<()> {
        self.put(events, false)
    }
}

/// Opens it, which fills its table of entries, and fetches them in order, 64 at a time.
pub(crate) fn read(directory: &Path) -> Outcome<Read> {
    let engine = Engine::open(Config {
        dir: text(directory)?,
        ..Config::default()
    })?;
    let (Some(first), Some(last)) = (engine.first_index(REGION), engine.last_index(REGION)) else {
        return Ok(Read::default());
    };
    let mut read = Read::default();
    let mut entries = Vec::new();
    for from in (first..=last).step_by(64) {
        entries.clear();
        engine.fetch_entries_to::<Group>(
            REGION,
            from,
            (from + 64).min(last + 1),
            None,
            &mut entries,
        )?;
        for entry in &entries {
            read.add_bytes(&entry.value[8..]);
        }
    }
    Ok(read)
}

fn text(directory: &Path) -> Outcome<String> {
    Ok(directory
        .to_str()
        .ok_or("the directory is not UTF-8")?
        .to_owned())
}
