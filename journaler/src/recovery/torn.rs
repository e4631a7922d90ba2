//! Cutting a torn tail: copied aside, then zeroed, both durably.

use std::io::IoSlice;

use crate::directory::{MetaSlot, POOL, QUARANTINE};
use crate::error::{IoFault, OpenError};
use crate::options::Options;
use crate::position::Offset;
use crate::prepare::open_writable;
use crate::scan::{Bytes, Window};
use crate::segment::Place;
use crate::storage::{File, Open, Storage};

use super::Torn;
use super::judge::TornPlan;

/// Copies the torn tail aside and zeroes it, both durably, in this order.
pub(super) fn cut_torn_tail<S: Storage>(
    storage: &S,
    options: &Options,
    slot: &MetaSlot,
    plan: &TornPlan,
) -> Result<Torn, OpenError> {
    let name = plan.segment.file_name();
    let quarantine = format!(
        "{QUARANTINE}/{:012}-{}-{}.torn",
        plan.segment.0, plan.from, slot.open_epoch
    );
    let copied = copy_aside(storage, &name, plan.from..plan.to, &quarantine);
    if let Err(fault) = copied {
        if !fault.is_full() || !empty_pool(storage)? {
            return Err(fault.into());
        }
        copy_aside(storage, &name, plan.from..plan.to, &quarantine)?;
    }
    if !options.mutations.no_zeroing {
        let file = open_writable(storage, &name, Open::WRITE)
            .map_err(|error| IoFault::new("open", &name, error))?;
        zero(&file, &name, plan.from..plan.to)?;
    }
    Ok(Torn {
        place: Place {
            segment: plan.segment,
            offset: Offset(plan.from),
        },
        position: plan.position,
        bytes: plan.to - plan.from,
        fault: plan.fault,
        quarantine,
    })
}

/// Writes zeros over a range and makes them durable.
pub(crate) fn zero<F: File>(
    file: &F,
    name: &str,
    range: std::ops::Range<u64>,
) -> Result<(), IoFault> {
    let zeros = vec![0; 1 << 16];
    let mut at = range.start;
    // Ends: `at` rises by the length of a piece.
    while at < range.end {
        let count =
            usize::try_from((range.end - at).min(zeros.len() as u64)).unwrap_or(zeros.len());
        file.write_at(&[IoSlice::new(&zeros[..count])], at)
            .map_err(|error| IoFault::new("write", name, error).at(at))?;
        at += count as u64;
    }
    file.sync_data()
        .map_err(|error| IoFault::new("sync", name, error))
}

/// Copies a range of a file into a new one, durably. Sectors that cannot be read are filled with 0xbd.
pub(crate) fn copy_aside<S: Storage>(
    storage: &S,
    from: &str,
    range: std::ops::Range<u64>,
    to: &str,
) -> Result<(), IoFault> {
    let fault = |operation, name: &str| {
        let name = name.to_owned();
        move |error| IoFault::new(operation, &name, error)
    };
    storage
        .create_dir(QUARANTINE)
        .map_err(fault("create", QUARANTINE))?;
    let source = storage
        .open(from, Open::READ)
        .map_err(fault("open", from))?;
    let mut bytes = Bytes::Window(Window::tolerant(source, 1 << 16));
    let target = match storage.open(to, Open::CREATE) {
        // An opening that crashed here before has begun it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            storage.open(to, Open::WRITE)
        }
        other => other,
    };
    let target = target.map_err(fault("create", to))?;
    let mut at = range.start;
    // Ends: `at` rises by the length of a piece.
    while at < range.end {
        let count = usize::try_from((range.end - at).min(1 << 16)).unwrap_or(1 << 16);
        let piece = bytes.get(at, count).map_err(fault("read", from))?;
        target
            .write_at(&[IoSlice::new(piece)], at - range.start)
            .map_err(fault("write", to))?;
        at += count as u64;
    }
    target.sync_data().map_err(fault("sync", to))?;
    storage
        .sync_directory(QUARANTINE)
        .map_err(fault("sync of directory", QUARANTINE))
}

/// Gives up the spares, for room; `false` if there were none.
fn empty_pool<S: Storage>(storage: &S) -> Result<bool, IoFault> {
    let pool = POOL;
    let entries = storage
        .list(pool)
        .map_err(|error| IoFault::new("list", pool, error))?;
    for entry in &entries {
        remove(storage, &format!("{pool}/{}", entry.name))?;
    }
    Ok(!entries.is_empty())
}

pub(super) fn remove<S: Storage>(storage: &S, name: &str) -> Result<(), IoFault> {
    storage
        .remove(name)
        .map_err(|error| IoFault::new("remove", name, error))
}
