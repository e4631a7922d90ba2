//! Lines that come again and again, said now and then: a peer that is refused dials twice a second, for days.
//!
//! # Invariants
//!
//! * `RP1` A line that was not said within the last minute is said; how often it came meanwhile stands in it.
//! * `RP2` So many different lines are remembered at most: beyond that the oldest is forgotten, and said anew.

use std::collections::BTreeMap;

/// Between two times that the same is said.
const EVERY_NS: u64 = 60_000_000_000;

/// Different lines that are remembered.
const LINES_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    said: BTreeMap<String, Said>,
}

#[derive(Debug)]
struct Said {
    at_ns: u64,
    since: u64,
}

impl Repeats {
    /// Whether the line is to be said now, and how often it came since it was.
    pub(super) fn is_due(&mut self, line: &str, now_ns: u64) -> Option<u64> {
        if let Some(said) = self.said.get_mut(line) {
            if now_ns.saturating_sub(said.at_ns) < EVERY_NS {
                said.since += 1;
                return None;
            }
            let since = said.since;
            *said = Said {
                at_ns: now_ns,
                since: 0,
            };
            return Some(since);
        }
        if self.said.len() >= LINES_MAX {
            let oldest = self.said.iter().min_by_key(|(_, said)| said.at_ns);
            if let Some(oldest) = oldest.map(|(line, _)| line.clone()) {
                self.said.remove(&oldest);
            }
        }
        let said = Said {
            at_ns: now_ns,
            since: 0,
        };
        self.said.insert(line.to_owned(), said);
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rp1_what_comes_again_is_said_once_a_minute_with_its_number() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.is_due("node 2 is refused", 0), Some(0));
        for second in 1..60 {
            assert_eq!(
                repeats.is_due("node 2 is refused", second * 1_000_000_000),
                None
            );
        }
        assert_eq!(repeats.is_due("node 3 is refused", 59_000_000_000), Some(0));
        assert_eq!(repeats.is_due("node 2 is refused", EVERY_NS), Some(59));
        assert_eq!(repeats.is_due("node 2 is refused", EVERY_NS + 1), None);
    }

    #[test]
    fn rp2_it_remembers_so_many_lines_and_no_more() {
        let mut repeats = Repeats::default();
        for line in 0..10 * LINES_MAX as u64 {
            assert_eq!(repeats.is_due(&line.to_string(), line), Some(0));
        }
        assert_eq!(repeats.said.len(), LINES_MAX);
        assert_eq!(
            repeats.is_due("0", 1_000),
            Some(0),
            "forgotten, and said anew"
        );
    }
}
