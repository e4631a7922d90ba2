//! What a node shows of itself in its directory: its part in the cluster, and what every engine counts.

use std::path::{Path, PathBuf};

use lockstep_journaler::storage::Storage;
use lockstep_replicator::Gating;
use lockstep_replicator::consensus::Role;

use super::node::ClusterNode;
use crate::counters::CounterFile;
use crate::error::{Error, Result};
use crate::logic::Logic;
use crate::node::watch::Rows;
use crate::runtime::clock::Clock;

/// How often the counters are written.
const COUNT_EVERY_NS: u64 = 20_000_000;

/// What is seen of a node in its cluster, in the order of its rows; behind them stand those of every
/// engine.
const ROWS: [&str; 22] = [
    "cluster.node",
    "cluster.leader",
    "cluster.is_leading",
    "cluster.is_open",
    "cluster.term",
    "cluster.epoch",
    "cluster.policy",
    "cluster.committed",
    "cluster.cuts",
    "cluster.elected",
    "cluster.tail",
    "cluster.waiting",
    "cluster.agreed",
    "cluster.disputed",
    "cluster.gate",
    "cluster.held_by_site",
    "cluster.site_lag_events",
    "cluster.site_lag_ns",
    "cluster.version",
    "cluster.taken_back",
    "cluster.stands_at",
    "cluster.passive",
];

/// See the module.
pub(crate) struct Counting {
    /// `None`: nothing is shown.
    directory: Option<PathBuf>,
    file: Option<CounterFile>,
    rows: Option<Rows>,
    counted_ns: u64,
}

impl Counting {
    /// Shows these rows behind those of the cluster, if there is a directory to show them in.
    pub(crate) fn begin(directory: Option<&Path>, rows: Option<Rows>) -> Result<Self> {
        let mut counting = Self {
            directory: directory.map(Path::to_owned),
            file: None,
            rows: None,
            counted_ns: 0,
        };
        counting.begin_anew(rows)?;
        Ok(counting)
    }

    /// From here on it shows other rows, in another file.
    pub(crate) fn begin_anew(&mut self, rows: Option<Rows>) -> Result<()> {
        self.end();
        self.rows = rows;
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let own = ROWS.iter().map(|name| (*name).to_owned());
        let names: Vec<String> = own
            .chain(self.rows.iter().flat_map(Rows::names).cloned())
            .collect();
        let now_ns = Clock::System.now_ns().unwrap_or(0);
        let file = CounterFile::create(directory, now_ns, &names);
        self.file = Some(file.map_err(|source| Error::Beside {
            what: "the counters",
            source,
        })?);
        Ok(())
    }

    /// Nothing is shown any more.
    pub(crate) fn end(&mut self) {
        if let Some(file) = &mut self.file {
            file.end();
        }
    }

    /// Writes them, when that is due.
    pub(crate) fn count<L: Logic, S: Storage>(
        &mut self,
        now_ns: u64,
        node: Option<&ClusterNode<L, S>>,
    ) {
        if now_ns.saturating_sub(self.counted_ns) < COUNT_EVERY_NS {
            return;
        }
        self.counted_ns = now_ns;
        let (Some(file), Some(rows), Some(node)) = (&mut self.file, &mut self.rows, node) else {
            return;
        };
        let replica = node.replica();
        let (view, options) = (replica.view(), replica.options());
        let policy = lockstep_replicator::Policy::ALL
            .iter()
            .position(|one| *one == options.policy);
        let lag = replica.lag_of_other_site();
        let mut values = vec![
            u64::from(options.node.0),
            view.leader.map_or(0, |node| u64::from(node.0)),
            u64::from(view.role == Role::Leader),
            u64::from(node.is_open()),
            view.term,
            u64::from(options.epoch.0),
            policy.map_or(u64::MAX, |at| at as u64),
            replica.committed().0,
            replica.cuts(),
            replica.counters().elected,
            replica.tail().reached.position.0,
            node.waiting() as u64,
            replica.agreed_state().map_or(0, |agreed| agreed.position),
            replica.disputed_state().map_or(0, |at| at.0),
            match replica.gating() {
                None => 0,
                Some(Gating::Sites) => 1,
                Some(Gating::Degraded) => 2,
            },
            replica.frames_held_by_site(),
            lag.map_or(0, |lag| lag.events),
            lag.map_or(0, |lag| lag.time_ns),
            u64::from(node.version()),
            node.taken_back(),
            node.stands_at().map_or(0, |at| at.0),
            u64::from(node.is_passive()),
        ];
        debug_assert!(values.len() == ROWS.len(), "as many numbers as names");
        node.count(rows, &mut values);
        file.write(Clock::System.now_ns().unwrap_or(0), &values);
    }
}
