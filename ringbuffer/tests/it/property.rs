//! Number 77: random graphs, placements and schedules against a model.
//!
//! The model is small: what is published is a list, and every stage sees that list. Which
//! stages there are, what follows what, who promises late, who delivers again, how small
//! the ring is, which stages share a thread and who gets a turn when must not show. While
//! it runs every stage checks that it is given what it has not yet done, whole, and not
//! before those that it follows have promised it; whoever writes checks that nobody still
//! needs the slot.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lockstep_ringbuffer::{
    Batch, BatchMut, ClaimError, FaultKind, Gate, GiveUp, Graph, Hold, JoinAt, LateStage, OnFault,
    Progress, Promise, Reader, Readers, Runner, Sequence, Slots, Stage, StageMut, Turn, View, Wait,
};
use proptest::prelude::*;

use crate::common::{Either, Kind, VOID, build, returns, until};

/// A stage that writes marks the events with this, so that those behind it can tell.
const MARK: u64 = 1 << 63;

/// The event of a sequence.
fn event(at: u64) -> u64 {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    Late,
    Split,
}

#[derive(Debug, Clone)]
struct StageSpec {
    /// A bit for each earlier stage.
    after: u8,
    how: How,
    /// Scaled to the ring.
    max_batch: u8,
    /// What it answers to its batches, in turns.
    script: Vec<u8>,
    group: u8,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Publish(usize),
    Part(usize, usize),
    Abort(usize),
    /// Many producers: two claims, committed in the other order, the first perhaps aborted.
    Crossed(usize, usize, bool),
}

#[derive(Debug, Clone)]
struct Spec {
    capacity: usize,
    kind: Kind,
    start: u64,
    /// The first stage writes, and all others are behind it.
    writes: bool,
    stages: Vec<StageSpec>,
    ops: Vec<Op>,
    /// Who gets a turn, which gate moves, in turns.
    schedule: Vec<u8>,
}

impl Spec {
    fn after(&self, stage: usize) -> Vec<usize> {
        let bits = self.stages[stage].after;
        let mut after: Vec<usize> = (0..stage).filter(|&s| bits >> s & 1 == 1).collect();
        if self.writes && stage > 0 && after.is_empty() {
            after.push(0);
        }
        after
    }

    fn how(&self, stage: usize) -> How {
        match (self.writes, stage) {
            (true, 0) => How::Plain,
            _ => self.stages[stage].how,
        }
    }

    /// What is published, in the order of its sequences.
    fn published(&self) -> Vec<u64> {
        let mut events = Vec::new();
        let mut add = |real: usize, void: usize| {
            for n in 0..real + void {
                let at = self.start + events.len() as u64;
                events.push(if n < real { event(at) } else { VOID });
            }
        };
        for op in &self.ops {
            match (*op, self.kind) {
                (Op::Publish(n), _) => add(n, 0),
                (Op::Part(n, kept), Kind::Multi) => add(kept, n - kept),
                (Op::Part(_, kept), Kind::Single) => add(kept, 0),
                (Op::Abort(n), Kind::Multi) => add(0, n),
                (Op::Abort(_), Kind::Single) => {}
                (Op::Crossed(a, b, aborts), Kind::Multi) => {
                    if aborts {
                        add(0, a);
                    } else {
                        add(a, 0);
                    }
                    add(b, 0);
                }
                (Op::Crossed(a, b, _), Kind::Single) => add(a + b, 0),
            }
        }
        events
    }
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let stage = (
        any::<u8>(),
        prop_oneof![3 => Just(How::Plain), 2 => Just(How::Late), 1 => Just(How::Split)],
        any::<u8>(),
        prop::collection::vec(any::<u8>(), 0..5),
        0_u8..3,
    );
    let stage = stage.prop_map(|(after, how, max_batch, mut script, group)| {
        script.push(0); // so that it gets on at last
        StageSpec {
            after,
            how,
            max_batch,
            script,
            group,
        }
    });
    let ops = prop::collection::vec(any::<(u8, u8, u8)>(), 1..24);
    (
        0_u32..5,
        any::<bool>(),
        prop_oneof![Just(0_u64), 0_u64..40, Just(u64::MAX / 2)],
        any::<bool>(),
        prop::collection::vec(stage, 1..7),
        ops,
        prop::collection::vec(any::<u8>(), 1..40),
    )
        .prop_map(|(shift, multi, start, writes, stages, ops, schedule)| {
            let capacity = 1_usize << shift;
            let size = |n: u8| 1 + usize::from(n) % capacity;
            let ops = ops.into_iter().map(|(what, n, m)| match what % 6 {
                0..3 => Op::Publish(size(n)),
                3 => Op::Part(size(n), usize::from(m) % (size(n) + 1)),
                4 => Op::Abort(size(n)),
                _ if capacity == 1 => Op::Publish(1),
                _ => {
                    let first = 1 + usize::from(n) % (capacity - 1);
                    let second = 1 + usize::from(m) % (capacity - first);
                    Op::Crossed(first, second, what & 64 == 0)
                }
            });
            Spec {
                capacity,
                kind: if multi { Kind::Multi } else { Kind::Single },
                start,
                writes,
                stages,
                ops: ops.collect(),
                schedule,
            }
        })
}

/// What all stages of one run share.
struct World {
    capacity: u64,
    start: u64,
    multi: bool,
    /// What each stage has promised, told before the promise itself.
    promised: Vec<AtomicU64>,
    /// What each stage has done.
    done: Vec<Mutex<Vec<u64>>>,
    /// What was found wrong: a panic in a stage alone would be retried like any other.
    broken: Mutex<Vec<String>>,
}

impl World {
    fn of(spec: &Spec) -> Arc<Self> {
        Arc::new(Self {
            capacity: spec.capacity as u64,
            start: spec.start,
            multi: spec.kind == Kind::Multi,
            promised: spec
                .stages
                .iter()
                .map(|_| AtomicU64::new(spec.start))
                .collect(),
            done: spec.stages.iter().map(|_| Mutex::default()).collect(),
            broken: Mutex::default(),
        })
    }

    fn promised(&self, stage: usize) -> u64 {
        self.promised[stage].load(Ordering::SeqCst)
    }

    fn promise(&self, stage: usize, to: u64) {
        self.promised[stage].fetch_max(to, Ordering::SeqCst);
    }

    fn insist(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            let text = what();
            self.broken.lock().unwrap().push(text.clone());
            panic!("{text}");
        }
    }

    fn check(&self, at: u64, seen: u64, is_marked: Option<bool>) {
        let plain = seen & !MARK;
        let is_whole = plain == event(at) || self.multi && plain == VOID;
        self.insist(is_whole, || format!("{at}: overwritten or not yet written"));
        if let Some(is_marked) = is_marked {
            let is_right = (seen & MARK != 0) == is_marked;
            self.insist(is_right, || format!("{at}: not as the writer left it"));
        }
    }

    /// Whoever is about to write `at`: nobody may still need what lies there.
    fn check_room(&self, at: u64) {
        for stage in 0..self.promised.len() {
            let is_free = at < self.promised(stage) + self.capacity;
            self.insist(is_free, || {
                format!("{at} overwrites what stage {stage} needs")
            });
        }
    }

    fn fill(&self, mut slots: Slots<'_, u64>, real: usize) {
        for (n, (at, slot)) in slots.iter_mut().enumerate() {
            self.check_room(at.0);
            *slot = if n < real { event(at.0) } else { 13 };
        }
    }

    fn fill_one(&self, at: Sequence, slot: &mut u64) {
        self.check_room(at.0);
        *slot = event(at.0);
    }

    fn streams(&self) -> Vec<Vec<u64>> {
        assert_eq!(*self.broken.lock().unwrap(), [""; 0]);
        let done = self.done.iter();
        done.map(|stage| stage.lock().unwrap().clone()).collect()
    }
}

/// A stage under the model.
struct Modelled {
    world: Arc<World>,
    me: usize,
    after: Vec<usize>,
    /// Whether events come marked; `None` for the one that marks, which may see its own again.
    is_marked: Option<bool>,
    promises_late: bool,
    script: Vec<u8>,
    batches: usize,
}

impl Modelled {
    /// A batch arrived: it begins with what is to be done next, it is whole, and everybody
    /// before us has promised it.
    fn see(&self, first: Sequence, events: &[u64]) {
        let world = &self.world;
        let next = world.start + world.done[self.me].lock().unwrap().len() as u64;
        world.insist(first.0 == next, || {
            format!("{first} and not {next}: missed or doubled")
        });
        for (at, &seen) in (first.0..).zip(events) {
            world.check(at, seen, self.is_marked);
        }
        for &before in &self.after {
            let end = first.0 + events.len() as u64;
            let is_promised = end <= world.promised(before);
            world.insist(is_promised, || format!("{end} before stage {before}"));
        }
    }

    fn accept(&self, first: Sequence, events: &[u64]) {
        let mut done = self.world.done[self.me].lock().unwrap();
        done.extend(events.iter().map(|event| event & !MARK));
        if !self.promises_late {
            self.world.promise(self.me, first.0 + events.len() as u64);
        }
    }

    fn answer(&mut self) -> (u8, usize) {
        let byte = self.script[self.batches % self.script.len()];
        self.batches += 1;
        (byte & 7, usize::from(byte >> 3))
    }
}

/// What both kinds of batches can do; the macro is the model of an answer.
macro_rules! play {
    ($self:ident, $batch:ident) => {{
        $self.see($batch.first(), $batch.events());
        let (answer, n) = $self.answer();
        if (4..=6).contains(&answer) {
            let early = n % ($batch.len() + 1);
            let events = $batch.events()[..early].to_vec();
            $self.accept($batch.first(), &events);
            $batch.release_first(early);
            $self.see($batch.first(), $batch.events());
        }
        match answer {
            2 | 6 => {
                let kept = n % ($batch.len() + 1);
                $self.accept($batch.first(), &$batch.events()[..kept]);
                Progress::To($batch.first() + kept as u64)
            }
            3 | 5 => Progress::Retry,
            7 => Progress::fail("planted"),
            _ => {
                $self.accept($batch.first(), $batch.events());
                Progress::All
            }
        }
    }};
}

impl Stage<u64> for Modelled {
    fn on_batch(&mut self, mut batch: Batch<'_, u64>) -> Progress {
        play!(self, batch)
    }
}

impl StageMut<u64> for Modelled {
    fn on_batch(&mut self, mut batch: BatchMut<'_, u64>) -> Progress {
        batch
            .events_mut()
            .iter_mut()
            .for_each(|event| *event |= MARK);
        play!(self, batch)
    }
}

impl LateStage<u64> for Modelled {
    fn on_batch(&mut self, view: View<'_, u64>) -> Progress {
        self.see(view.first(), view.events());
        match self.answer() {
            (2 | 4 | 6, n) => {
                let kept = n % (view.len() + 1);
                self.accept(view.first(), &view.events()[..kept]);
                Progress::To(view.first() + kept as u64)
            }
            (3, _) => Progress::Retry,
            (7, _) => Progress::fail("planted"),
            _ => {
                self.accept(view.first(), view.events());
                Progress::All
            }
        }
    }
}

/// The promise of a late stage in the model's hands.
enum Mover {
    Whole(Gate<u64>),
    Parts(Promise, Option<Hold<u64>>),
}

struct LatePart {
    stage: usize,
    is_marked: Option<bool>,
    mover: Mover,
    world: Arc<World>,
}

impl LatePart {
    /// Moves by so many events; the hold by half as many.
    fn move_by(&mut self, count: u64) {
        let (taken, released) = match &self.mover {
            Mover::Whole(gate) => (gate.taken(), gate.released()),
            Mover::Parts(promise, _) => (promise.taken(), promise.released()),
        };
        let to = (released + count).min(taken);
        self.check_held(released);
        self.world.promise(self.stage, to.0);
        let moved = match &mut self.mover {
            Mover::Whole(gate) => gate.release_to(to),
            Mover::Parts(promise, hold) => {
                if let Some(hold) = hold {
                    let kept = hold.held().first;
                    hold.keep_from(kept + count / 2);
                }
                promise.release_to(to)
            }
        };
        assert_eq!(moved, to);
    }

    /// Everything that is held is whole.
    fn check_held(&self, released: Sequence) {
        let held = match &self.mover {
            Mover::Whole(gate) => {
                let held = gate.held();
                assert_eq!(held.first, released);
                held
            }
            Mover::Parts(_, Some(hold)) => hold.held(),
            Mover::Parts(_, None) => return,
        };
        for (at, &event) in (held.first.0..).zip(held.head.iter().chain(held.tail)) {
            self.world.check(at, event, self.is_marked);
        }
    }

    fn let_go(&mut self) {
        if let Mover::Parts(_, hold) = &mut self.mover {
            *hold = None;
        }
        self.move_by(u64::MAX / 4);
    }
}

/// A graph as the spec says, fused as it says or with a thread for each stage.
fn wire(spec: &Spec, fused: bool) -> (Graph<u64>, Arc<World>, Vec<LatePart>) {
    let world = World::of(spec);
    let mut graph = Graph::new(spec.capacity, || 0_u64).unwrap();
    graph.start_at(Sequence(spec.start));
    graph.wait(Wait::Yield { spins: 1 });
    graph.on_fault(OnFault::Retry {
        times: u32::MAX,
        pause: Duration::ZERO,
        then: GiveUp::Halt,
    });
    let mut ids = Vec::new();
    let mut late = Vec::new();
    for (me, stage) in spec.stages.iter().enumerate() {
        let after = spec.after(me);
        let follows: Vec<_> = after.iter().map(|&s| ids[s]).collect();
        let writer = spec.writes && me == 0;
        let is_marked = (!writer).then_some(spec.writes);
        let how = spec.how(me);
        let modelled = Modelled {
            world: Arc::clone(&world),
            me,
            after,
            is_marked,
            promises_late: how != How::Plain,
            script: stage.script.clone(),
            batches: 0,
        };
        let name = format!("s{me}");
        let mut mover = None;
        let id = match how {
            How::Plain if writer => graph.stage_mut(&name, &follows, modelled),
            How::Plain => graph.stage(&name, &follows, modelled),
            How::Late => graph.late_stage(&name, &follows, |gate| {
                mover = Some(Mover::Whole(gate));
                modelled
            }),
            How::Split => graph.late_stage_split(&name, &follows, |promise, hold| {
                mover = Some(Mover::Parts(promise, Some(hold)));
                modelled
            }),
        };
        late.extend(mover.map(|mover| LatePart {
            stage: me,
            is_marked,
            mover,
            world: Arc::clone(&world),
        }));
        let max_batch = 1 + usize::from(stage.max_batch) % spec.capacity;
        graph.max_batch(id, max_batch);
        ids.push(id);
    }
    let behind: Vec<_> = ids.iter().take(usize::from(spec.writes)).copied().collect();
    graph.readers(1, &behind);
    for group in 0..3 {
        let members = ids.iter().zip(&spec.stages);
        let members: Vec<_> = members
            .filter(|(_, s)| s.group == group)
            .map(|(id, _)| *id)
            .collect();
        if fused && !members.is_empty() {
            graph.together(&members);
        }
        if !fused {
            members.iter().for_each(|&id| {
                graph.together(&[id]);
            });
        }
    }
    (graph, world, late)
}

/// Everybody who may do something between two operations of the producers.
struct Stagehands<'s> {
    runners: Vec<Runner>,
    late: Vec<LatePart>,
    readers: Readers<u64>,
    guest: Option<(Reader<u64>, u64)>,
    world: Arc<World>,
    is_marked: bool,
    schedule: std::iter::Cycle<std::slice::Iter<'s, u8>>,
}

impl Stagehands<'_> {
    fn some(&mut self) {
        for _ in 0..3 {
            let byte = usize::from(*self.schedule.next().expect("a cycle"));
            match byte % 4 {
                0 | 1 => {
                    let runner = byte / 4 % self.runners.len();
                    self.runners[runner].turn();
                }
                2 if !self.late.is_empty() => {
                    let part = byte / 4 % self.late.len();
                    self.late[part].move_by(byte as u64 / 32);
                }
                _ => self.guest(byte / 4),
            }
        }
    }

    /// A reader joins, reads, or leaves.
    fn guest(&mut self, n: usize) {
        let Some((reader, next)) = &mut self.guest else {
            let at = if n.is_multiple_of(2) {
                JoinAt::Oldest
            } else {
                JoinAt::Next
            };
            let reader = self.readers.join(at).expect("the only guest");
            let next = reader.released().0;
            self.guest = Some((reader, next));
            return;
        };
        if n.is_multiple_of(4) {
            self.guest = None;
            return;
        }
        let (world, is_marked) = (&self.world, self.is_marked);
        reader.poll(n, |batch| {
            for (at, &event) in batch.iter() {
                world.insist(at.0 == *next, || {
                    format!("{at} and not {next} for a reader")
                });
                world.check(at.0, event, Some(is_marked));
                *next += 1;
            }
            Progress::All
        });
    }

    /// Everybody, so that there is room at last.
    fn all(&mut self) {
        self.some();
        self.guest = None;
        self.runners.iter_mut().for_each(|runner| {
            runner.turn();
        });
        self.late.iter_mut().for_each(|part| part.move_by(2));
    }

    /// Until the operation succeeds: it never waits itself, since nobody else would move.
    fn insist<R>(&mut self, mut try_it: impl FnMut() -> Result<R, ClaimError>) -> R {
        for _ in 0..10_000 {
            match try_it() {
                Ok(returned) => return returned,
                Err(ClaimError::Full { missing }) => assert!(missing > 0),
                Err(error) => panic!("{error}"),
            }
            self.all();
        }
        panic!("never any room")
    }
}

fn operate(op: Op, producer: &mut Either, world: &World, hands: &mut Stagehands<'_>) {
    macro_rules! claim {
        ($producer:expr, $n:expr, $real:expr, $end:expr) => {
            hands.insist(|| {
                let mut claim = $producer.try_claim($n)?;
                world.fill(claim.slots(), $real);
                $end(claim);
                Ok(())
            })
        };
    }
    match (op, producer) {
        (Op::Publish(1), Either::Single(producer)) => {
            let at = producer.next_sequence();
            hands.insist(|| producer.try_publish(|slot| world.fill_one(at, slot)));
        }
        (Op::Publish(n), Either::Single(producer)) => {
            claim!(producer, n, n, |claim: lockstep_ringbuffer::Claim<
                '_,
                u64,
            >| claim.commit());
        }
        (Op::Publish(n), Either::Multi(producer)) => {
            claim!(producer, n, n, |claim: lockstep_ringbuffer::MultiClaim<
                '_,
                u64,
            >| claim.commit());
        }
        (Op::Part(n, kept), Either::Single(producer)) => {
            claim!(producer, n, kept, |claim: lockstep_ringbuffer::Claim<
                '_,
                u64,
            >| claim.commit_first(kept));
        }
        (Op::Part(n, kept), Either::Multi(producer)) => {
            claim!(
                producer,
                n,
                kept,
                |claim: lockstep_ringbuffer::MultiClaim<'_, u64>| claim.commit_first(kept)
            );
        }
        (Op::Abort(n), Either::Single(producer)) => claim!(producer, n, 0, |_| ()),
        (Op::Abort(n), Either::Multi(producer)) => claim!(producer, n, 0, drop),
        (Op::Crossed(a, b, _), Either::Single(producer)) => {
            claim!(producer, a, a, |claim: lockstep_ringbuffer::Claim<
                '_,
                u64,
            >| claim.commit());
            claim!(producer, b, b, |claim: lockstep_ringbuffer::Claim<
                '_,
                u64,
            >| claim.commit());
        }
        (Op::Crossed(a, b, aborts), Either::Multi(producer)) => {
            let mut other = producer.clone();
            // Room for both, so that the second claim succeeds while the first is open.
            hands.insist(|| match producer.remaining() {
                room if room >= a + b => Ok(()),
                room => Err(ClaimError::Full {
                    missing: (a + b - room) as u64,
                }),
            });
            let mut first = producer.try_claim(a).expect("room for both");
            let mut second = other.try_claim(b).expect("room for both");
            world.fill(second.slots(), b);
            hands.some();
            second.commit();
            hands.some();
            world.fill(first.slots(), a);
            if !aborts {
                first.commit();
            }
        }
    }
}

/// Runs a spec on this thread, turn by turn; what every stage has done.
fn turn_by_turn(spec: &Spec, fused: bool) -> Vec<Vec<u64>> {
    let (graph, world, late) = wire(spec, fused);
    let (mut producer, pipeline) = build(graph, spec.kind);
    let readers = pipeline.readers().expect("a seat");
    let (runners, running) = pipeline.into_runners();
    let mut hands = Stagehands {
        runners,
        late,
        readers,
        guest: None,
        world: Arc::clone(&world),
        is_marked: spec.writes,
        schedule: spec.schedule.iter().cycle(),
    };
    for &op in &spec.ops {
        operate(op, &mut producer, &world, &mut hands);
        hands.some();
    }
    drop(producer);
    hands.guest = None;
    let mut ended = false;
    for _ in 0..10_000 {
        hands.late.iter_mut().for_each(LatePart::let_go);
        ended = hands
            .runners
            .iter_mut()
            .fold(true, |ended, runner| (runner.turn() == Turn::Ended) & ended);
        if ended {
            break;
        }
    }
    assert!(ended, "never ended: {}", running.report());
    let report = running.report();
    assert!(
        report
            .faults
            .iter()
            .all(|fault| fault.kind == FaultKind::Retried),
        "{report}"
    );
    assert_eq!(
        report.released_by_all().0,
        spec.start + spec.published().len() as u64
    );
    world.streams()
}

/// Publishes on a thread of its own, and waits for room where there is none.
fn operate_waiting(op: Op, producer: &mut Either, world: &World) {
    macro_rules! claim {
        ($producer:expr, $n:expr, $real:expr, $kept:expr) => {{
            let mut claim = $producer.claim($n).expect("nothing fails");
            world.fill(claim.slots(), $real);
            if let Some(kept) = $kept {
                claim.commit_first(kept);
            }
        }};
    }
    macro_rules! both {
        ($n:expr, $real:expr, $kept:expr) => {
            match producer {
                Either::Single(producer) => claim!(producer, $n, $real, $kept),
                Either::Multi(producer) => claim!(producer, $n, $real, $kept),
            }
        };
    }
    if let (Op::Publish(1), Either::Single(producer)) = (op, &mut *producer) {
        let at = producer.next_sequence();
        producer
            .publish(|slot| world.fill_one(at, slot))
            .expect("nothing fails");
        return;
    }
    match op {
        Op::Publish(n) => both!(n, n, Some(n)),
        Op::Part(n, kept) => both!(n, kept, Some(kept)),
        Op::Abort(n) => both!(n, 0, None),
        Op::Crossed(a, b, aborts) => {
            let aborts = aborts && matches!(producer, Either::Multi(_));
            both!(a, a, (!aborts).then_some(a));
            both!(b, b, Some(b));
        }
    }
}

/// Runs a spec on threads: one for each placement, one for each late promise, one or two
/// that publish.
fn on_threads(spec: &Spec, fused: bool) -> Vec<Vec<u64>> {
    let (graph, world, late) = wire(spec, fused);
    let (producer, pipeline) = build(graph, spec.kind);
    let running = pipeline.start().expect("no pins, no pollers");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for mut part in late {
            let (is_over, schedule) = (&is_over, &spec.schedule);
            scope.spawn(move || {
                let mut steps = schedule.iter().cycle();
                until("the end", || {
                    part.move_by(2 + u64::from(*steps.next().expect("a cycle")) % 4);
                    is_over.load(Ordering::Acquire)
                });
            });
        }
        let hands = match &producer {
            Either::Single(_) => vec![producer],
            Either::Multi(one) => vec![Either::Multi(one.clone()), producer],
        };
        let threads = hands.len();
        for (number, mut producer) in hands.into_iter().enumerate() {
            let world = &world;
            scope.spawn(move || {
                for &op in spec.ops.iter().skip(number).step_by(threads) {
                    operate_waiting(op, &mut producer, world);
                }
            });
        }
        // A scope waits for its threads: a hang has to be told from here.
        let report = returns("a graph on threads", move || running.join());
        is_over.store(true, Ordering::Release);
        let only_retries = report.faults.iter().all(|f| f.kind == FaultKind::Retried);
        assert!(only_retries, "{report}");
    });
    world.streams()
}

fn config(native: u32, interpreted: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { interpreted } else { native },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(800, 2))]

    #[test]
    fn a77_every_placement_gives_every_stage_what_was_published(spec in any_spec()) {
        let published = spec.published();
        for fused in [true, false] {
            for (stage, stream) in turn_by_turn(&spec, fused).into_iter().enumerate() {
                prop_assert_eq!(&stream, &published, "stage {}, fused: {}", stage, fused);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(150, 1))]

    #[test]
    fn a77_on_threads_as_well(spec in any_spec(), fused in any::<bool>()) {
        let streams = on_threads(&spec, fused);
        let mut published = spec.published();
        let mut first = streams[0].clone();
        for stream in &streams {
            prop_assert_eq!(stream, &streams[0], "all stages see the same");
        }
        if spec.kind == Kind::Single {
            prop_assert_eq!(&first, &published);
        }
        // Many publish in an order of their own: as many events, as many of them void.
        let void = |events: &mut Vec<u64>| {
            let all = events.len();
            events.retain(|event| *event != VOID);
            (all, all - events.len())
        };
        prop_assert_eq!(void(&mut first), void(&mut published));
    }
}
