//! Which of several configurations to recommend, or that nobody can tell.

use super::compare::{Finding, Metric, compare};
use super::statistics::median;

/// One configuration's confirming runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// The objective, one value a run; lower is better.
    pub scores: Vec<f64>,
    /// CPUs used.
    pub cpus: f64,
}

/// How a contender came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Take this one.
    Recommended,
    /// The best median.
    Best,
    /// Not told apart from the best.
    Equal,
    /// Worse than the best, and not by accident.
    Worse,
    /// It did not keep the rate.
    Failed,
}

impl Rank {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recommended => "recommended",
            Self::Best => "best",
            Self::Equal => "equal",
            Self::Worse => "worse",
            Self::Failed => "failed",
        }
    }
}

/// What all contenders together say.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// One rank each, in the order given.
    pub ranks: Vec<Rank>,
    /// Which is recommended; none: it cannot be told.
    pub recommended: Option<usize>,
    /// Why, in words.
    pub why: String,
}

/// A difference below this is worth no change of configuration.
const THRESHOLD: f64 = 0.05;

/// A contender is cheaper if it needs at most this share of the best one's CPUs.
const CHEAPER: f64 = 0.9;

/// Scores that spread by more than this share of their median say nothing by themselves.
const SPREAD_MAX: f64 = 0.5;

/// A contender whose median is further from the best is not taken for its CPUs, even where the
/// runs are too wild to tell the two apart.
const CLOSE: f64 = 1.25;

/// Ranks the contenders: among those that are not told apart from the best and lie close to
/// it, the one that uses the least CPU is recommended.
#[must_use]
pub fn rank(contenders: &[Contender]) -> Ranking {
    let usable = |c: &Contender| !c.scores.is_empty() && c.scores.iter().all(|s| s.is_finite());
    let score = |c: &Contender| median(&c.scores).unwrap_or(f64::INFINITY);
    let best = (0..contenders.len())
        .filter(|&index| usable(&contenders[index]))
        .min_by(|&a, &b| score(&contenders[a]).total_cmp(&score(&contenders[b])));
    let Some(best) = best else {
        return Ranking {
            ranks: vec![Rank::Failed; contenders.len()],
            recommended: None,
            why: "no candidate kept the rate".to_owned(),
        };
    };
    let mut ranks: Vec<Rank> = contenders
        .iter()
        .map(|contender| {
            if !usable(contender) {
                return Rank::Failed;
            }
            let found = compare(
                Metric::P99,
                &contenders[best].scores,
                &contender.scores,
                THRESHOLD,
                None,
            );
            if found.finding == Finding::Worse {
                Rank::Worse
            } else {
                Rank::Equal
            }
        })
        .collect();
    ranks[best] = Rank::Best;
    let equals: Vec<usize> = (0..ranks.len())
        .filter(|&index| matches!(ranks[index], Rank::Best | Rank::Equal))
        .collect();
    let cheapest = equals
        .iter()
        .copied()
        .filter(|&index| score(&contenders[index]) <= score(&contenders[best]) * CLOSE)
        .min_by(|&a, &b| contenders[a].cpus.total_cmp(&contenders[b].cpus))
        .unwrap_or(best);
    let is_cheaper = contenders[cheapest].cpus <= contenders[best].cpus * CHEAPER;
    let wild = super::statistics::Spread::of(&contenders[best].scores)
        .is_some_and(|spread| spread.relative() > SPREAD_MAX);
    if wild && equals.len() == ranks.len() && ranks.len() > 1 && !is_cheaper {
        return Ranking {
            ranks,
            recommended: None,
            why: "no recommendation: the candidates differ by less than each one's own runs do"
                .to_owned(),
        };
    }
    let (chosen, why) = if is_cheaper {
        let saved = (1.0 - contenders[cheapest].cpus / contenders[best].cpus) * 100.0;
        (
            cheapest,
            format!("not told apart from the best, with {saved:.0}% less CPU"),
        )
    } else if equals.len() > 1 {
        (
            best,
            "the best median; others are not told apart from it and are no cheaper".to_owned(),
        )
    } else if ranks.len() == 1 {
        (best, "the only candidate".to_owned())
    } else {
        (
            best,
            "better than all others, and not by accident".to_owned(),
        )
    };
    ranks[chosen] = Rank::Recommended;
    Ranking {
        ranks,
        recommended: Some(chosen),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(scores: &[f64], cpus: f64) -> Contender {
        Contender {
            scores: scores.to_vec(),
            cpus,
        }
    }

    #[test]
    fn among_equals_the_cheapest_is_recommended() {
        let ranking = rank(&[
            contender(&[100.0, 101.0, 102.0, 103.0, 104.0], 2.0),
            contender(&[101.0, 102.0, 103.0, 104.0, 105.0], 0.7),
            contender(&[900.0, 901.0, 902.0, 903.0, 904.0], 0.1),
        ]);
        assert_eq!(ranking.recommended, Some(1));
        assert_eq!(ranking.ranks, [Rank::Best, Rank::Recommended, Rank::Worse]);
        assert!(ranking.why.contains("65% less CPU"), "{}", ranking.why);
    }

    #[test]
    fn wild_runs_without_a_difference_are_no_recommendation() {
        let ranking = rank(&[
            contender(&[100.0, 900.0, 300.0, 5_000.0, 200.0], 2.0),
            contender(&[110.0, 800.0, 310.0, 4_000.0, 500.0], 2.0),
        ]);
        assert_eq!(ranking.recommended, None);
        assert!(ranking.why.starts_with("no recommendation"));
    }

    #[test]
    fn what_may_be_three_times_worse_is_not_taken_for_its_cpus() {
        let ranking = rank(&[
            contender(&[100.0, 900.0, 300.0, 5_000.0, 200.0], 2.0),
            contender(&[110.0, 1_800.0, 910.0, 4_000.0, 500.0], 1.0),
        ]);
        assert_eq!(ranking.recommended, None, "{}", ranking.why);
    }

    #[test]
    fn a_candidate_that_did_not_keep_the_rate_has_failed() {
        let ranking = rank(&[
            contender(&[f64::INFINITY, 1.0, 1.0], 0.1),
            contender(&[100.0, 101.0, 102.0], 2.0),
        ]);
        assert_eq!(ranking.ranks, [Rank::Failed, Rank::Recommended]);
        assert_eq!(rank(&[]).recommended, None);
    }
}
