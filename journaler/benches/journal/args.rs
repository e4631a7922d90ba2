//! What was typed behind `cargo bench -p lockstep-journaler --`.

use std::path::PathBuf;
use std::time::Duration;

use crate::rounds::Outcome;

pub(crate) const HELP: &str = "\
The journal beside what the disk allows, in one run.

  cargo bench -p lockstep-journaler -- [OPTIONS]

  --rounds N       every work runs so often [5]
  --seconds S      a run lasts about so long [0.5]
  --only TEXT      only works whose key contains TEXT; may be repeated
  --dir DIR        measure in a fresh directory under DIR [the target directory]
  --open SIZE      the larger journal to be opened, in MiB [1024]
  --scan SIZE      the journal to be read, in MiB [512]
  --quick          one short round: does everything still run? no figures to quote
  --json FILE      writes the rows, with every round, as JSON
  --list           the works";

/// What to do, with everything checked.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) rounds: usize,
    pub(crate) run: Duration,
    pub(crate) quick: bool,
    pub(crate) only: Vec<String>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) open_bytes: u64,
    pub(crate) scan_bytes: u64,
    pub(crate) json: Option<PathBuf>,
    pub(crate) task: Task,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Measure,
    List,
    Help,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut args = Self {
            rounds: 5,
            run: Duration::from_millis(500),
            quick: false,
            only: Vec::new(),
            dir: None,
            open_bytes: 1 << 30,
            scan_bytes: 512 << 20,
            json: None,
            task: Task::Measure,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} wants a value; see --help"))
            };
            match word.as_str() {
                "--rounds" => args.rounds = value()?.parse::<usize>()?.max(1),
                "--seconds" => args.run = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--only" => args.only.push(value()?),
                "--dir" => args.dir = Some(value()?.into()),
                "--open" => args.open_bytes = mebibytes(&value()?)?,
                "--scan" => args.scan_bytes = mebibytes(&value()?)?,
                "--quick" => args.quick = true,
                "--json" => args.json = Some(value()?.into()),
                "--list" => args.task = Task::List,
                "--help" => args.task = Task::Help,
                // cargo says so to every bench
                "--bench" => {}
                _ => return Err(format!("{word:?} is no option; see --help").into()),
            }
        }
        if args.quick {
            (args.rounds, args.run) = (1, Duration::from_millis(50));
            (args.open_bytes, args.scan_bytes) = (64 << 20, 64 << 20);
        }
        Ok(args)
    }
}

fn mebibytes(text: &str) -> Outcome<u64> {
    match text.parse::<u64>() {
        Ok(number @ 64..=1_048_576) => Ok(number << 20),
        _ => Err(format!("{text:?}: mebibytes from 64 to 1048576 are wanted").into()),
    }
}
