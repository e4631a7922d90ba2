//! Objectives: `p99<50us,p99.9<1ms`.

use std::fmt;
use std::str::FromStr;

use hdrhistogram::Histogram;

use super::quantity::{Units, duration, nanos, show_count, whole};
use crate::exit::Refusal;
use crate::machine::clock::ratio;
use crate::report::result::percentile;

/// Samples that should lie above a line that is judged.
const SAMPLES_ABOVE: f64 = 100.0;

/// One line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// 0 to 100, exclusive.
    pub percentile: f64,
    /// The response must be below it.
    pub below_ns: u64,
}

/// All lines of an objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo(pub Vec<Line>);

/// How a result stands to an objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// All lines hold.
    Yes,
    /// One does not.
    No,
    /// Too few samples to say.
    Undecided,
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let line = |part: &str| {
            let (name, limit) = part.split_once('<')?;
            let percentile: f64 = name.trim().strip_prefix('p')?.parse().ok()?;
            let below_ns = nanos(duration(limit.trim()).ok()?);
            (percentile > 0.0 && percentile < 100.0).then_some(Line {
                percentile,
                below_ns,
            })
        };
        let lines: Option<Vec<Line>> = text.split(',').map(|part| line(part.trim())).collect();
        match lines {
            Some(lines) if !lines.is_empty() => Ok(Self(lines)),
            _ => Err(format!(
                "{text:?} is no objective, as in p99<50us,p99.9<1ms"
            )),
        }
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(
                f,
                "{comma}p{}<{}",
                line.percentile,
                Units::Auto.show(line.below_ns)
            )?;
        }
        Ok(())
    }
}

impl Slo {
    /// Refuses an objective that so many events cannot decide.
    ///
    /// # Errors
    ///
    /// Says how many are needed.
    pub fn check(&self, events: u64) -> Result<(), Refusal> {
        for line in &self.0 {
            let share = (100.0 - line.percentile) / 100.0;
            let above = share * ratio(events, 1);
            if above < SAMPLES_ABOVE - 1e-6 {
                let needed = whole((SAMPLES_ABOVE / share).round());
                return Err(Refusal::usage(
                    format!(
                        "--slo 'p{}<{}' needs at least {} samples for 100 above the line; this run gives {}, {} above it",
                        line.percentile,
                        Units::Auto.show(line.below_ns),
                        show_count(needed),
                        show_count(events),
                        whole(above.floor()),
                    ),
                    "a longer --duration, a higher --rate, or a lower percentile",
                ));
            }
        }
        Ok(())
    }

    /// Whether a response keeps the objective.
    #[must_use]
    pub fn judge(&self, response: &Histogram<u64>) -> Met {
        let mut met = Met::Yes;
        for line in &self.0 {
            match percentile(response, line.percentile) {
                Some(found) if found < line.below_ns => {}
                Some(_) => return Met::No,
                None => met = Met::Undecided,
            }
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::recorder::histogram;

    #[test]
    fn objectives_are_read_and_written() {
        let slo: Slo = "p99<50us, p99.9<1ms".parse().unwrap();
        assert_eq!(slo.to_string(), "p99<50us,p99.9<1ms");
        for text in ["", "p99", "p100<1ms", "99<1ms", "p99<fast"] {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_objective_that_the_run_cannot_decide_is_refused() {
        let slo: Slo = "p99.99<1us".parse().unwrap();
        assert_eq!(
            slo.check(100_000).unwrap_err().what,
            "--slo 'p99.99<1us' needs at least 1,000,000 samples for 100 above the line; this run \
             gives 100,000, 10 above it"
        );
        assert_eq!(slo.check(1_000_000), Ok(()));
    }

    #[test]
    fn a_response_keeps_an_objective_or_misses_it_or_says_too_little() {
        let mut response = histogram();
        response.record_n(1_000, 100_000).unwrap();
        response.record_n(90_000, 500).unwrap();
        let met = |text: &str| text.parse::<Slo>().unwrap().judge(&response);
        assert_eq!(met("p99<2us"), Met::Yes);
        assert_eq!(met("p99.9<2us"), Met::No);
        assert_eq!(met("p99.9999<2us"), Met::Undecided);
    }
}
