//! What the targets of one run are made with, and where their recorders leave what they saw.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use super::Recorder;
use crate::machine::clock::Clock;
use crate::measure::recorder::{Phase, Progress, Recorded};
use crate::measure::tail::Spans;

/// What `build` gets to make the targets of one run with.
#[derive(Debug)]
pub struct Session {
    pub(super) clock: Clock,
    pub(super) slices: usize,
    pub(super) phase: Arc<OnceLock<Phase>>,
    pub(super) progress: Vec<Arc<Progress>>,
    pub(super) back: Sender<Recorded>,
    pub(super) results: Receiver<Recorded>,
    pub(super) parts: Vec<String>,
    pub(super) spans: Vec<(String, Spans)>,
}

impl Session {
    pub(super) fn new(clock: Clock, slices: usize) -> Self {
        let (back, results) = channel();
        Self {
            clock,
            slices,
            phase: Arc::default(),
            progress: Vec::new(),
            back,
            results,
            parts: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Splits the way of an event into these parts, whose times recorders made from now on
    /// take with [`Recorder::done_by_parts`](crate::measure::recorder::Recorder::done_by_parts).
    pub fn split(&mut self, parts: &[String]) {
        self.parts = parts.to_vec();
    }

    /// Where a thread notes the spans of a kind of work that events wait for, as
    /// `journal sync`. They explain slow events, and their lengths are in the run.
    pub fn spans(&mut self, name: &str) -> Spans {
        let spans = Spans::default();
        self.spans.push((name.to_owned(), spans.clone()));
        spans
    }

    /// A recorder for a thread that sees every event. Drop it when its input ends.
    pub fn recorder(&mut self) -> Recorder {
        let progress = Arc::new(Progress::default());
        self.progress.push(Arc::clone(&progress));
        Recorder::new(
            self.clock,
            Arc::clone(&self.phase),
            self.slices,
            self.parts.len(),
            progress,
            self.back.clone(),
        )
    }

    /// The clock that tickets are stamped with.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }
}
