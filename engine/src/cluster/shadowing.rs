//! The snapshots of a node: its shadow and its keeper, on threads of their own or in its turns.
//!
//! Every node takes its own, whatever its role: the state is the same on all of them. The shadow goes
//! no further than what was answered, which is committed and durable here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use lockstep_journaler::snapshots::Snapshots;
use lockstep_journaler::storage::Storage;
use lockstep_journaler::{From, Position, Tail};
use lockstep_replicator::Replica;

use super::options::NodeOptions;
use crate::config::OnValidatePanic;
use crate::core::Core;
use crate::error::Result;
use crate::event::Kinds;
use crate::logic::Logic;
use crate::mailbox::Mailbox;
use crate::node::spawn;
use crate::shared::Shared;
use crate::snapshot::keeper::{Bell, Keeper};
use crate::snapshot::shadow::{Asked, Orders, Shadow};
use crate::stage::logic::Rebuild;
use crate::stage::verdicts::Verdicts;

/// See the module: one of both.
pub(crate) struct Shadowing<L: Logic, S: Storage> {
    /// The owner gives the turns.
    here: Option<Box<Stepped<L, S>>>,
    /// They run by themselves, until this is dropped.
    threads: Option<Threads>,
}

struct Stepped<L: Logic, S: Storage> {
    shadow: Shadow<L, S>,
    keeper: Keeper<S>,
    /// The newest snapshot when the keeper last looked.
    kept: u64,
}

struct Threads {
    shadow: Option<JoinHandle<()>>,
    asked: Arc<Asked>,
    keeper: Option<JoinHandle<()>>,
    bell: Arc<Bell>,
}

impl<L: Logic, S: Storage> Shadowing<L, S> {
    /// Begins behind the state that was recovered; `None` where no snapshots are wanted.
    pub(crate) fn start(
        storage: &S,
        options: &NodeOptions,
        replica: &Replica<S>,
        core: &Core<L>,
        shared: &Arc<Shared>,
        quarantine: Option<(Rebuild<L>, Arc<Verdicts>)>,
    ) -> Result<Option<Self>> {
        let config = &options.config;
        if config.snapshot_every == 0 || !config.has_shadow() {
            return Ok(None);
        }
        let position = core.position();
        let copy = Core::load(&core.to_bytes(), position)?;
        let newest = Snapshots::new(storage.clone()).list()?;
        let newest = newest.first().map_or(0, |listed| listed.position.0);
        shared.snapshot.set(newest);
        let bell = Arc::new(Bell::default());
        let asked = Arc::new(Asked::default());
        let schema = L::In::schema();
        let orders = Orders {
            storage: storage.clone(),
            log: replica.journal().log_id(),
            schema_version: schema.version,
            schema_hash: schema.hash(),
            every: config.snapshot_every,
            bell: Arc::clone(&bell),
            refuses_panics: config.on_validate_panic == OnValidatePanic::Refuse,
            waits_for_quorum: true,
            newest,
        };
        let (rebuild, verdicts) = quarantine.unzip();
        let shadow = Shadow::new(
            copy,
            replica.reader(From::Position(position))?,
            orders,
            Arc::new(Mailbox::new()),
            Arc::clone(shared),
            Arc::clone(&asked),
            rebuild,
            verdicts,
            behind(replica, position),
        );
        let keeper = Keeper::new(
            storage.clone(),
            replica.journal().retainer(),
            config,
            Arc::clone(shared),
            Arc::clone(&bell),
        )
        .asking_first();
        if options.is_stepped() {
            let stepped = Stepped {
                shadow,
                keeper,
                kept: u64::MAX,
            };
            return Ok(Some(Self {
                here: Some(Box::new(stepped)),
                threads: None,
            }));
        }
        let threads = Threads {
            shadow: Some(spawn("shadow", shared, || shadow.run())?),
            asked,
            keeper: Some(spawn("keeper", shared, || keeper.run())?),
            bell,
        };
        Ok(Some(Self {
            here: None,
            threads: Some(threads),
        }))
    }

    /// The node's thread has forgotten what the keeper asked for: now segments may go.
    pub(crate) fn look_again(&mut self) {
        if let Some(own) = &mut self.here {
            own.kept = u64::MAX;
        }
        if let Some(threads) = &self.threads {
            threads.bell.ring();
        }
    }

    /// A turn, where it is the owner's to give.
    pub(crate) fn turn(&mut self, shared: &Shared) {
        let Some(own) = &mut self.here else { return };
        if let Err(error) = own.shadow.turn() {
            shared.fail(format!("shadow: {error}"));
        }
        let newest = shared.snapshot.get();
        if own.kept != newest {
            own.kept = newest;
            own.keeper.turn();
        }
    }
}

/// The end of the last frame that is wholly in the state at this position.
pub(super) fn behind<S: Storage>(replica: &Replica<S>, position: Position) -> Tail {
    let index = replica.index();
    let tail = index.tail_at(index.index_at(position));
    tail.unwrap_or(*index.base())
}

impl Drop for Threads {
    /// The keeper first: it writes through the journal, which is closed behind this.
    fn drop(&mut self) {
        self.bell.end();
        // ORDERING: Release, pairs with the Acquire in the shadow's thread.
        self.asked.end.store(true, Ordering::Release);
        for thread in [self.keeper.take(), self.shadow.take()]
            .into_iter()
            .flatten()
        {
            thread.thread().unpark();
            // A panic there has ended no promise: neither of them gives one.
            let _panicked = thread.join();
        }
    }
}
