//! The harness, measured: a stub pipeline with known delays on a clock that the test moves
//! must come out with the percentiles that arithmetic gives.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};

use super::arrivals::Arrivals;
use super::generator::{Load, Sent, Target, drive};
use super::recorder::{Phase, Progress, Recorded, Recorder, Ticket};
use super::simulated::SimulatedClock;
use crate::machine::clock::Ticks;

const MS: u64 = 1_000_000;

/// How long the stub works in vain for while there is nothing to send, and so how late the
/// generator may be.
const IDLE_NS: u64 = 200;
const SLACK_NS: u64 = IDLE_NS + 50;

/// One server with a queue: an event is done `service_ns` after it was sent, or after the
/// one before it, whichever is later.
struct Stub {
    clock: SimulatedClock,
    recorder: Recorder<SimulatedClock>,
    room: usize,
    waiting: VecDeque<Ticket>,
    service_ns: u64,
    /// From when to when the server does nothing.
    stalled: (u64, u64),
    /// When the generator is stopped, once, and until when.
    generator_stalls: Option<(u64, u64)>,
    free_at: u64,
}

impl Stub {
    /// The server's work up to the present moment.
    fn work(&mut self) {
        let now = self.clock.early();
        while let Some(&ticket) = self.waiting.front() {
            let mut start = ticket.sent.max(self.free_at);
            if (self.stalled.0..self.stalled.1).contains(&start) {
                start = self.stalled.1;
            }
            let done = start + self.service_ns;
            if done > now {
                break;
            }
            self.waiting.pop_front();
            self.free_at = done;
            self.recorder.done_at(ticket, done);
        }
    }
}

impl Target for Stub {
    fn offer(&mut self, ticket: Ticket) -> bool {
        self.work();
        if self.waiting.len() == self.room {
            return false;
        }
        self.waiting.push_back(ticket);
        true
    }

    fn idle(&mut self) {
        self.work();
        self.clock.pass(IDLE_NS);
        if let Some((from, until)) = self.generator_stalls
            && self.clock.early() >= from
        {
            let now = self.clock.early();
            self.clock.pass(until.saturating_sub(now));
            self.generator_stalls = None;
        }
    }
}

struct Outcome {
    sent: Sent,
    recorded: Recorded,
}

impl Outcome {
    fn response(&self, percentile: f64) -> u64 {
        self.recorded.response.value_at_percentile(percentile)
    }

    fn service(&self, percentile: f64) -> u64 {
        self.recorded.service.value_at_percentile(percentile)
    }

    fn lateness(&self, percentile: f64) -> u64 {
        self.sent.lateness.value_at_percentile(percentile)
    }
}

#[derive(Clone, Copy)]
struct Plan {
    rate: u64,
    service_ns: u64,
    stalled: (u64, u64),
    generator_stalls: Option<(u64, u64)>,
    room: usize,
}

/// One second without warm-up on simulated time.
fn measure(plan: Plan) -> Outcome {
    let clock = SimulatedClock::new();
    let phase = Phase {
        from: 1_000,
        until: 1_000 + 1_000 * MS,
        slices: 10,
    };
    let (back, results): (_, Receiver<Recorded>) = channel();
    let recorder = Recorder::new(
        clock.clone(),
        Arc::new(OnceLock::from(phase)),
        phase.slices,
        0,
        Arc::new(Progress::default()),
        back,
    );
    let mut stub = Stub {
        clock: clock.clone(),
        recorder,
        room: plan.room,
        waiting: VecDeque::new(),
        service_ns: plan.service_ns,
        stalled: plan.stalled,
        generator_stalls: plan.generator_stalls,
        free_at: 0,
    };
    let load = Load {
        rate: plan.rate,
        arrivals: Arrivals::Even,
        start: 1_000,
        phase,
        give_up: phase.until + 500 * MS,
    };
    let sent = drive(&clock, load, &mut stub, &AtomicBool::new(false));
    clock.pass(10_000 * MS);
    stub.work();
    drop(stub);
    let recorded = results.recv().unwrap();
    Outcome { sent, recorded }
}

const QUIET: Plan = Plan {
    rate: 10_000,
    service_ns: 7_000,
    stalled: (0, 0),
    generator_stalls: None,
    room: 1 << 16,
};

#[track_caller]
fn assert_near(found: u64, expected: u64) {
    // The histogram keeps three digits.
    let slack = SLACK_NS + expected / 500;
    assert!(
        found.abs_diff(expected) <= slack,
        "{found} is not {expected} ± {slack}"
    );
}

#[test]
fn a_fixed_delay_comes_out_at_every_percentile() {
    let outcome = measure(QUIET);
    assert_eq!(outcome.recorded.response.len(), 10_000);
    for percentile in [0.0, 50.0, 99.0, 100.0] {
        assert_near(outcome.response(percentile), 7_000);
        assert_near(outcome.service(percentile), 7_000);
    }
    assert!(outcome.lateness(100.0) <= SLACK_NS);
}

#[test]
fn a_stall_of_the_engine_shows_its_whole_ramp_in_the_response() {
    // 200 ms of 1 s: a fifth of the events wait, evenly from 200 ms down to nothing; behind
    // them the queue of 2,000 events takes 2,000 × 7 µs = 14 ms, in which 140 more arrive
    // and so on: 2,150 events in all.
    let outcome = measure(Plan {
        stalled: (300 * MS, 500 * MS),
        ..QUIET
    });
    assert_eq!(outcome.recorded.response.len(), 10_000);
    assert_near(outcome.response(100.0), 200 * MS + 7_000);
    let above = |ns: u64| outcome.recorded.response.count_between(ns, u64::MAX);
    // The k-th event of the ramp waits 200 ms - k × 100 µs + k × 7 µs.
    assert!(above(100 * MS).abs_diff(1_075) <= 5, "{}", above(100 * MS));
    assert!(above(8_000).abs_diff(2_150) <= 5, "{}", above(8_000));
    assert_near(outcome.response(50.0), 7_000);
}

#[test]
fn a_generator_that_is_stopped_shows_as_lateness_and_not_as_service() {
    let outcome = measure(Plan {
        generator_stalls: Some((300 * MS, 500 * MS)),
        service_ns: 10,
        ..QUIET
    });
    assert_near(outcome.lateness(100.0), 200 * MS);
    // 2,000 events are sent at once afterwards; the server needs 10 ns each and takes them
    // in order.
    assert!(
        outcome.service(100.0) < 100_000,
        "{}",
        outcome.service(100.0)
    );
    let late = outcome.sent.lateness.count_between(1_000, u64::MAX);
    assert!(late.abs_diff(2_000) <= 30, "{late}");
    // The client's wait is real, whoever caused it.
    assert_near(outcome.response(100.0), 200 * MS);
}

#[test]
fn a_slow_consumer_is_not_hidden_by_a_full_ring() {
    // The server needs 125 µs, an event comes every 100 µs, and there is room for 8. After a
    // second 8,000 are done and the 10,000th has waited 250 ms from its intended time, though
    // none waited longer than 9 × 125 µs from its real send.
    let outcome = measure(Plan {
        service_ns: 125_000,
        room: 8,
        ..QUIET
    });
    assert_eq!(outcome.sent.unsent, 0, "half a second suffices to catch up");
    assert!(outcome.sent.blocked > 9_000, "{}", outcome.sent.blocked);
    assert_near(outcome.response(100.0), 250 * MS);
    assert_near(outcome.response(50.0), 125 * MS);
    assert!(outcome.service(100.0) <= 9 * 125_000 + SLACK_NS + 5_000);
}

#[test]
fn a_pipeline_that_stops_for_good_cannot_look_fast() {
    // Nothing is done any more after 0.5 s; the ring takes 8 more.
    let outcome = measure(Plan {
        stalled: (500 * MS, 9_000 * MS),
        room: 8,
        ..QUIET
    });
    let accounted = outcome.sent.sent + outcome.sent.unsent;
    assert!(accounted.abs_diff(10_000) <= 1, "O2: {accounted}");
    assert!(outcome.sent.unsent > 4_900, "{}", outcome.sent.unsent);
    // The first unsent one was due at about 0.5 s and given up at 1.5 s.
    assert_near(outcome.sent.unsent_waits.max(), 1_000 * MS - 900_000);
    assert_eq!(outcome.sent.unsent_waits.len(), outcome.sent.unsent);
}

#[test]
fn no_sample_is_negative() {
    for rate in [1_000, 50_000, 400_000] {
        let outcome = measure(Plan {
            rate,
            service_ns: 0,
            ..QUIET
        });
        assert_eq!(outcome.recorded.negative, 0);
    }
}
