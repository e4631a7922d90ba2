//! A node with threads and sockets.
//!
//! ```text
//!   thread A   wait for sockets ─► receive ─► order ─► send ─► journal (blocks in the sync) ─► answer
//!                   ▲ waker                     │ gate                                ▲ answered
//!   thread B        └──────────── logic ─► egress ────────────────────────────────────┘
//! ```
//!
//! With one CPU thread A does all of it. The thread that waits is woken by a socket, by the clock, or
//! by thread B, and B only rings when A has said that it sleeps.
//!
//! # Invariants
//!
//! * `DR1` The leader's frames are with the sockets before its thread goes into the sync.
//! * `DR2` Nothing waits for a peer or a client; what they cannot take is lost or refused.
//! * `DR3` A leader whose disk is full, or takes longer for a sync than half an election, hands over.
//! * `DR4` Whatever fails ends the node with a cause: a stage of B within one wake of A, A itself at once.
//! * `DR5` What comes of a message leaves before the logic runs or a ring is built for it: peers have votes and
//!   acknowledgements, clients hear who leads.
//! * `DR6` No peer is greeted before it can be told how far this log goes: an empty one would be refused as lost.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use lockstep_journaler::Position;
use lockstep_journaler::storage::Disk;
use lockstep_replicator::consensus::Role;
use lockstep_replicator::transport::{
    Incoming, Settings, Sleeper, Transport, Waiting, Waker, waker,
};
use lockstep_replicator::wire::{Connection, Hello, Limits, Message, RefuseCode};
use lockstep_replicator::{Fatal, NodeId, Outbox, ReceiveError};

use super::back::{Back, BackThread};
use super::counting::Counting;
use super::equal;
use super::front::Front;
use super::node::ClusterNode;
use super::options::{DriverOptions, NodeOptions};
use super::repeats::Repeats;
use crate::error::{Error, Result};
use crate::event::Kinds;
use crate::logic::{EventOf, Logic};
use crate::node::face;
use crate::node::recovery::Factory;
use crate::runtime::clock::{Clock, Stopwatch};
use crate::shared::Shared;

/// Ticks after which a leader whose disk does not take its frames hands over: half of the shortest
/// election, so that the cluster need not find out by itself.
const LIMPS_TICKS: u32 = 5;

/// Ticks for which answers may wait for the other site before it is said.
const SITE_TICKS: u32 = 50;

/// A leader that limps hands over at most so often.
const LIMPS_EVERY_NS: u64 = 1_000_000_000;

/// How long a leader that is asked to end seeks another to take over, and waits until that one needs it no more: some
/// elections.
const HAND_OVER_NS: u64 = 1_000_000_000;

/// Opens the node on what the directory has.
type Opener<L> = Box<dyn Fn(NodeOptions) -> Result<ClusterNode<L, Disk>> + Send>;

/// A node that runs on the caller's thread.
pub struct Driver<L: Logic> {
    node: Option<ClusterNode<L, Disk>>,
    open_node: Opener<L>,
    options: NodeOptions,
    peers: Vec<NodeId>,
    transport: Transport,
    front: Front<L>,
    sleeper: Sleeper,
    /// Held: a sleeper whose wakers are all gone is readable for ever.
    _waker: Waker,
    waiting: Waiting,
    incoming: Vec<Incoming>,
    unreachable: Vec<NodeId>,
    watch: Stopwatch,
    tick: Duration,
    counting: Counting,
    /// Whether it has a logic, and counts as passive.
    was: (bool, bool),
    worked: bool,
    /// Since when the disk has not taken what there is to write.
    limps_since_ns: Option<u64>,
    handed_over_ns: u64,
    /// Where nodes differ and nobody can tell yet who is right: said once.
    disputed: Option<Position>,
    /// In which term it was said who leads.
    led_in_term: u64,
    was_member: bool,
    repeats: Repeats,
    /// Since when frames wait for the other site, and whether that was said.
    held_since_ns: Option<(u64, bool)>,
}

impl<L: Logic> fmt::Debug for Driver<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Messages to peers, queued; who is not there is told to the agreement behind the turn.
struct Post<'a> {
    transport: &'a mut Transport,
    unreachable: &'a mut Vec<NodeId>,
}

impl Outbox for Post<'_> {
    fn send(&mut self, to: NodeId, message: Message) {
        if self.transport.send(to, message).is_err() && !self.unreachable.contains(&to) {
            self.unreachable.push(to);
        }
    }

    // DR1, DR5
    fn leave(&mut self) {
        self.transport.flush();
    }
}

impl<L: Logic> Driver<L> {
    /// Opens directory and ports; nothing runs yet. A log that is empty will begin with `first_events`,
    /// which are to be the same on all nodes.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong, where, and what helps.
    pub fn open(
        options: &DriverOptions,
        first_events: Vec<EventOf<L>>,
        fresh: impl Fn() -> L + Send + Sync + 'static,
    ) -> Result<Self> {
        let directory = options.directory.as_path();
        let disk = Disk::create(directory).map_err(|source| Error::Directory {
            directory: directory.display().to_string(),
            source,
        })?;
        let beside = |what| move |source| Error::Beside { what, source };
        let (waker, sleeper) = waker().map_err(beside("what wakes the node's thread"))?;
        let held = waker.clone();
        let factory: Factory<L> = Arc::new(fresh);
        let has_back_thread = options.has_back_thread;
        let open_node = move |of_node: NodeOptions| {
            let (waker, own) = (waker.clone(), waker.clone());
            let back = move |shared: &Arc<Shared>| {
                if !has_back_thread {
                    return Ok(Back::Here(None));
                }
                shared.on_answer(move || waker.wake());
                Ok(Back::Thread(BackThread::start(move || own.wake())?))
            };
            let (disk, factory) = (disk.clone(), Arc::clone(&factory));
            ClusterNode::open_with(disk, &of_node, factory, first_events.clone(), back)
        };
        let node = open_node(options.node.clone())?;
        let me = options.node.replica.node;
        let mut settings = Settings::on_loopback(me, hello::<L>(&options.node), options.listen);
        settings.peers.clone_from(&options.peers);
        settings.security = options.security.clone();
        let mut transport = Transport::open(settings)?;
        // DR6
        transport.set_log(node.replica().hello());
        let front = Front::open(options)?;
        let counted = options.node.config.counters.then_some(directory);
        let counting = Counting::begin(counted, node.rows())?;
        let was = (node.has_logic(), node.is_passive());
        Ok(Self {
            node: Some(node),
            open_node: Box::new(open_node),
            options: options.node.clone(),
            peers: options.peers.keys().copied().collect(),
            transport,
            front,
            sleeper,
            _waker: held,
            waiting: Waiting::default(),
            incoming: Vec::new(),
            unreachable: Vec::new(),
            watch: Stopwatch::start(),
            tick: Duration::from_nanos(options.node.replica.tick_ns),
            counting,
            was,
            worked: true,
            limps_since_ns: None,
            handed_over_ns: 0,
            disputed: None,
            led_in_term: 0,
            was_member: false,
            repeats: Repeats::default(),
            held_since_ns: None,
        })
    }

    /// Runs until `is_over` says so, or the node fails; then hands over, if it leads, and closes.
    ///
    /// # Errors
    ///
    /// Why the node failed.
    pub fn run(mut self, mut is_over: impl FnMut() -> bool) -> Result<()> {
        // Ends: when it is asked to, or by an error.
        while !is_over() {
            if let Err(error) = self.turn() {
                self.counting.count(u64::MAX, self.node.as_ref());
                self.counting.end();
                return Err(error);
            }
        }
        self.end()
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.watch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// One turn; waits for something to do if the last one had nothing to do any more.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn turn(&mut self) -> Result<()> {
        match self.try_turn() {
            Err(Error::Agreement(begun @ Fatal::BegunAnew { .. })) => {
                tracing::warn!(%begun, "this node lagged behind the beginning of the log");
                self.open_again()
            }
            other => other,
        }
    }

    /// As a process that is started again, and its peers see no other: what they said to the node before
    /// is not said again, but they are.
    fn open_again(&mut self) -> Result<()> {
        let node = self.node.take();
        // One that is being made active is, behind the snapshot.
        self.options.is_passive = node.is_some_and(|node| node.is_asleep());
        self.greet_anew("the log begins anew behind a snapshot");
        self.unreachable.clear();
        self.incoming.clear();
        let node = (self.open_node)(self.options.clone())?;
        // DR6
        self.transport.set_log(node.replica().hello());
        self.worked = true;
        self.node = Some(node);
        self.look_at_logic()
    }

    /// The others are told again what this node is.
    fn greet_anew(&mut self, why: &str) {
        for peer in &self.peers {
            self.transport.disconnect(*peer, why);
        }
    }

    /// A node that was passive has a logic, or may lead by now.
    fn look_at_logic(&mut self) -> Result<()> {
        let Some(node) = &self.node else {
            return Ok(());
        };
        let is = (node.has_logic(), node.is_passive());
        let (had_logic, was_passive) = std::mem::replace(&mut self.was, is);
        if had_logic != is.0 {
            self.counting.begin_anew(node.rows())?;
        }
        if was_passive && !is.1 {
            self.greet_anew("it was passive, and is active now");
        }
        Ok(())
    }

    fn try_turn(&mut self) -> Result<()> {
        self.wait_for_work()?;
        let Some(node) = &mut self.node else {
            return Err(was_closed());
        };
        let came_ns = u64::try_from(self.watch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for incoming in self.incoming.drain(..) {
            if let Incoming::Refused { line, .. } = &incoming {
                if let Some(since) = self.repeats.is_due(line, came_ns) {
                    tracing::warn!(line, repeated = (since > 0).then_some(since), "refused");
                }
                continue;
            }
            take(node, &mut self.transport, incoming)?;
        }
        let now_ns = u64::try_from(self.watch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // DR5
        self.front.show_role(now_ns, node);
        let asked = self.front.let_in(&self.waiting, node);
        let mut post = Post {
            transport: &mut self.transport,
            unreachable: &mut self.unreachable,
        };
        let begun = node.begin(now_ns, &mut post)?;
        node.persist(&mut post)?;
        self.front.show_role(now_ns, node);
        let followed = node.follow(&mut self.front)?;
        for peer in self.unreachable.drain(..) {
            node.replica_mut().reconnected(peer);
        }
        self.front.show_role(now_ns, node);
        self.front.settle(node);
        self.transport.set_log(node.replica().hello());
        let is_stuck = node.replica().has_unwritten();
        // A full disk is looked at again with the clock, not at once.
        self.worked = (asked | begun | followed) && !is_stuck;
        let disputed = node.replica().disputed_state();
        self.tell_of_dispute(disputed);
        self.tell_of_site(now_ns);
        self.tell_of_leader();
        self.look_at_disk(now_ns, is_stuck);
        self.look_at_logic()?;
        self.counting.count(now_ns, self.node.as_ref());
        Ok(())
    }

    /// An alarm, once for each time: a majority has frames that the other site has not.
    fn tell_of_site(&mut self, now_ns: u64) {
        let Some(node) = &self.node else { return };
        let frames = node.replica().frames_held_by_site();
        let (since_ns, was_told) = self.held_since_ns.unwrap_or((now_ns, false));
        let waited_ns = now_ns.saturating_sub(since_ns);
        let limit = u64::try_from((self.tick * SITE_TICKS).as_nanos()).unwrap_or(u64::MAX);
        let is_due = frames > 0 && waited_ns > limit;
        if is_due && !was_told {
            tracing::error!(
                frames,
                waited_ms = waited_ns / 1_000_000,
                "answers wait for the other site: a majority here has them; `lockstep cluster degrade` goes on without it"
            );
        }
        if frames == 0 && was_told {
            tracing::info!(
                waited_ms = waited_ns / 1_000_000,
                "answers do not wait for the other site any more"
            );
        }
        self.held_since_ns = (frames > 0).then_some((since_ns, was_told || is_due));
    }

    /// Whom this node follows, once for each term in which it knows; and that it is no member any more.
    fn tell_of_leader(&mut self) {
        let Some(node) = &self.node else { return };
        let view = node.replica().view();
        let Some(leader) = view.leader else { return };
        if self.led_in_term != view.term && view.role != Role::Leader {
            self.led_in_term = view.term;
            tracing::info!(leader = leader.0, term = view.term, "another node leads");
        }
        let replica = node.replica();
        let (me, members) = (replica.options().node, replica.members());
        let is_member = members.is_voter(me) || members.learners.contains(&me);
        if self.was_member && !is_member {
            tracing::warn!(
                "this node was removed from the cluster: end it, and delete its directory"
            );
        }
        self.was_member = is_member;
    }

    fn tell_of_dispute(&mut self, disputed: Option<Position>) {
        if self.disputed == disputed {
            return;
        }
        self.disputed = disputed;
        if let Some(position) = disputed {
            tracing::error!(
                position = position.0,
                "the states of two nodes differ, and too few are there to tell which is right: start the others"
            );
        }
    }

    /// Hands over where this node's disk holds everybody up (`DR3`).
    fn look_at_disk(&mut self, began_ns: u64, is_stuck: bool) {
        let now_ns = self.now_ns();
        let limit = u64::try_from((self.tick * LIMPS_TICKS).as_nanos()).unwrap_or(u64::MAX);
        let since = match (is_stuck, self.limps_since_ns) {
            (true, Some(since)) => since,
            (true, None) | (false, _) => began_ns,
        };
        self.limps_since_ns = is_stuck.then_some(since);
        let is_late = now_ns.saturating_sub(since) > limit;
        let is_due = now_ns.saturating_sub(self.handed_over_ns) > LIMPS_EVERY_NS;
        if is_late && is_due && self.leads() {
            self.handed_over_ns = now_ns;
            let stood_ms = now_ns.saturating_sub(since) / 1_000_000;
            tracing::warn!(
                stood_ms,
                is_stuck,
                "the disk holds the cluster up: another is to lead"
            );
            self.hand_over();
        }
    }

    /// Waits for sockets, clock or the other thread, unless there is more to do at once.
    fn wait_for_work(&mut self) -> Result<()> {
        let now_ns = self.now_ns();
        self.waiting.clear();
        let most = self.transport.prepare(now_ns, &mut self.waiting);
        let most = most.min(self.front.prepare(now_ns, &mut self.waiting));
        let own = self
            .waiting
            .add(std::os::fd::AsFd::as_fd(&self.sleeper), true, false);
        let mut most = most.min(self.tick / 2);
        if let Some(node) = self.node.as_ref().filter(|_| self.front.asks_logic()) {
            node.ring_logic();
        }
        if self.worked || self.node.as_ref().is_some_and(ClusterNode::set_alarm) {
            most = Duration::ZERO;
        }
        let waited = self.waiting.wait(most);
        waited.map_err(|source| Error::Beside {
            what: "waiting for sockets",
            source,
        })?;
        if self.waiting.is_readable(own) {
            self.sleeper.clear();
        }
        let now_ns = self.now_ns();
        self.transport
            .take(now_ns, &self.waiting, &mut self.incoming);
        Ok(())
    }

    /// The node, to look at.
    #[must_use]
    pub fn node(&self) -> Option<&ClusterNode<L, Disk>> {
        self.node.as_ref()
    }

    /// Looks at the state between two events, on this node as far as it has applied; gives turns until that is
    /// done.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run); the closure panicked.
    pub fn read<R: Send + 'static>(
        &mut self,
        look: impl FnOnce(&L) -> R + Send + 'static,
    ) -> Result<(Position, R)> {
        let node = self.node.as_ref().ok_or_else(was_closed)?;
        let answer = node.look(Position(0), face::state(look))?;
        // Ends: with the look, or with the node.
        loop {
            match answer.try_recv() {
                Ok(found) => return Ok(found),
                Err(TryRecvError::Disconnected) => return Err(Error::LookPanicked),
                Err(TryRecvError::Empty) => {}
            }
            if let Some(node) = &self.node {
                node.ring_logic();
            }
            self.turn()?;
        }
    }

    /// Hands over, if it leads and somebody can, and closes in order: what [`run`](Self::run) ends with, for who
    /// gives the turns himself.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn end(mut self) -> Result<()> {
        let until = self.now_ns() + HAND_OVER_NS;
        // Ends: the others go on without it, or could not in this time.
        loop {
            let now_ns = self.now_ns();
            let may_leave = self.node.as_mut().is_none_or(|node| node.leave(now_ns));
            if may_leave || now_ns >= until {
                break;
            }
            self.turn()?;
        }
        // What is said last still leaves.
        self.turn()?;
        let node = self.node.take();
        if let Some(node) = node {
            let (durable, applied) = (node.replica().durable(), node.applied());
            node.close(&mut self.front)?;
            tracing::info!(%durable, %applied, "ended in order");
        }
        self.front.end();
        self.counting.end();
        Ok(())
    }

    fn leads(&self) -> bool {
        let node = self.node.as_ref();
        node.is_some_and(|node| {
            let replica = node.replica();
            replica.view().role == Role::Leader && replica.members().voters.len() > 1
        })
    }

    fn hand_over(&mut self) {
        if let Some(node) = &mut self.node {
            let _to = node.hand_over();
        }
    }
}

fn was_closed() -> Error {
    Error::Stopped {
        cause: "it was closed".to_owned(),
    }
}

/// What came from a peer.
fn take<L: Logic>(
    node: &mut ClusterNode<L, Disk>,
    transport: &mut Transport,
    incoming: Incoming,
) -> Result<()> {
    match incoming {
        Incoming::Message { from, message, .. } => match node.receive(&message) {
            Ok(()) => {}
            Err(ReceiveError::Fatal(fatal)) => return Err(fatal.into()),
            Err(error @ ReceiveError::Epoch { .. }) => {
                tracing::warn!(%error, "a peer of another epoch");
                transport.refuse(from, RefuseCode::Epoch);
            }
            Err(error @ ReceiveError::Diverged { .. }) => {
                tracing::error!(%error, "a peer's log does not go on where ours does");
                transport.disconnect(from, "its frames do not chain to ours");
            }
            // Late, or a vote that this node does not give: the sender asks again where it matters.
            Err(error) => tracing::debug!(%error, from = from.0, "a message was not taken"),
        },
        Incoming::Connected {
            node: peer,
            connection: Connection::Log,
            head,
            hello,
        } => match node.replica_mut().judge(&head) {
            Ok(()) => {
                tracing::info!(peer = peer.0, "connected");
                node.peer_runs(peer, hello.logic_min..=hello.logic_max);
                node.peer_knows(peer, hello.own_kinds);
                node.replica_mut().reconnected(peer);
            }
            Err(error) => {
                tracing::error!(%error, "a peer is refused");
                transport.refuse(peer, RefuseCode::ShorterLog);
            }
        },
        Incoming::Lost {
            node: peer,
            connection: Connection::Log,
            why,
        } => {
            tracing::info!(peer = peer.0, why, "connection lost");
            node.replica_mut().reconnected(peer);
        }
        // What is refused was told before.
        Incoming::Connected { .. } | Incoming::Lost { .. } | Incoming::Refused { .. } => {}
    }
    Ok(())
}

/// What this node says of itself to its peers.
fn hello<L: Logic>(options: &NodeOptions) -> Hello {
    let schema = L::In::schema();
    let limits = Limits::for_events_of(schema.event_size);
    let config = &options.config;
    let started = Clock::System.now_ns().unwrap_or(0);
    Hello {
        cluster: options.replica.cluster,
        to: options.replica.node,
        connection: Connection::Log,
        fingerprint: equal::fingerprint::<L>(options),
        boot: started ^ u64::from(std::process::id()),
        own_kinds: crate::system::GENERATION,
        event_size: limits.event_size,
        frame_bytes_max: u32::try_from(options.frame_bytes_max).unwrap_or(u32::MAX),
        message_bytes_max: limits.message_bytes_max,
        ring_slots: u32::try_from(config.slots).unwrap_or(u32::MAX),
        logic_min: *L::VERSIONS.start(),
        logic_max: *L::VERSIONS.end(),
    }
}
