//! Who follows whom, on which threads: told to a [`Graph`], checked and built in one go.
//!
//! Nothing runs, and nothing can fail half-way, before [`Graph::build`] has returned `Ok`.
//! What the methods before it are told wrong is remembered, and `build` answers with it.

use std::any::type_name;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::column::ColumnRef;
use crate::cursor::{CursorRef, CursorTable, Sequence};
use crate::error::BuildError;
use crate::fault::OnFault;
use crate::gate::{Gate, Hold, Late, Promise};
use crate::lane::Lane;
use crate::memory::{Memory, MemoryReport};
use crate::multi::MultiProducer;
use crate::pipeline::Pipeline;
use crate::poller::OnDrop;
use crate::producer::Producer;
use crate::room::OnFull;
use crate::seat::{Reads, Takes, Unseated, Writes};
use crate::stage::{LateStage, Stage, StageMut};
use crate::state::State;
use crate::sync::Arc;
use crate::wait::Wait;
use crate::wake::WakeList;
use crate::wiring;

/// The most stages of one graph, pollers and holds included: one bit each in a word.
#[cfg(not(loom))]
pub(crate) const MAX_STAGES: usize = 64;
/// loom follows every atomic through every execution.
#[cfg(loom)]
pub(crate) const MAX_STAGES: usize = 4;

/// The most seats for readers.
pub(crate) const MAX_SEATS: usize = if cfg!(loom) { 1 } else { 32 };

/// A stage of one graph. Ids of other graphs are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StageId {
    pub(crate) graph: u64,
    pub(crate) index: usize,
}

/// A stage before it has its desk.
pub(crate) struct Node<E> {
    pub(crate) name: Arc<str>,
    pub(crate) after: Vec<usize>,
    pub(crate) kind: Kind<E>,
    pub(crate) on_fault: Option<OnFault>,
    pub(crate) max_batch: Option<usize>,
}

pub(crate) enum Kind<E> {
    Stage {
        work: Box<dyn Unseated<E>>,
        writes: bool,
        late: Option<Arc<Late>>,
    },
    Poller(OnDrop),
    /// The part of a split gate that keeps events; it wakes the producer.
    Hold(Arc<OnceLock<WakeList>>),
}

/// Stages that share a thread; see [`Graph::together`].
#[derive(Debug, Clone)]
pub struct Placement {
    pub(crate) stages: Vec<usize>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) cpu: Option<usize>,
    pub(crate) wait: Option<Wait>,
    pub(crate) max_batch: Option<usize>,
    pub(crate) on_caller: bool,
}

impl Placement {
    pub(crate) fn of(stages: Vec<usize>) -> Self {
        Self {
            stages,
            name: None,
            cpu: None,
            wait: None,
            max_batch: None,
            on_caller: false,
        }
    }

    /// The name of the thread; by default those of its stages, joined by `+`.
    pub fn named(&mut self, name: &str) -> &mut Self {
        self.name = Some(Arc::from(name));
        self
    }

    /// Pins the thread to a CPU. One that does not exist or is not allowed is an error of
    /// `build`.
    pub fn pin(&mut self, cpu: usize) -> &mut Self {
        self.cpu = Some(cpu);
        self
    }

    /// How the thread waits, if not as [`Graph::wait`] says.
    pub fn wait(&mut self, wait: Wait) -> &mut Self {
        self.wait = Some(wait);
        self
    }

    /// The largest batch of its stages, so that none keeps the others from their turn.
    pub fn max_batch(&mut self, events: usize) -> &mut Self {
        self.max_batch = Some(events);
        self
    }

    /// No thread: its stages get their turns from [`Running::turn`](crate::Running::turn), on
    /// the thread that calls it.
    pub fn on_caller(&mut self) -> &mut Self {
        self.on_caller = true;
        self
    }
}

/// A ring and the stages that will follow one another along it.
///
/// ```
/// use lockstep_ringbuffer::{Graph, each};
///
/// let mut graph = Graph::new(1024, || 0_u64)?;
/// let double = graph.stage("a", &[], each(|event: &u64, _| assert!(*event < 100)));
/// let check = graph.stage("b", &[], each(|event: &u64, _| assert!(*event > 10)));
/// graph.stage("join", &[double, check], each(|event: &u64, at| println!("{at}: {event}")));
/// let (mut producer, pipeline) = graph.build()?;
/// let running = pipeline.start()?;
/// producer.publish(|event| *event = 42)?;
/// drop(producer);
/// let report = running.join();
/// assert_eq!(report.positions.stages[2].released.0, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Graph<E> {
    pub(crate) id: u64,
    pub(crate) slots: ColumnRef<E>,
    pub(crate) table: Arc<CursorTable>,
    pub(crate) start: u64,
    pub(crate) state: Arc<State>,
    pub(crate) nodes: Vec<Node<E>>,
    pub(crate) places: Vec<Placement>,
    pub(crate) seats: usize,
    pub(crate) readers_after: Vec<usize>,
    pub(crate) on_fault: OnFault,
    pub(crate) on_full: OnFull,
    pub(crate) wait: Wait,
    pub(crate) producer_wait: Option<Wait>,
    pub(crate) lanes: Vec<LaneEntry>,
    /// What was told wrong, in its order.
    pub(crate) mistakes: Vec<BuildError>,
}

/// A lane, for the check that it has one owner.
pub(crate) struct LaneEntry {
    pub(crate) owner: Arc<OnceLock<usize>>,
    pub(crate) owners: usize,
    pub(crate) type_name: &'static str,
}

impl<E> fmt::Debug for Graph<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.nodes.iter().map(|node| &node.name).collect();
        f.debug_struct("Graph")
            .field("slots", &self.slots)
            .field("stages", &names)
            .finish_non_exhaustive()
    }
}

impl<E: Send + Sync + 'static> Graph<E> {
    /// A ring of `capacity` slots, each filled by `slot` now, so that nothing faults later.
    ///
    /// # Errors
    ///
    /// A capacity that is no power of two from 1 to 2³⁰, or more memory than there is.
    pub fn new(capacity: usize, slot: impl FnMut() -> E) -> Result<Self, BuildError> {
        Self::with_memory(capacity, Memory::default(), slot)
    }

    /// The same with a say in the memory: huge pages, locked.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`BuildError::Lock`] if the slots cannot be locked.
    pub fn with_memory(
        capacity: usize,
        memory: Memory,
        slot: impl FnMut() -> E,
    ) -> Result<Self, BuildError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let cells = 1 + 2 * MAX_STAGES + MAX_SEATS;
        Ok(Self {
            // ORDERING: Relaxed, the number only has to be unique.
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            slots: ColumnRef::new(capacity, memory, slot)?,
            table: CursorTable::new(std::iter::repeat_n(0, cells)),
            start: 0,
            state: Arc::new(State::new()),
            nodes: Vec::new(),
            places: Vec::new(),
            seats: 0,
            readers_after: Vec::new(),
            on_fault: OnFault::default(),
            on_full: OnFull::default(),
            wait: Wait::default(),
            producer_wait: None,
            lanes: Vec::new(),
            mistakes: Vec::new(),
        })
    }

    /// The sequence of the first event, 0 unless told: a ring that goes on where another
    /// one ended.
    pub fn start_at(&mut self, first: Sequence) -> &mut Self {
        self.start = first.0;
        self
    }

    /// What a producer does when the ring is full; [`OnFull::Wait`] unless told.
    pub fn on_full(&mut self, policy: OnFull) -> &mut Self {
        self.on_full = policy;
        self
    }

    /// How threads wait that are not told otherwise; [`Wait::Auto`] unless told.
    pub fn wait(&mut self, wait: Wait) -> &mut Self {
        self.wait = wait;
        self
    }

    /// How producers wait for room; as the threads do, unless told.
    pub fn producer_wait(&mut self, wait: Wait) -> &mut Self {
        self.producer_wait = Some(wait);
        self
    }

    /// What happens when a stage fails that was not told otherwise; [`OnFault::Halt`]
    /// unless told.
    pub fn on_fault(&mut self, policy: OnFault) -> &mut Self {
        self.on_fault = policy;
        self
    }

    /// What happens when this stage fails.
    pub fn on_fault_of(&mut self, stage: StageId, policy: OnFault) -> &mut Self {
        if let Some(index) = self.own(stage, "on_fault_of") {
            self.nodes[index].on_fault = Some(policy);
        }
        self
    }

    /// The largest batch of this stage; a quarter of the ring unless told.
    pub fn max_batch(&mut self, stage: StageId, events: usize) -> &mut Self {
        if let Some(index) = self.own(stage, "max_batch") {
            self.nodes[index].max_batch = Some(events);
        }
        self
    }

    /// A stage that reads, behind those of `after`; behind the producer if that is empty.
    pub fn stage(
        &mut self,
        name: &str,
        after: &[StageId],
        stage: impl Stage<E> + 'static,
    ) -> StageId {
        let work = Box::new(Reads(stage));
        self.add(name, after, stage_kind(work, false, None))
    }

    /// A stage that writes events in place. Every other stage has to be before or behind it.
    pub fn stage_mut(
        &mut self,
        name: &str,
        after: &[StageId],
        stage: impl StageMut<E> + 'static,
    ) -> StageId {
        let work = Box::new(Writes(stage));
        self.add(name, after, stage_kind(work, true, None))
    }

    /// A stage that reads ahead of its promise; `make` gets the gate that moves it, and
    /// keeps it in the stage or hands it on.
    ///
    /// ```
    /// use lockstep_ringbuffer::{Gate, Graph, LateStage, Progress, Sequence, Standing, View, each};
    ///
    /// /// Promises whole groups of four.
    /// struct Groups(Gate<u64>);
    /// impl LateStage<u64> for Groups {
    ///     fn on_batch(&mut self, _: View<'_, u64>) -> Progress {
    ///         Progress::All
    ///     }
    ///     fn on_turn(&mut self, standing: Standing) -> bool {
    ///         let before = self.0.released();
    ///         self.0.release_to(Sequence(standing.taken.0 / 4 * 4)) != before
    ///     }
    /// }
    ///
    /// let mut graph = Graph::new(8, || 0_u64)?;
    /// let groups = graph.late_stage("groups", &[], Groups);
    /// graph.stage("print", &[groups], each(|event: &u64, _| println!("{event}")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn late_stage<S: LateStage<E> + 'static>(
        &mut self,
        name: &str,
        after: &[StageId],
        make: impl FnOnce(Gate<E>) -> S,
    ) -> StageId {
        let late = self.late();
        let stage = make(Gate::new(Arc::clone(&late), self.slots.clone()));
        self.add(
            name,
            after,
            stage_kind(Box::new(Takes(stage)), false, Some(late)),
        )
    }

    /// The same where whoever promises is not whoever needs the events: the promise may
    /// move while the hold still keeps them. The hold is called `name.hold` and gates the
    /// producer.
    pub fn late_stage_split<S: LateStage<E> + 'static>(
        &mut self,
        name: &str,
        after: &[StageId],
        make: impl FnOnce(Promise, Hold<E>) -> S,
    ) -> StageId {
        let late = self.late();
        let wake = Arc::new(OnceLock::new());
        let hold = Hold::new(
            Arc::clone(&late),
            self.cell(released_cell(self.nodes.len() + 1)),
            self.slots.clone(),
            Arc::clone(&wake),
        );
        let stage = make(Promise::new(Arc::clone(&late)), hold);
        let id = self.add(
            name,
            after,
            stage_kind(Box::new(Takes(stage)), false, Some(late)),
        );
        self.add(&format!("{name}.hold"), after, Kind::Hold(wake));
        id
    }

    fn late(&self) -> Arc<Late> {
        let stage = self.nodes.len();
        Arc::new(Late {
            taken: self.cell(taken_cell(stage)),
            released: self.cell(released_cell(stage)),
            wake: OnceLock::new(),
            is_abandoned: crate::sync::AtomicBool::new(false),
            stage,
            state: Arc::clone(&self.state),
        })
    }

    /// A stage that its user drives: [`Pipeline::poller`] hands it out.
    pub fn poller(&mut self, name: &str, after: &[StageId], on_drop: OnDrop) -> StageId {
        self.add(name, after, Kind::Poller(on_drop))
    }

    /// Seats for at most `seats` readers that join and leave while the pipeline runs,
    /// behind the stages of `after`: [`Pipeline::readers`] hands them out. The producer
    /// looks at the seats, behind a full fence, each time it has used up the room it knew.
    pub fn readers(&mut self, seats: usize, after: &[StageId]) -> &mut Self {
        if seats > MAX_SEATS {
            self.mistakes.push(BuildError::Seats {
                asked: seats,
                max: MAX_SEATS,
            });
        }
        self.seats = seats.min(MAX_SEATS);
        self.readers_after = self.own_all(after, "readers");
        self
    }

    /// A column of one `T` for each slot, each filled by `fill` now. It needs an owner.
    ///
    /// # Errors
    ///
    /// More memory than there is.
    pub fn lane<T: Send + Sync>(&mut self, fill: impl FnMut() -> T) -> Result<Lane<T>, BuildError> {
        let capacity = crate::column::index(self.slots.capacity());
        let lane = Lane::new(ColumnRef::new(capacity, Memory::default(), fill)?, self.id);
        self.lanes.push(LaneEntry {
            owner: lane.owner_cell(),
            owners: 0,
            type_name: std::any::type_name::<T>(),
        });
        Ok(lane)
    }

    /// Says which stage writes a lane.
    pub fn lane_owner<T>(&mut self, stage: StageId, lane: &Lane<T>) -> &mut Self {
        let Some(index) = self.own(stage, "lane_owner") else {
            return self;
        };
        if lane.graph() != self.id {
            self.mistakes
                .push(self.foreign("lane_owner", format!("a lane of {}", type_name::<T>())));
            return self;
        }
        let cell = lane.owner_cell();
        let _second = cell.set(index);
        let mut entries = self.lanes.iter_mut();
        if let Some(entry) = entries.find(|entry| Arc::ptr_eq(&entry.owner, &cell)) {
            entry.owners += 1;
        }
        self
    }

    /// Lets a stage follow more stages than it was made with.
    pub fn follow(&mut self, stage: StageId, after: &[StageId]) -> &mut Self {
        if let Some(index) = self.own(stage, "follow") {
            let name = self.nodes[index].name.to_string();
            let after = self.own_all(after, &format!("stage {name:?}"));
            self.nodes[index].after.extend(after);
        }
        self
    }

    /// The stage of this name.
    ///
    /// # Errors
    ///
    /// [`BuildError::UnknownStage`], with the names that there are.
    pub fn find(&self, name: &str) -> Result<StageId, BuildError> {
        let index = self.nodes.iter().position(|node| &*node.name == name);
        index
            .map(|index| self.id_of(index))
            .ok_or_else(|| BuildError::UnknownStage {
                name: name.to_owned(),
                known: self.names(),
            })
    }

    /// Puts these stages on one thread, in this order where the graph leaves it open. A
    /// stage that is not placed gets a thread of its own as long as there are CPUs for them
    /// and the producer; else several share one.
    ///
    /// ```
    /// # use lockstep_ringbuffer::{Graph, Wait, each};
    /// # let mut graph = Graph::new(8, || 0_u64)?;
    /// let journal = graph.stage("journal", &[], each(|_: &u64, _| ()));
    /// let replicate = graph.stage("replicate", &[], each(|_: &u64, _| ()));
    /// let logic = graph.stage("logic", &[journal, replicate], each(|_: &u64, _| ()));
    /// graph.together(&[replicate, journal]).named("io").wait(Wait::Park);
    /// graph.together(&[logic]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn together(&mut self, stages: &[StageId]) -> &mut Placement {
        let stages = self.own_all(stages, "together");
        self.places.push(Placement::of(stages));
        let last = self.places.len() - 1;
        &mut self.places[last]
    }

    /// What the kernel granted of the memory that was asked for.
    #[must_use]
    pub fn memory(&self) -> MemoryReport {
        self.slots.report()
    }

    /// Checks everything and builds it, for one producing thread. Nothing runs yet.
    ///
    /// # Errors
    ///
    /// The first mistake that was made; each names the value and what would be right.
    pub fn build(self) -> Result<(Producer<E>, Pipeline<E>), BuildError> {
        wiring::build_single(self)
    }

    /// The same for many producing threads. `void` makes an event that means nothing, for
    /// slots whose writer gave up.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_multi(
        self,
        void: impl Fn(&mut E) + Send + Sync + 'static,
    ) -> Result<(MultiProducer<E>, Pipeline<E>), BuildError> {
        wiring::build_multi(self, Box::new(void))
    }

    fn add(&mut self, name: &str, after: &[StageId], kind: Kind<E>) -> StageId {
        let index = self.nodes.len();
        let after = self.own_all(after, &format!("stage {name:?}"));
        self.nodes.push(Node {
            name: Arc::from(name),
            after,
            kind,
            on_fault: None,
            max_batch: None,
        });
        self.id_of(index)
    }

    fn id_of(&self, index: usize) -> StageId {
        StageId {
            graph: self.id,
            index,
        }
    }

    /// The index of a stage of this graph; else a mistake.
    fn own(&mut self, stage: StageId, what: &str) -> Option<usize> {
        if stage.graph == self.id && stage.index < self.nodes.len() {
            return Some(stage.index);
        }
        self.mistakes
            .push(self.foreign(what, format!("stage {}", stage.index)));
        None
    }

    fn foreign(&self, what: &str, id: String) -> BuildError {
        BuildError::ForeignStage {
            what: what.to_owned(),
            id,
            known: self.names(),
        }
    }

    fn names(&self) -> Vec<String> {
        let names = self.nodes.iter().map(|node| node.name.to_string());
        names.collect()
    }

    fn own_all(&mut self, stages: &[StageId], what: &str) -> Vec<usize> {
        stages
            .iter()
            .filter_map(|&stage| self.own(stage, what))
            .collect()
    }

    /// A cell of the table; the last one for stages beyond the limit, which `build` refuses.
    pub(crate) fn cell(&self, index: usize) -> CursorRef {
        self.table.cursor(index.min(2 * MAX_STAGES))
    }
}

fn stage_kind<E>(work: Box<dyn Unseated<E>>, writes: bool, late: Option<Arc<Late>>) -> Kind<E> {
    Kind::Stage { work, writes, late }
}

/// The table: the producer's cursor, then two for each stage, then the readers' seats.
pub(crate) const PUBLISHED_CELL: usize = 0;

pub(crate) fn released_cell(stage: usize) -> usize {
    1 + 2 * stage
}

pub(crate) fn taken_cell(stage: usize) -> usize {
    2 + 2 * stage
}

pub(crate) fn seat_cell(seat: usize) -> usize {
    1 + 2 * MAX_STAGES + seat
}
