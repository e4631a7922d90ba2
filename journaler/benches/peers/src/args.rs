//! What was typed.

use std::path::PathBuf;
use std::time::Duration;

use crate::rounds::Outcome;

pub(crate) const HELP: &str = "\
The journal beside other durable logs, in one run.

  --rounds N       everything runs so often [5]
  --seconds S      one size of groups lasts about so long, with all contenders [1]
  --only TEXT      only contenders whose name contains TEXT; may be repeated
  --dir DIR        measure in a fresh directory under DIR [target/tmp of this package]
  --quick          one short round: does everything still run? no figures to quote";

/// What to do.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) rounds: usize,
    pub(crate) run: Duration,
    pub(crate) only: Vec<String>,
    pub(crate) dir: Option<PathBuf>,
    /// Bytes that each contender reads back.
    pub(crate) scan_bytes: usize,
}

impl Args {
    /// `None` if help was asked for.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Option<Args>> {
        let mut args = Args {
            rounds: 5,
            run: Duration::from_secs(1),
            only: Vec::new(),
            dir: None,
            scan_bytes: 256 << 20,
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
                "--quick" => {
                    (args.rounds, args.run) = (1, Duration::from_millis(100));
                    args.scan_bytes = 8 << 20;
                }
                "--help" => return Ok(None),
                _ => return Err(format!("{word:?} is no option; see --help").into()),
            }
        }
        Ok(Some(args))
    }

    pub(crate) fn is_wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }
}
