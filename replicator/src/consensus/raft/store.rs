//! The index of the log, as the crate wants its storage.

use lockstep_journaler::{FrameHeader, FrameKind};
use raft::eraftpb::{Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::changes::conf_state;
use crate::consensus::changes_members;
use crate::consensus::index::{LogIndex, Row};
use crate::descriptor::{DESCRIPTOR_BYTES, Descriptor};

/// The index, as the crate wants its log.
pub(super) struct Log(pub(super) LogIndex);

/// What an entry counts for in the crate's limits: its data and its fields.
pub(super) const ENTRY_BYTES: u64 = DESCRIPTOR_BYTES as u64 + 16;

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard = HardState {
            term: self.0.term,
            vote: self.0.vote,
            commit: self.0.committed,
            ..HardState::default()
        };
        Ok(RaftState::new(hard, conf_state(&self.0.members)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.0.first() {
            return Err(StorageError::Compacted.into());
        }
        let most = max_size
            .into()
            .map_or(u64::MAX, |size| (size / ENTRY_BYTES).max(1));
        let high = high.min(low.saturating_add(most));
        let mut entries = Vec::with_capacity(usize::try_from(high - low).unwrap_or(0));
        for index in low..high {
            let chain = self.0.chain_at(index - 1);
            let (Some(row), Some(chain)) = (self.0.row(index), chain) else {
                return Err(StorageError::Unavailable.into());
            };
            entries.push(entry_of_row(index, row, chain));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.0.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.0.first() => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.0.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.0.snapshot {
            Some((index, term, members)) if *index >= request_index && *index > 0 => {
                let mut snapshot = Snapshot::default();
                let meta = snapshot.mut_metadata();
                (meta.index, meta.term) = (*index, *term);
                meta.set_conf_state(conf_state(members));
                Ok(snapshot)
            }
            Some(_) | None => Err(StorageError::SnapshotTemporarilyUnavailable.into()),
        }
    }
}

pub(super) fn entry_of(header: &FrameHeader) -> Entry {
    let mut entry = Entry {
        index: header.index,
        term: header.term,
        data: Descriptor::of(header).to_bytes().to_vec().into(),
        ..Entry::default()
    };
    let is_leave = header.kind == FrameKind::LeaveJoint as u8;
    if changes_members(header) || is_leave {
        entry.set_entry_type(EntryType::EntryConfChangeV2);
    }
    entry
}

fn entry_of_row(index: u64, row: &Row, chain: u32) -> Entry {
    let mut entry = Entry {
        index,
        term: row.term,
        data: row.descriptor(chain).to_bytes().to_vec().into(),
        ..Entry::default()
    };
    if row.changes_members() {
        entry.set_entry_type(EntryType::EntryConfChangeV2);
    }
    entry
}
