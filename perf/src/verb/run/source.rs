//! `--load`: a file in one of the formats, or a flow made up from a seed.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use lockstep_exchange::event::Event;
use lockstep_exchange::load::generator::{Flow, Generator};
use lockstep_exchange::load::{self, Format, Loader, OnBad, Options, Source, Summary};
use lockstep_perf::args::quantity::{count, rate};
use lockstep_perf::exit::Refusal;

use super::LoadFlags;

/// Where events come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Load {
    /// A file.
    File(PathBuf),
    /// Made up.
    Generator(Flow),
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("generator") else {
            return Ok(Self::File(text.into()));
        };
        let wishes = match rest.strip_prefix(':') {
            Some(wishes) => wishes,
            None if rest.is_empty() => return Ok(Self::Generator(Flow::default())),
            // A file whose name begins so.
            None => return Ok(Self::File(text.into())),
        };
        let mut flow = Flow::default();
        for wish in wishes.split(',') {
            let Some((name, number)) = wish.split_once('=') else {
                return Err(format!(
                    "{wish:?}: expected NAME=NUMBER, as in generator:seed=7,count=1M"
                ));
            };
            match name {
                "seed" => flow.seed = count(number)?,
                "count" => flow.messages = count(number)?,
                "instruments" => {
                    flow.instruments = u32::try_from(count(number)?)
                        .ok()
                        .filter(|number| (1..=4096).contains(number))
                        .ok_or_else(|| format!("instruments={number}: 1 to 4096"))?;
                }
                "rate" => flow.messages_per_second = rate(number)?,
                "resting" => {
                    flow.resting = usize::try_from(count(number)?)
                        .map_err(|_| format!("resting={number} is too many"))?;
                }
                _ => {
                    return Err(format!(
                        "{name:?} is nothing that the generator knows: seed, count, instruments, rate, resting"
                    ));
                }
            }
        }
        Ok(Self::Generator(flow))
    }
}

/// `--load-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FormatFlag {
    /// LOBSTER message file, CSV
    Lobster,
    /// NASDAQ TotalView-ITCH 5.0, binary
    Itch,
    /// Databento DBN, schema MBO
    Dbn,
    /// Bitstamp-style level 3 CSV
    Bitstamp,
}

impl From<FormatFlag> for Format {
    fn from(flag: FormatFlag) -> Self {
        match flag {
            FormatFlag::Lobster => Self::Lobster,
            FormatFlag::Itch => Self::Itch,
            FormatFlag::Dbn => Self::Dbn,
            FormatFlag::Bitstamp => Self::Bitstamp,
        }
    }
}

/// `--on-bad`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnBadFlag {
    /// Count it, keep the first ones for the summary, go on
    Skip,
    /// End there: what was loaded before it stays
    Stop,
}

/// `--day 2012-06-21` as nanoseconds since 1970.
pub(crate) fn day(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no day: YYYY-MM-DD from 1970 on");
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else {
        return Err(wrong());
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1970..=2500).contains(&year) || !(1..=12).contains(&month) {
        return Err(wrong());
    }
    let before = usize::try_from(month - 1).map_err(|_| wrong())?;
    if !(1..=lengths[before]).contains(&day) {
        return Err(wrong());
    }
    let years: u64 = (1970..year)
        .map(|year| 365 + u64::from(is_leap(year)))
        .sum();
    let days = years + lengths[..before].iter().sum::<u64>() + day - 1;
    Ok(days * 86_400 * 1_000_000_000)
}

/// The events of a load, in their order.
#[derive(Debug)]
pub(crate) struct Events {
    loader: Loader<Box<dyn Source + Send>>,
    /// Events taken out so far.
    pub(crate) taken: u64,
}

impl Events {
    /// Opens what is to be loaded.
    pub(crate) fn open(load: &Load, flags: &LoadFlags) -> anyhow::Result<Self> {
        let options = Options {
            on_bad: match flags.on_bad {
                OnBadFlag::Skip => OnBad::Skip,
                OnBadFlag::Stop => OnBad::Stop,
            },
            accounts: flags.accounts,
            midnight: flags.day.unwrap_or(0),
            ..Options::default()
        };
        let loader = match load {
            Load::Generator(flow) => {
                let source: Box<dyn Source + Send> = Box::new(Generator::new(*flow));
                Loader::new(source, options)
            }
            Load::File(path) => open_file(path, flags.load_format, options)?,
        };
        Ok(Self { loader, taken: 0 })
    }

    /// The next event; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Event>, load::LoadError> {
        match self.loader.next() {
            None => Ok(None),
            Some(Ok(event)) => {
                self.taken += 1;
                Ok(Some(event))
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// What has been read so far.
    pub(crate) fn summary(&self) -> &Summary {
        self.loader.summary()
    }
}

fn open_file(
    path: &Path,
    format: Option<FormatFlag>,
    options: Options,
) -> anyhow::Result<Loader<Box<dyn Source + Send>>> {
    load::open(path, format.map(Format::from), options).map_err(|error| {
        let hint = match &error.problem {
            load::Problem::UnknownFormat => "--load-format lobster, itch, dbn or bitstamp",
            load::Problem::Io(_) => "--load generator needs no file",
            _ => "",
        };
        Refusal::usage(error.to_string(), hint).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_file_or_a_generator_with_wishes() {
        assert_eq!("a.csv".parse(), Ok(Load::File("a.csv".into())));
        assert_eq!("generator".parse(), Ok(Load::Generator(Flow::default())));
        assert_eq!(
            "generator:seed=7,count=10k,instruments=2".parse(),
            Ok(Load::Generator(Flow {
                seed: 7,
                messages: 10_000,
                instruments: 2,
                ..Flow::default()
            }))
        );
        for text in [
            "generator:7",
            "generator:colour=3",
            "generator:instruments=0",
        ] {
            assert!(text.parse::<Load>().is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(day("1970-01-01"), Ok(0));
        assert_eq!(day("2012-06-21"), Ok(1_340_236_800_000_000_000));
        assert_eq!(day("2000-03-01"), Ok(951_868_800_000_000_000));
        for text in [
            "2012",
            "2012-13-01",
            "2011-02-29",
            "1969-01-01",
            "a-b-c",
            "2012-00-01",
        ] {
            assert!(day(text).is_err(), "{text}");
        }
    }
}
