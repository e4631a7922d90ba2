//! From what a [`Graph`] was told to cursors, desks, runners and producers.
//!
//! In this order: mistakes, names, edges ([`Plan`]), lanes, placements, policies; then
//! everything is made, which cannot fail.

use std::sync::OnceLock;

use crate::batch::{Outlet, StageCard};
use crate::cpus;
use crate::cursor::{CursorRef, NOWHERE};
use crate::desk::{Desk, Source};
use crate::error::BuildError;
use crate::graph::{
    Graph, Kind, MAX_STAGES, PUBLISHED_CELL, Placement, released_cell, seat_cell, taken_cell,
};
use crate::multi::{Claims, MultiProducer};
use crate::pipeline::{Finish, Pipeline};
use crate::plan::Plan;
use crate::poller::{Poller, ReaderSeat, Readers};
use crate::probe::{Probe, Probed};
use crate::producer::Producer;
use crate::room::{Room, RoomPlan};
use crate::runner::{Runner, RunnerPlan};
use crate::seat::{Seat, SeatPlan};
use crate::stamps::Stamps;
use crate::sync::{Arc, AtomicBool};
use crate::wait::{Idler, Wait};
use crate::wake::{WakeList, WakeSlot};

mod checks;

use checks::{
    check_lanes, check_names, check_policies, check_pollers, placements, plan, thread_name,
};

type Void<E> = Box<dyn Fn(&mut E) + Send + Sync>;

pub(crate) fn build_single<E: Send + Sync + 'static>(
    graph: Graph<E>,
) -> Result<(Producer<E>, Pipeline<E>), BuildError> {
    let wiring = Wiring::of(graph, false)?;
    let room = Room::new(wiring.room_plan(), wiring.producer_idler());
    let published = wiring.published();
    let producer = Producer::new(
        wiring.graph.slots.clone(),
        published,
        wiring.wake_behind(None),
        room,
    );
    Ok((producer, wiring.into_pipeline()))
}

pub(crate) fn build_multi<E: Send + Sync + 'static>(
    graph: Graph<E>,
    void: Void<E>,
) -> Result<(MultiProducer<E>, Pipeline<E>), BuildError> {
    let wiring = Wiring::of(graph, true)?;
    let claims = Claims {
        claimed: wiring.published(),
        stamps: Arc::clone(wiring.stamps.as_ref().expect("asked for above")),
        void,
        room: wiring.room_plan(),
        wake: wiring.wake_behind(None),
        wait: wiring.producer_wait,
        crowded: wiring.crowded,
        sleep: Arc::clone(&wiring.producer_sleep),
    };
    let producer = MultiProducer::new(wiring.graph.slots.clone(), Arc::new(claims));
    Ok((producer, wiring.into_pipeline()))
}

/// A thread of the pipeline before it is made.
struct Thread {
    place: Placement,
    wait: Wait,
    sleep: Arc<WakeSlot>,
}

/// A checked graph and everything that its parts share.
struct Wiring<E> {
    graph: Graph<E>,
    plan: Plan,
    threads: Vec<Thread>,
    /// For each stage that is placed: its thread, and its place there.
    seat_of: Vec<Option<(usize, usize)>>,
    stamps: Option<Arc<Stamps>>,
    producer_wait: Wait,
    producer_sleep: Arc<WakeSlot>,
    crowded: bool,
}

impl<E: Send + Sync + 'static> Wiring<E> {
    fn of(mut graph: Graph<E>, multi: bool) -> Result<Self, BuildError> {
        if !graph.mistakes.is_empty() {
            return Err(graph.mistakes.remove(0));
        }
        check_names(&graph)?;
        let plan = plan(&graph)?;
        check_lanes(&graph)?;
        check_pollers(&graph)?;
        let places = placements(&graph, &plan)?;
        check_policies(&graph, &places)?;

        let threads: Vec<Thread> = places
            .into_iter()
            .map(|place| Thread {
                wait: place.wait.unwrap_or(graph.wait),
                sleep: Arc::default(),
                place,
            })
            .collect();
        let mut seat_of = vec![None; graph.nodes.len()];
        for (number, thread) in threads.iter().enumerate() {
            for (place, &stage) in thread.place.stages.iter().enumerate() {
                seat_of[stage] = Some((number, place));
            }
        }
        start_cursors(&graph);
        let capacity = graph.slots.capacity();
        Ok(Self {
            stamps: multi.then(|| Arc::new(Stamps::new(capacity, graph.start))),
            producer_wait: graph.producer_wait.unwrap_or(graph.wait),
            producer_sleep: Arc::default(),
            // Of many producers there are two at least.
            crowded: threads.len() + 1 + usize::from(multi) > cpus::usable_count(),
            graph,
            plan,
            threads,
            seat_of,
        })
    }

    fn published(&self) -> CursorRef {
        self.graph.table.cursor(PUBLISHED_CELL)
    }

    fn released(&self, stage: usize) -> CursorRef {
        self.graph.table.cursor(released_cell(stage))
    }

    fn gating(&self) -> Box<[CursorRef]> {
        let stages = self.plan.gating.iter();
        stages.map(|&stage| self.released(stage)).collect()
    }

    fn seats(&self) -> Box<[CursorRef]> {
        (0..self.graph.seats)
            .map(|seat| self.graph.table.cursor(seat_cell(seat)))
            .collect()
    }

    fn room_plan(&self) -> RoomPlan {
        RoomPlan {
            capacity: self.graph.slots.capacity(),
            gating: self.gating(),
            seats: self.seats(),
            state: Arc::clone(&self.graph.state),
            on_full: self.graph.on_full,
        }
    }

    fn producer_idler(&self) -> Idler {
        Idler::new(
            self.producer_wait,
            self.crowded,
            Arc::clone(&self.producer_sleep),
        )
    }

    fn is_late(&self, stage: usize) -> bool {
        matches!(
            self.graph.nodes[stage].kind,
            Kind::Stage { late: Some(_), .. }
        )
    }

    /// Whether `follower`, a stage, reads `stage`'s number in the runner of both.
    fn is_local(&self, stage: usize, follower: usize) -> bool {
        let thread = |stage: usize| self.seat_of[stage].map(|(thread, _)| thread);
        !self.is_late(stage) && thread(stage).is_some() && thread(stage) == thread(follower)
    }

    /// The stages that read the cursor of `stage` (of the producer for `None`).
    fn remote_followers(&self, stage: Option<usize>) -> impl Iterator<Item = usize> {
        (0..self.graph.nodes.len()).filter(move |&follower| match stage {
            None => self.plan.after[follower].is_empty(),
            Some(stage) => {
                self.plan.after[follower].contains(&stage) && !self.is_local(stage, follower)
            }
        })
    }

    /// Whom to wake when `stage` (the producer for `None`) has moved.
    fn wake_behind(&self, stage: Option<usize>) -> WakeList {
        let mut threads: Vec<usize> = self
            .remote_followers(stage)
            .filter_map(|follower| self.seat_of[follower].map(|(thread, _)| thread))
            .collect();
        // A late stage may be moved by others, and waits for that when the pipeline closes.
        if let Some(stage) = stage.filter(|&stage| self.is_late(stage)) {
            threads.extend(self.seat_of[stage].map(|(thread, _)| thread));
        }
        threads.sort_unstable();
        threads.dedup();
        let mut slots: Vec<_> = threads
            .into_iter()
            .filter(|&thread| self.threads[thread].wait.may_park())
            .map(|thread| Arc::clone(&self.threads[thread].sleep))
            .collect();
        if stage.is_some_and(|stage| self.plan.gating.contains(&stage)) {
            slots.extend(self.producer_slot());
        }
        WakeList::new(slots)
    }

    fn producer_slot(&self) -> Option<Arc<WakeSlot>> {
        self.producer_wait
            .may_park()
            .then(|| Arc::clone(&self.producer_sleep))
    }

    fn sources(&self, after: &[usize], follower: Option<usize>) -> Box<[Source]> {
        let seen = self.graph.start;
        if after.is_empty() {
            return Box::new([match &self.stamps {
                None => Source::Cursor {
                    cursor: self.published(),
                    seen,
                    is_run: false,
                },
                Some(stamps) => Source::Stamps {
                    stamps: Arc::clone(stamps),
                    claimed: self.published(),
                    seen,
                },
            }]);
        }
        let source = |&stage: &usize| match follower {
            Some(follower) if self.is_local(stage, follower) => Source::Local {
                place: self.seat_of[stage].expect("local stages are placed").1,
            },
            _ => Source::Cursor {
                cursor: self.released(stage),
                seen,
                is_run: self.seat_of[stage].is_some(),
            },
        };
        after.iter().map(source).collect()
    }

    fn desk(&self, stage: usize) -> Desk<E> {
        let is_late = self.is_late(stage);
        let cell = if is_late {
            taken_cell(stage)
        } else {
            released_cell(stage)
        };
        let is_followed = is_late
            || self.plan.gating.contains(&stage)
            || self.graph.seats > 0 && self.graph.readers_after.contains(&stage)
            || self.remote_followers(Some(stage)).next().is_some();
        let max_batch = self.graph.nodes[stage].max_batch;
        let place = self.seat_of[stage].map(|(thread, _)| &self.threads[thread].place);
        let max_batch = max_batch.or_else(|| place.and_then(|place| place.max_batch));
        let capacity = self.graph.slots.capacity();
        Desk {
            slots: self.graph.slots.clone(),
            card: StageCard {
                graph: self.graph.id,
                index: stage,
                ancestors: self.plan.ancestors[stage],
            },
            sources: self.sources(&self.plan.after[stage], Some(stage)),
            outlet: Outlet {
                released: self.graph.start,
                cursor: self.graph.table.cursor(cell),
                is_followed,
                // Who waits for a late stage waits for its gate.
                wake: if is_late {
                    WakeList::default()
                } else {
                    self.wake_behind(Some(stage))
                },
                reached: self.graph.start,
            },
            bound: self.graph.start,
            max_batch: max_batch.map_or(capacity.div_ceil(4), |events| events as u64),
        }
    }

    fn probe(&self) -> Probe {
        let probed = |stage: usize| Probed {
            name: Arc::clone(&self.graph.nodes[stage].name),
            released: self.released(stage),
            taken: self
                .is_late(stage)
                .then(|| self.graph.table.cursor(taken_cell(stage))),
            after: self.plan.after[stage].clone(),
            gates_producer: self.plan.gating.contains(&stage),
        };
        Probe {
            published: self.published(),
            capacity: self.graph.slots.capacity(),
            stages: (0..self.graph.nodes.len()).map(probed).collect(),
        }
    }

    fn into_pipeline(mut self) -> Pipeline<E> {
        self.set_up_state();
        let probe = self.probe();
        let readers = (self.graph.seats > 0).then(|| self.readers());
        let pollers: Vec<Option<Poller<E>>> = (0..self.graph.nodes.len())
            .map(|stage| self.poller(stage))
            .collect();
        let gates: Vec<_> = (0..self.graph.nodes.len())
            .map(|stage| self.wake_behind(Some(stage)))
            .collect();
        let mut seats: Vec<Vec<Option<Box<dyn Seat>>>> = self
            .threads
            .iter()
            .map(|thread| thread.place.stages.iter().map(|_| None).collect())
            .collect();
        let desks: Vec<_> = (0..self.graph.nodes.len())
            .map(|stage| self.desk(stage))
            .collect();
        let nodes = std::mem::take(&mut self.graph.nodes);
        let names: Vec<_> = nodes.iter().map(|node| Arc::clone(&node.name)).collect();
        for (stage, ((node, desk), wake)) in nodes.into_iter().zip(desks).zip(gates).enumerate() {
            match node.kind {
                Kind::Poller(_) => {}
                Kind::Hold(cell) => set_once(&cell, wake),
                Kind::Stage { work, late, .. } => {
                    if let Some(late) = &late {
                        set_once(&late.wake, wake);
                    }
                    let (thread, place) = self.seat_of[stage].expect("every stage is placed");
                    seats[thread][place] = Some(work.seat(SeatPlan {
                        desk,
                        place,
                        state: Arc::clone(&self.graph.state),
                        on_fault: node.on_fault.unwrap_or(self.graph.on_fault),
                        late,
                    }));
                }
            }
        }
        let finish = Finish::of(self.threads.len());
        let runners = self
            .threads
            .iter()
            .zip(seats)
            .map(|(thread, seats)| self.runner(thread, seats, &names, &finish))
            .collect();
        Pipeline::new(
            runners,
            pollers,
            readers,
            probe,
            Arc::clone(&self.graph.state),
            finish,
            self.graph.id,
        )
    }

    fn runner(
        &self,
        thread: &Thread,
        seats: Vec<Option<Box<dyn Seat>>>,
        names: &[Arc<str>],
        finish: &Arc<Finish>,
    ) -> Runner {
        let place = &thread.place;
        Runner::new(RunnerPlan {
            name: thread_name(place, |stage| &names[stage]),
            cpu: place.cpu,
            wait: thread.wait,
            on_caller: place.on_caller,
            seats: seats.into_iter().flatten().collect(),
            start: self.graph.start,
            state: Arc::clone(&self.graph.state),
            idler: Idler::new(thread.wait, self.crowded, Arc::clone(&thread.sleep)),
            finish: Arc::clone(finish),
        })
    }

    /// P3: everybody who may park, and the names for faults.
    fn set_up_state(&self) {
        let names = self.graph.nodes.iter().map(|node| Arc::clone(&node.name));
        let mut sleepers: Vec<_> = self
            .threads
            .iter()
            .map(|thread| Arc::clone(&thread.sleep))
            .collect();
        sleepers.push(Arc::clone(&self.producer_sleep));
        self.graph.state.set_up(names.collect(), sleepers);
    }

    fn poller(&self, stage: usize) -> Option<Poller<E>> {
        let Kind::Poller(on_drop) = self.graph.nodes[stage].kind else {
            return None;
        };
        Some(Poller {
            desk: self.desk(stage),
            published: self.published(),
            state: Arc::clone(&self.graph.state),
            on_drop,
            is_over: false,
        })
    }

    fn readers(&self) -> Readers<E> {
        let seats = self
            .seats()
            .into_vec()
            .into_iter()
            .map(|cursor| ReaderSeat {
                cursor,
                is_taken: AtomicBool::new(false),
            });
        let slots = self.graph.slots.clone();
        let after = self.graph.readers_after.clone();
        let bits = after.iter().fold(0, |bits, &stage| {
            bits | self.plan.ancestors[stage] | 1 << stage
        });
        let card = StageCard {
            graph: self.graph.id,
            index: MAX_STAGES,
            ancestors: bits,
        };
        let sources: Vec<SourcePlan> = self
            .sources(&after, None)
            .into_vec()
            .into_iter()
            .map(SourcePlan::of)
            .collect();
        let producer: Vec<_> = self.producer_slot().into_iter().collect();
        let capacity = self.graph.slots.capacity();
        Readers {
            seats: seats.collect(),
            gating: self.gating(),
            make: Arc::new(move |cursor, start| Desk {
                slots: slots.clone(),
                card: card.clone(),
                sources: sources.iter().map(|source| source.at(start)).collect(),
                outlet: Outlet {
                    released: start,
                    cursor,
                    is_followed: true,
                    wake: WakeList::new(producer.clone()),
                    reached: start,
                },
                bound: start,
                max_batch: capacity,
            }),
            published: self.published(),
            state: Arc::clone(&self.graph.state),
        }
    }
}

/// What a reader follows, to be copied for each that joins.
enum SourcePlan {
    Cursor { cursor: CursorRef, is_run: bool },
    Stamps(Arc<Stamps>, CursorRef),
}

impl SourcePlan {
    fn of(source: Source) -> Self {
        match source {
            Source::Cursor { cursor, is_run, .. } => Self::Cursor { cursor, is_run },
            Source::Stamps {
                stamps, claimed, ..
            } => Self::Stamps(stamps, claimed),
            Source::Local { .. } => unreachable!("a reader shares no runner"),
        }
    }

    fn at(&self, start: u64) -> Source {
        match self {
            Self::Cursor { cursor, is_run } => Source::Cursor {
                cursor: cursor.clone(),
                seen: start,
                is_run: *is_run,
            },
            Self::Stamps(stamps, claimed) => Source::Stamps {
                stamps: Arc::clone(stamps),
                claimed: claimed.clone(),
                seen: start,
            },
        }
    }
}

fn set_once(cell: &OnceLock<WakeList>, wake: WakeList) {
    let second = cell.set(wake);
    debug_assert!(second.is_ok(), "a graph is built once");
}

fn start_cursors<E>(graph: &Graph<E>) {
    let stages = graph.nodes.len();
    let cells = (0..stages).flat_map(|stage| [released_cell(stage), taken_cell(stage)]);
    for cell in cells.chain([PUBLISHED_CELL]) {
        graph.table.cursor(cell).advance(graph.start);
    }
    for seat in 0..graph.seats {
        graph.table.cursor(seat_cell(seat)).advance(NOWHERE);
    }
}
