//! From what recovery found to a journal that goes on.

use std::sync::Arc;

use super::{Journal, Worker};
use crate::directory::{MetaSlot, POOL};
use crate::error::{IoFault, OpenError};
use crate::options::{Mode, Options};
use crate::position::SegmentId;
use crate::prepare::{Preparer, open_next, open_segment, provide_next};
use crate::recovery::{Content, Recovered, Recovery, Verdict};
use crate::segment::{BLOCK_BYTES, SegmentHeader};
use crate::shared::{Seal, Shared, lock};
use crate::storage::{DIRECT_ALIGN, File, Open, Storage};
use crate::writer::{Active, Writer};

impl<S: Storage> Journal<S> {
    pub(super) fn without_files(storage: S, options: &Options) -> (Journal<S>, Recovered) {
        let tail = options.start;
        let recovered = Recovered {
            reached: tail.reached,
            oldest: tail.reached.position,
            verdict: Verdict::Created,
            was_clean: false,
            finished_cut: false,
            resealed: Vec::new(),
            open_epoch: 0,
        };
        let slot = MetaSlot::new([0; 16], [0; 16]);
        let template = template(options, &slot, 0);
        let hint = crate::directory::DurableHint {
            reached: tail.reached,
            ..Default::default()
        };
        let shared = Arc::new(Shared::new(
            storage,
            options.clone(),
            template,
            Vec::new(),
            None,
            hint,
        ));
        let writer = Writer::new(Arc::clone(&shared), None, SegmentId(0), tail, 0);
        (
            Journal {
                shared,
                writer,
                background: Worker::Gone,
                lock: None,
            },
            recovered,
        )
    }

    pub(super) fn resume(
        storage: S,
        options: &Options,
        descriptor: &[u8],
        recovery: Recovery<S::File>,
    ) -> Result<(Journal<S>, Recovered), OpenError> {
        let Recovery {
            recovered,
            meta,
            tail,
            active,
            next_id,
            has_blank,
            unsealed,
        } = recovery;
        let template = template(options, meta.slot(), descriptor.len());
        let mut blocks = descriptor.to_vec();
        blocks.resize(descriptor.len().next_multiple_of(BLOCK_BYTES), 0);
        let hint = meta.slot().durable();
        let epoch = recovered.open_epoch;
        let shared = Arc::new(Shared::new(
            storage,
            options.clone(),
            template,
            blocks,
            Some(meta),
            hint,
        ));
        load_pool(&shared)?;
        for Content {
            header,
            summary,
            index,
        } in unsealed
        {
            lock(&shared.seals).push_back(Seal {
                header,
                summary,
                index,
            });
        }
        let active = active
            .map(|content| resume_segment(&shared, content))
            .transpose()?;
        if has_blank {
            lock(&shared.spares).next = Some(open_next(&shared, next_id)?);
        }
        let mut preparer = Preparer::new(Arc::clone(&shared));
        if active.is_none() && !has_blank {
            lock(&shared.spares).wanted = Some(next_id);
            match preparer.build_now() {
                Err(fault) if !fault.is_full() => return Err(fault.into()),
                // Opening works on a full disk; writing says "full" until there is room.
                _ => provide_next(&shared)?,
            };
        }
        let writer = Writer::new(Arc::clone(&shared), active, next_id, tail, epoch);
        let background = Worker::Stepped(Box::new(preparer));
        Ok((
            Journal {
                shared,
                writer,
                background,
                lock: None,
            },
            recovered,
        ))
    }
}

/// What every new segment's header says, but for where it continues.
fn template(options: &Options, slot: &MetaSlot, schema_bytes: usize) -> SegmentHeader {
    let schema = &options.schema;
    let mut schema_name = [0; 64];
    let length = schema.name.len().min(64);
    schema_name[..length].copy_from_slice(&schema.name.as_bytes()[..length]);
    SegmentHeader {
        segment_bytes: options.segment_bytes,
        window_bytes: options.window_bytes(),
        schema_version: schema.version,
        event_size: schema.event_size,
        schema_bytes: u32::try_from(schema_bytes).unwrap_or(u32::MAX),
        alignment: 64,
        engine: if options.mode == Mode::Direct { 2 } else { 1 },
        mode: options.mode.number(),
        schema_hash: schema.hash(),
        schema_name,
        ..SegmentHeader::new(slot.log_id, slot.journal_id, SegmentId(0))
    }
}

/// The spares that are whole; what was begun goes.
fn load_pool<S: Storage>(shared: &Shared<S>) -> Result<(), IoFault> {
    let storage = &shared.storage;
    storage
        .create_dir(POOL)
        .map_err(|error| IoFault::new("create", POOL, error))?;
    let entries = storage
        .list(POOL)
        .map_err(|error| IoFault::new("list", POOL, error))?;
    let mut spares = lock(&shared.spares);
    for entry in entries {
        let name = format!("{POOL}/{}", entry.name);
        let serial = entry
            .name
            .strip_suffix(".zero")
            .and_then(|digits| digits.parse::<u64>().ok());
        match serial {
            Some(serial) if entry.length == shared.options.segment_bytes => {
                spares.serial = spares.serial.max(serial);
                spares.pool.push(name);
            }
            _ => storage
                .remove(&name)
                .map_err(|error| IoFault::new("remove", &name, error))?,
        }
    }
    Ok(())
}

/// The newest segment, to be written further.
pub(super) fn resume_segment<S: Storage>(
    shared: &Shared<S>,
    content: Content,
) -> Result<Active<S::File>, IoFault> {
    let Content {
        header,
        summary,
        index,
    } = content;
    let id = SegmentId(header.segment_id);
    let name = id.file_name();
    let fault = |operation| {
        let name = name.clone();
        move |error| IoFault::new(operation, &name, error)
    };
    let file = open_segment(shared, id)?;
    let zeroed_to = file.len().map_err(fault("look"))?;
    let mut tail_block = Box::new([0; DIRECT_ALIGN]);
    let block_at = summary.data_end - summary.data_end % DIRECT_ALIGN as u64;
    let buffered = shared
        .storage
        .open(&name, Open::READ)
        .map_err(fault("open"))?;
    buffered
        .read_at(&mut tail_block[..], block_at)
        .map_err(fault("read"))?;
    let mut room = crate::index::SparseIndex::with_room(header.segment_bytes);
    for row in index.rows() {
        room.note(*row);
    }
    Ok(Active {
        durable_at: summary.data_end,
        header,
        file,
        is_blank: false,
        zeroed_to,
        summary,
        index: room,
        tail_block,
    })
}
