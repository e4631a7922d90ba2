//! Topologies: which stages there are and who follows whom.

use std::fmt;
use std::str::FromStr;

/// Stages of one topology at most.
pub const STAGES_MAX: usize = 32;
/// Producers of one topology at most.
pub const PRODUCERS_MAX: usize = 32;

/// The stages of the engine, in their order.
const FULL: [&str; 4] = ["order", "journal", "logic", "egress"];

/// A topology: plain stages on one ring, or the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The engine: order, journal, logic, egress.
    Full,
    /// One producer, one stage.
    Spsc,
    /// Stages one behind the other.
    Pipeline(usize),
    /// Two stages side by side and one behind both.
    Diamond,
    /// Stages side by side.
    Fanout(usize),
    /// Several producers, one stage.
    Mpsc(usize),
}

impl Shape {
    /// How many threads publish.
    #[must_use]
    pub fn producers(self) -> usize {
        match self {
            Self::Mpsc(producers) => producers,
            _ => 1,
        }
    }

    /// How many stages there are.
    #[must_use]
    pub fn stages(self) -> usize {
        match self {
            Self::Spsc | Self::Mpsc(_) => 1,
            Self::Pipeline(stages) | Self::Fanout(stages) => stages,
            Self::Diamond => 3,
            Self::Full => FULL.len(),
        }
    }

    /// The stages that stage `index` follows; none: the producers.
    #[must_use]
    pub fn follows(self, index: usize) -> Vec<usize> {
        match self {
            Self::Pipeline(_) | Self::Full if index > 0 => vec![index - 1],
            Self::Diamond if index == 2 => vec![0, 1],
            _ => Vec::new(),
        }
    }

    /// Whether nobody follows stage `index`: it sees events last.
    #[must_use]
    pub fn is_last(self, index: usize) -> bool {
        match self {
            Self::Fanout(_) => true,
            _ => index + 1 == self.stages(),
        }
    }

    /// The stage's name in pins, placements and results.
    #[must_use]
    pub fn stage_name(self, index: usize) -> String {
        match self {
            Self::Full => FULL[index].to_owned(),
            _ => format!("stage{index}"),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        let number = |max: usize| match count.unwrap_or("3").parse::<usize>() {
            Ok(n) if (1..=max).contains(&n) => Ok(n),
            _ => Err(format!(
                "{text:?}: a number from 1 to {max} belongs behind {name}:"
            )),
        };
        match (name, count) {
            ("full", None) => Ok(Self::Full),
            ("spsc", None) => Ok(Self::Spsc),
            ("diamond", None) => Ok(Self::Diamond),
            ("pipeline", _) => Ok(Self::Pipeline(number(STAGES_MAX)?)),
            ("fanout", _) => Ok(Self::Fanout(number(STAGES_MAX)?)),
            ("mpsc", _) => Ok(Self::Mpsc(number(PRODUCERS_MAX)?)),
            _ => Err(format!(
                "{text:?} is no topology: full, spsc, pipeline:N, diamond, fanout:N, mpsc:N"
            )),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Spsc => f.write_str("spsc"),
            Self::Diamond => f.write_str("diamond"),
            Self::Pipeline(n) => write!(f, "pipeline:{n}"),
            Self::Fanout(n) => write!(f, "fanout:{n}"),
            Self::Mpsc(n) => write!(f, "mpsc:{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topologies_are_read_and_written() {
        for text in [
            "full",
            "spsc",
            "diamond",
            "pipeline:5",
            "fanout:2",
            "mpsc:4",
        ] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
        for text in ["", "ring", "pipeline:0", "spsc:2", "mpsc:99"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_diamond_joins_behind_both() {
        assert_eq!(Shape::Diamond.follows(2), [0, 1]);
        assert!(Shape::Diamond.is_last(2) && !Shape::Diamond.is_last(0));
        assert_eq!(Shape::Pipeline(3).follows(1), [0]);
        assert!(Shape::Fanout(3).is_last(0));
    }

    #[test]
    fn the_engine_has_named_stages() {
        let names: Vec<String> = (0..Shape::Full.stages())
            .map(|index| Shape::Full.stage_name(index))
            .collect();
        assert_eq!(names, ["order", "journal", "logic", "egress"]);
        assert_eq!(Shape::Diamond.stage_name(2), "stage2");
    }
}
