//! What the consensus needs of its log: the end moved back, and a durable term, vote and notes.

use std::fmt;
use std::sync::Arc;

use super::Journal;
use super::Worker;
use super::opening::resume_segment;
use crate::directory::{DurableHint, MetaSlot, NOTES_BYTES, segments};
use crate::error::{ChangeError, IoFault, ReadError};
use crate::position::{Reached, SegmentId, Term};
use crate::recovery::{Content, CutPlan, finish_cut, plan_cut};
use crate::scan::{Bytes, Survey, Walk, Window, survey};
use crate::segment::{BLOCK_BYTES, SegmentHeader, Tail};
use crate::shared::{Shared, lock};
use crate::storage::{Open, Storage};

impl<S: Storage> Journal<S> {
    /// Makes the log end at `to`, durably, because another leader had other frames behind it.
    /// Only between two rings: readers behind `to` have to be gone.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NoBoundary`] if no frame ends there; then nothing was changed.
    pub fn cut_back(&mut self, to: Reached) -> Result<(), ChangeError> {
        self.shared.checked()?;
        self.sync()?;
        let end = self.tail().reached;
        if to == end {
            return Ok(());
        }
        let no_boundary = ChangeError::NoBoundary {
            position: to.position,
            frames: to.frames,
            end: end.position,
            end_frames: end.frames,
        };
        if to.frames > end.frames || to.position > end.position {
            return Err(no_boundary);
        }
        match plan_cut(&self.shared.storage, to)? {
            CutPlan::NoBoundary => Err(no_boundary),
            CutPlan::At(intent) => {
                let outcome = self.cut(&intent);
                outcome.map_err(|fault| ChangeError::Poisoned(self.shared.poison(fault)))
            }
        }
    }

    fn cut(&mut self, intent: &crate::directory::CutIntent) -> Result<(), IoFault> {
        let shared = Arc::clone(&self.shared);
        // A seal or a renaming under way is finished before files change under it.
        let background = self.stop_background();
        self.cut_alone(&shared, intent)?;
        if let Some(preparer) = background {
            self.background = Worker::Stepped(Box::new(preparer));
            self.start_background();
        }
        Ok(())
    }

    fn cut_alone(
        &mut self,
        shared: &Arc<Shared<S>>,
        intent: &crate::directory::CutIntent,
    ) -> Result<(), IoFault> {
        let mut meta = lock(&shared.meta);
        let Some(meta) = meta.as_mut() else {
            return Ok(());
        };
        let mut hint = *lock(&shared.hint);
        hint.reached = intent.reached;
        (hint.segment, hint.offset, hint.chain) = (intent.segment, intent.offset, 0);
        meta.update_both(|slot| {
            slot.set_durable(&hint);
            if !shared.options.mutations.cut_without_intent {
                slot.set_cut_intent(Some(*intent));
            }
        })?;
        drop(self.writer.take_active());
        lock(&shared.seals).retain(|seal| seal.header.segment_id < intent.segment.0);
        {
            // What was named ahead goes with the later segments, what was asked for is another now.
            let mut spares = lock(&shared.spares);
            (spares.next, spares.wanted) = (None, None);
        }
        finish_cut(&shared.storage, meta.slot(), intent, false)?;
        let (content, tail) = self.content(intent.segment)?;
        hint.chain = tail.chain;
        meta.update_both(|slot| {
            slot.set_cut_intent(None);
            slot.set_durable(&hint);
            slot.open_epoch += 1;
        })?;
        let epoch = meta.slot().open_epoch;
        *lock(&shared.hint) = hint;
        shared.progress.set_durable(intent.reached);
        shared.progress.set_written(intent.reached);
        let next_id = intent.segment.next();
        let active = resume_segment(shared, content)?;
        self.writer.restart(active, next_id, tail, epoch);
        Ok(())
    }

    /// What a segment holds, by a walk through it.
    fn content(&self, id: SegmentId) -> Result<(Content, Tail), IoFault> {
        let name = id.file_name();
        let file = self.shared.storage.open(&name, Open::READ);
        let file = file.map_err(|error| IoFault::new("open", &name, error))?;
        let mut bytes = Bytes::Window(Window::new(file, 1 << 20));
        let read = |error| IoFault::new("read", &name, error);
        let block = bytes.get(0, BLOCK_BYTES).map_err(read)?;
        let header = SegmentHeader::decode(block).map_err(|fault| {
            read(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                fault.to_string(),
            ))
        })?;
        let Survey { summary, index, .. } = survey(Walk::new(&header), &header, &mut bytes);
        let tail = summary.tail;
        Ok((
            Content {
                header,
                summary,
                index,
            },
            tail,
        ))
    }

    /// The durable term.
    #[must_use]
    pub fn term(&self) -> Term {
        lock(&self.shared.meta)
            .as_ref()
            .map_or(Term(0), |meta| meta.slot().term())
    }

    /// For whom this node voted in the durable term.
    #[must_use]
    pub fn vote(&self) -> Option<u64> {
        lock(&self.shared.meta)
            .as_ref()
            .and_then(|meta| meta.slot().vote())
    }

    /// What the consensus keeps beside term and vote.
    #[must_use]
    pub fn notes(&self) -> Vec<u8> {
        lock(&self.shared.meta)
            .as_ref()
            .map_or_else(Vec::new, |meta| meta.slot().notes().to_vec())
    }

    /// The identity of the log, the same on every node.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.template.log_id
    }

    /// Makes term and vote durable, in both slots, before it returns.
    ///
    /// # Errors
    ///
    /// [`ChangeError::TermBack`] and [`ChangeError::SecondVote`] change nothing.
    pub fn set_term_and_vote(&mut self, term: Term, vote: Option<u64>) -> Result<(), ChangeError> {
        let (current, voted) = (self.term(), self.vote());
        if term < current {
            return Err(ChangeError::TermBack {
                found: term,
                current,
            });
        }
        if let (Some(voted), true) = (voted, term == current)
            && vote != Some(voted)
        {
            return Err(ChangeError::SecondVote {
                term,
                current: voted,
                found: vote.unwrap_or(0),
            });
        }
        self.change_meta(|slot| slot.set_term_and_vote(term, vote))
    }

    /// Makes the consensus' notes durable: membership and the like.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotesTooLong`] changes nothing.
    pub fn set_notes(&mut self, notes: &[u8]) -> Result<(), ChangeError> {
        if notes.len() > NOTES_BYTES {
            return Err(ChangeError::NotesTooLong {
                found: notes.len(),
                max: NOTES_BYTES,
            });
        }
        self.change_meta(|slot| {
            slot.set_notes(notes);
        })
    }

    /// Says, durably, that segments before `first` may go: opening does not miss them any more.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Poisoned`].
    pub fn give_up_before(&mut self, first: SegmentId) -> Result<(), ChangeError> {
        self.change_meta(|slot| {
            let first = first.max(slot.first_segment());
            slot.set_first_segment(first);
        })
    }

    /// Says durably, in one write, that the log begins anew behind the snapshot that
    /// [`Snapshots::receive`](crate::snapshots::Snapshots::receive) took in, which ends at `tail`; the
    /// term does not go back. Then this journal is closed: opening it again removes what was before
    /// (`D5`).
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotesTooLong`] changes nothing; [`ChangeError::Closed`], [`ChangeError::Poisoned`].
    pub fn begin_anew(&mut self, tail: &Tail, term: Term, notes: &[u8]) -> Result<(), ChangeError> {
        if notes.len() > NOTES_BYTES {
            return Err(ChangeError::NotesTooLong {
                found: notes.len(),
                max: NOTES_BYTES,
            });
        }
        self.shared.checked()?;
        // Nothing is named ahead any more: the highest segment is known.
        drop(self.stop_background());
        let highest = segments(&self.shared.storage).map_err(ReadError::from)?;
        let highest = highest.last().map_or(SegmentId(0), |id| id.next());
        let shared = Arc::clone(&self.shared);
        let mut open = lock(&shared.meta).take().ok_or(ChangeError::Closed)?;
        let first = highest.max(open.slot().first_segment());
        let hint = DurableHint {
            reached: tail.reached,
            segment: first,
            offset: 0,
            chain: tail.chain,
        };
        let change = |slot: &mut MetaSlot| {
            slot.set_start(tail);
            slot.set_first_segment(first);
            slot.set_durable(&hint);
            slot.set_clean(false);
            slot.set_cut_intent(None);
            slot.set_notes(notes);
            // What the watermark said, it said of the log before.
            slot.open_epoch += 1;
            if term > slot.term() {
                slot.set_term_and_vote(term, None);
            }
            slot.set_begins_anew(true);
        };
        open.update_both(change)
            .map_err(|fault| ChangeError::Poisoned(shared.poison(fault)))
    }

    /// As [`give_up_before`](Self::give_up_before) for a thread that does not write: retention, say.
    #[must_use]
    pub fn retainer(&self) -> Retainer<S> {
        Retainer {
            shared: Arc::clone(&self.shared),
        }
    }

    fn change_meta(&mut self, change: impl FnOnce(&mut MetaSlot)) -> Result<(), ChangeError> {
        self.shared.checked()?;
        let mut meta = lock(&self.shared.meta);
        let Some(meta) = meta.as_mut() else {
            return Ok(());
        };
        meta.update_both(change)
            .map_err(|fault| ChangeError::Poisoned(self.shared.poison(fault)))
    }
}

/// Says for a journal that is open what may be missing from it, from any thread, while another
/// one writes. Once the journal is closed or dropped it refuses: the directory is somebody else's.
pub struct Retainer<S: Storage> {
    shared: Arc<Shared<S>>,
}

impl<S: Storage> Retainer<S> {
    /// As [`Journal::give_up_before`].
    ///
    /// # Errors
    ///
    /// [`ChangeError::Closed`] and [`ChangeError::Poisoned`]: nothing may be removed then.
    pub fn give_up_before(&self, first: SegmentId) -> Result<(), ChangeError> {
        self.shared.checked()?;
        let mut meta = lock(&self.shared.meta);
        let meta = meta.as_mut().ok_or(ChangeError::Closed)?;
        let change = |slot: &mut MetaSlot| {
            let first = first.max(slot.first_segment());
            slot.set_first_segment(first);
        };
        meta.update_both(change)
            .map_err(|fault| ChangeError::Poisoned(self.shared.poison(fault)))
    }
}

impl<S: Storage> Clone for Retainer<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Storage> fmt::Debug for Retainer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retainer").finish_non_exhaustive()
    }
}
