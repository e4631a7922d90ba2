//! What becomes of the snapshots of a node whose state a majority does not have.
//!
//! ```text
//!   agreed up to a ────────────── another state at p ──►   this node stops
//!      ▲ snapshot, stays     ▲ snapshot        ▲ snapshot  these two go to quarantine/
//! ```
//!
//! The same where a node that opens finds another state than its log says: there the last beacon in front of that was
//! agreed on.
//!
//! # Invariants
//!
//! * `AS1` Behind such an end no snapshot stays of a position that the majority has not agreed on here: the
//!   next start begins in front of it, and makes the state anew from the log.
//! * `AS2` Where the log's beginning is given up, the oldest snapshot stays, for want of another: it may be
//!   right.
//! * `AS3` Nothing is deleted.

use lockstep_journaler::Position;
use lockstep_journaler::snapshots::{SnapshotError, Snapshots};
use lockstep_journaler::storage::Storage;

/// Sets them aside, where the state was last agreed on at `agreed`, and the log begins at `oldest`.
pub(crate) fn set_aside<S: Storage>(storage: &S, agreed: Position, oldest: Position) {
    // The node has failed already: what cannot be moved stays, and is named.
    match try_set_aside(storage, agreed, oldest) {
        Ok(moved) if moved.is_empty() => {}
        Ok(moved) => {
            let moved = moved.join(", ");
            tracing::error!(
                agreed = agreed.0,
                moved,
                "the state of this node was last agreed on in front of these snapshots: they are set aside, and the next \
                 start begins without them"
            );
        }
        Err(error) => tracing::error!(
            agreed = agreed.0,
            %error,
            "snapshots behind this position may hold a wrong state, and could not be set aside: remove them with \
             `lockstep journal snapshot remove`"
        ),
    }
}

fn try_set_aside<S: Storage>(
    storage: &S,
    agreed: Position,
    oldest: Position,
) -> Result<Vec<String>, SnapshotError> {
    let snapshots = Snapshots::new(storage.clone());
    let listed = snapshots.list()?;
    let mut behind: Vec<Position> = listed
        .iter()
        .map(|one| one.position)
        .filter(|position| *position > agreed)
        .collect();
    // AS2
    if oldest > Position(0) && behind.len() == listed.len() {
        behind.sort_unstable();
        if let Some(kept) = (!behind.is_empty()).then(|| behind.remove(0)) {
            tracing::error!(
                position = kept.0,
                "the log in front of this snapshot is given up, so it stays, though nobody has agreed on its state here: \
                 if this node stops again, replace it under a new id"
            );
        }
    }
    behind
        .into_iter()
        .map(|position| snapshots.set_aside(position))
        .collect()
}

#[cfg(test)]
mod tests {
    use lockstep_journaler::snapshots::SnapshotOf;
    use lockstep_journaler::storage::Simulated;
    use lockstep_journaler::{Reached, Term};

    use super::*;

    fn disk_with(positions: &[u64]) -> Simulated {
        let disk = Simulated::new(1);
        let snapshots = Snapshots::new(disk.clone());
        for position in positions {
            let of = SnapshotOf {
                log: [7; 16],
                reached: Reached {
                    position: Position(*position),
                    frames: 1,
                },
                index: 1,
                term: Term(1),
                chain: 1,
                time_ns: 1,
                schema_version: 1,
                schema_hash: 1,
                build: String::new(),
            };
            let mut writer = snapshots.create(of).unwrap();
            writer.write(&position.to_le_bytes()).unwrap();
            writer.finish(0).unwrap();
        }
        disk
    }

    fn left(disk: &Simulated) -> Vec<u64> {
        let listed = Snapshots::new(disk.clone()).list().unwrap();
        listed.iter().map(|one| one.position.0).collect()
    }

    #[test]
    fn as1_as3_what_lies_behind_the_agreed_state_is_moved_and_kept() {
        let disk = disk_with(&[100, 200, 300]);
        let moved = try_set_aside(&disk, Position(200), Position(0)).unwrap();
        assert_eq!(left(&disk), [200, 100]);
        assert_eq!(moved, ["quarantine/snap-00000000000000000300.0"]);
        assert_eq!(disk.list(&moved[0]).unwrap().len(), 2);
        let moved = try_set_aside(&disk, Position(0), Position(0)).unwrap();
        assert_eq!((left(&disk), moved.len()), (vec![], 2));
    }

    #[test]
    fn as2_the_last_one_stays_where_the_log_begins_later() {
        let disk = disk_with(&[100, 200]);
        try_set_aside(&disk, Position(0), Position(80)).unwrap();
        assert_eq!(left(&disk), [100]);
        let disk = disk_with(&[100, 200]);
        try_set_aside(&disk, Position(150), Position(80)).unwrap();
        assert_eq!(left(&disk), [100]);
    }
}
