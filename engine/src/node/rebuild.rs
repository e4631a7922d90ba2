//! The state is made again while the engine runs, from the journal that it writes.

use std::sync::Arc;

use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Journal, Position, Tail};

use super::recovery::{Factory, Source, Unmarked};
use crate::config::Config;
use crate::error::Result;
use crate::logic::Logic;
use crate::stage::logic::Rebuild;

/// From what.
pub(crate) struct Ground<'a, L: Logic, S: Storage> {
    pub(crate) storage: &'a S,
    pub(crate) journal: &'a Journal<S>,
    pub(crate) factory: &'a Factory<L>,
    pub(crate) config: &'a Config,
    /// Where the log ended when it was opened.
    pub(crate) end: Tail,
    /// The oldest position that was in it.
    pub(crate) oldest: Position,
    pub(crate) unmarked: Unmarked,
}

impl<L: Logic, S: Storage> Ground<'_, L, S> {
    /// What makes it again, with a reader of its own.
    pub(crate) fn rebuild(self) -> Result<Rebuild<L>> {
        let mut reader = self.journal.reader(From::Oldest)?;
        let (storage, factory) = (self.storage.clone(), Arc::clone(self.factory));
        let config = self.config.clone();
        let (log, progress) = (self.journal.log_id(), self.journal.progress());
        let (first_end, first_oldest, unmarked) = (self.end, self.oldest, self.unmarked);
        Ok(Box::new(move |until, skip| {
            let reached = progress.durable();
            if reached.position < until {
                return Ok(None);
            }
            // A snapshot that was taken since is in front of `until`, at a frame's end in the log.
            let end = Tail {
                reached: reached.max(first_end.reached),
                ..first_end
            };
            // Retention may have taken segments since.
            let oldest = crate::log::oldest(&mut reader, first_oldest)?;
            let mut source = Source {
                storage: &storage,
                reader: &mut reader,
                factory: &factory,
                log,
                end,
                oldest,
                config: &config,
                unmarked,
            };
            Ok(Some(source.make(until, skip, None, &mut [])?.core))
        }))
    }
}
