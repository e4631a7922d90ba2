//! Every work once a round, as often as asked.

use std::path::Path;
use std::time::Instant;

use crate::args::{self, Args, Task};
use crate::machine;
use crate::place::Place;
use crate::results::Results;
use crate::{json, table};

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Something to measure.
pub(crate) trait Work {
    fn key(&self) -> &'static str;

    /// Measures everything of it once, ours and the limit in turns; builds what it needs the first time.
    fn round(&mut self, setting: &Setting<'_>, results: &mut Results) -> Outcome<()>;
}

/// Where and how long.
pub(crate) struct Setting<'a> {
    pub(crate) args: &'a Args,
    pub(crate) place: &'a Place,
    /// The number of the round, from 0: who begins changes with it.
    pub(crate) round: usize,
}

impl Setting<'_> {
    /// Whether ours is measured, for both turns: who begins changes with the round.
    pub(crate) fn turns(&self) -> [bool; 2] {
        let is_ours_first = self.round.is_multiple_of(2);
        [is_ours_first, !is_ours_first]
    }
}

pub(crate) fn perform(
    mut works: Vec<Box<dyn Work>>,
    say: impl Fn(&str),
    progress: impl Fn(&str),
) -> Outcome<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    let is_asked = |key: &str| {
        args.only.is_empty() || args.only.iter().any(|text| key.contains(text.as_str()))
    };
    works.retain(|work| is_asked(work.key()));
    if args.task == Task::Help || works.is_empty() {
        say(args::HELP);
        return Ok(());
    }
    if args.task == Task::List {
        works.iter().for_each(|work| say(work.key()));
        return Ok(());
    }
    let parent = args.dir.as_deref();
    let place = Place::under(parent.unwrap_or(Path::new(env!("CARGO_TARGET_TMPDIR"))))?;
    let began = Instant::now();
    let mut results = Results::default();
    for round in 0..args.rounds {
        for work in &mut works {
            progress(&format!(
                "round {} of {}: {}",
                round + 1,
                args.rounds,
                work.key()
            ));
            let setting = Setting {
                args: &args,
                place: &place,
                round,
            };
            work.round(&setting, &mut results)?;
        }
    }
    let mut description = machine::description(&place);
    let took = format!(
        "{:.0} s, {} rounds",
        began.elapsed().as_secs_f64(),
        args.rounds
    );
    description.push(("took", took));
    say(&table::text(&results, &description));
    if let Some(path) = &args.json {
        let document = json::document(&results, &description);
        std::fs::write(path, format!("{document:#}\n"))?;
    }
    Ok(())
}
