//! The order of the runs: every contender once a round, in an order that changes, between probes.

use std::time::Instant;

use crate::args::Args;
use crate::contenders::{Case, Contender, cases};
use crate::machine::Machine;
use crate::regime::{Probe, label, probe};
use crate::statistics::{Sample, Samples};
use crate::works::Work;

/// Everything that was measured at one work.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) work: Work,
    pub(crate) series: Vec<Series>,
}

/// Everything that was measured of one variant.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) contender: Contender,
    pub(crate) variant: String,
    pub(crate) samples: Samples,
}

/// All runs, and every probe in ns.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) works: Vec<Measured>,
    pub(crate) probes_ns: Vec<f64>,
    pub(crate) took_s: f64,
}

/// One work under way.
struct Bench {
    work: Work,
    cases: Vec<Case>,
    samples: Vec<Samples>,
    /// What each case gave last: sizes its next run.
    earlier: Vec<Option<f64>>,
}

/// Runs everything; the first wrong sum ends it.
pub(crate) fn measure(
    machine: &Machine,
    args: &Args,
    mut progress: impl FnMut(&str),
) -> Result<Results, String> {
    let began = Instant::now();
    let mut benches: Vec<Bench> = args
        .works
        .iter()
        .map(|work| Bench::new(*work, machine, args))
        .collect();
    let mut probes = Probes {
        machine,
        last: probe(machine),
        all_ns: Vec::new(),
    };
    let mut order = Order(0x9e37_79b9_7f4a_7c15);
    if !args.quick {
        // Round 0 warms up and sizes the runs; it counts for nothing.
        for bench in &mut benches {
            progress(&format!("warming up: {}", bench.work.title));
            bench.warm_up(machine)?;
        }
    }
    for round in 1..=args.rounds {
        for bench in &mut benches {
            progress(&format!(
                "round {round} of {}: {}",
                args.rounds, bench.work.title
            ));
            for case in order.shuffled(bench.cases.len()) {
                bench.run(case, round, args.seconds, &mut probes)?;
            }
        }
    }
    Ok(Results {
        works: benches.into_iter().map(Bench::finish).collect(),
        probes_ns: probes.all_ns,
        took_s: began.elapsed().as_secs_f64(),
    })
}

impl Bench {
    fn new(work: Work, machine: &Machine, args: &Args) -> Self {
        let mut cases = cases(&work, machine);
        cases.retain(|case| args.wants(case.contender));
        Self {
            work,
            samples: cases.iter().map(|_| Samples::default()).collect(),
            earlier: cases.iter().map(|_| None).collect(),
            cases,
        }
    }

    fn warm_up(&mut self, machine: &Machine) -> Result<(), String> {
        for case in 0..self.cases.len() {
            let events = self.work.events(0.005, None);
            self.earlier[case] = Some(self.reading(case, machine, events)?.value);
        }
        Ok(())
    }

    fn run(
        &mut self,
        case: usize,
        round: usize,
        seconds: f64,
        probes: &mut Probes<'_>,
    ) -> Result<(), String> {
        let events = self.work.events(seconds, self.earlier[case]);
        let before = probes.last;
        let reading = self.reading(case, probes.machine, events)?;
        let after = probes.next();
        self.earlier[case] = Some(reading.value);
        self.samples[case].0.push(Sample {
            round,
            regime: label(before, after),
            value: reading.value,
            tail: reading.tail,
        });
        Ok(())
    }

    fn reading(
        &self,
        case: usize,
        machine: &Machine,
        events: u64,
    ) -> Result<crate::run::Reading, String> {
        let case = &self.cases[case];
        (case.run)(machine, events).map_err(|error| format!("{}, {case:?}: {error}", self.work.key))
    }

    fn finish(self) -> Measured {
        let series = self.cases.into_iter().zip(self.samples);
        Measured {
            work: self.work,
            series: series
                .map(|(case, samples)| Series {
                    contender: case.contender,
                    variant: case.variant,
                    samples,
                })
                .collect(),
        }
    }
}

/// One probe between two runs serves both.
struct Probes<'m> {
    machine: &'m Machine,
    last: Probe,
    all_ns: Vec<f64>,
}

impl Probes<'_> {
    fn next(&mut self) -> Probe {
        self.last = probe(self.machine);
        self.all_ns.extend(self.last.0);
        self.last
    }
}

/// An order that differs from round to round and is the same in every run of the program.
struct Order(u64);

impl Order {
    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// Xorshift: any spread will do.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}
