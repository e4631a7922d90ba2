//! What was typed behind `cargo bench -p lockstep-ringbuffer --`.

use std::path::PathBuf;

use crate::contenders::Contender;
use crate::works::{WORKS, Work};

pub(crate) const HELP: &str = "\
Ours beside the peers and beside what the machine allows, in one run.

  cargo bench -p lockstep-ringbuffer -- [OPTIONS]

  --rounds N       every contender runs so often at each work [5]
  --seconds S      a run lasts about so long [0.1]
  --quick          one short round: does everything still run? no figures to quote
  --only TEXT      only works whose key contains TEXT; may be repeated
  --who TEXT       only contenders whose name contains TEXT; may be repeated
  --json FILE      writes the rows, and every variant of everybody, as JSON
  --all            prints every variant of the peers, not only of ours
  --list           the works, and who takes part in which variants
  --instructions   counts the instructions of our hot paths under valgrind instead";

/// What to do, with everything checked.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) quick: bool,
    pub(crate) works: Vec<Work>,
    pub(crate) who: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) all: bool,
    pub(crate) task: Task,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    Measure,
    List,
    Help,
    /// Count instructions.
    Instructions,
    /// Be what is counted: one hot path, so many times.
    Exercise {
        path: String,
        times: u64,
    },
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            rounds: 5,
            seconds: 0.1,
            quick: false,
            works: Vec::new(),
            who: Vec::new(),
            json: None,
            all: false,
            task: Task::Measure,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} wants a value; see --help"))
            };
            match word.as_str() {
                "--rounds" => args.rounds = number(&word, &value()?, 1.0, 1e4)?.1,
                "--seconds" => args.seconds = number(&word, &value()?, 0.001, 60.0)?.0,
                "--quick" => args.quick = true,
                "--only" => args.choose(&value()?)?,
                "--who" => args.who.push(value()?),
                "--json" => args.json = Some(value()?.into()),
                "--all" => args.all = true,
                "--list" => args.task = Task::List,
                "--help" => args.task = Task::Help,
                "--instructions" => args.task = Task::Instructions,
                "--exercise" => {
                    let path = value()?;
                    let times = number(&word, &value()?, 0.0, 1e9)?.1 as u64;
                    args.task = Task::Exercise { path, times };
                }
                // cargo says so to every bench
                "--bench" => {}
                _ => return Err(format!("{word:?} is no option; see --help")),
            }
        }
        if args.quick {
            (args.rounds, args.seconds) = (1, 0.01);
        }
        if args.works.is_empty() {
            args.works = WORKS.to_vec();
        }
        Ok(args)
    }

    fn choose(&mut self, text: &str) -> Result<(), String> {
        let mut found = WORKS
            .iter()
            .filter(|work| work.key.contains(text))
            .peekable();
        if found.peek().is_none() {
            let keys: Vec<&str> = WORKS.iter().map(|work| work.key).collect();
            return Err(format!(
                "--only {text:?} is in no work; there are: {}",
                keys.join(", ")
            ));
        }
        for work in found {
            if self.works.iter().all(|chosen| chosen.key != work.key) {
                self.works.push(*work);
            }
        }
        Ok(())
    }

    /// Whether this contender was asked for.
    pub(crate) fn wants(&self, contender: Contender) -> bool {
        let name = contender.name();
        self.who.is_empty() || self.who.iter().any(|text| name.contains(text.as_str()))
    }
}

/// The number, and the same as a count.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked against the limits, none of which is negative or large"
)]
fn number(option: &str, text: &str, least: f64, most: f64) -> Result<(f64, usize), String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok((number, number as usize)),
        _ => Err(format!(
            "{option} {text:?}: a number from {least} to {most} is wanted"
        )),
    }
}
