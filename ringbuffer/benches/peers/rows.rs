//! From runs to rows: each contender by its best variant, ours against each of them.

use crate::contenders::{Contender, PEERS};
use crate::regime::Regime;
use crate::rounds::{Measured, Results, Series};
use crate::statistics::{Figure, Ratio, Samples};
use crate::works::{Unit, Work};

/// One work in one regime.
#[derive(Debug)]
pub(crate) struct Row<'r> {
    pub(crate) work: Work,
    /// None: the runs could not be told apart, so all of them are in it.
    pub(crate) regime: Option<Regime>,
    pub(crate) ours: Option<Entry<'r>>,
    pub(crate) peers: Vec<Entry<'r>>,
    pub(crate) limit: Option<Entry<'r>>,
    /// The peer that leaves us the least, and how much better we are than it.
    pub(crate) to_best: Option<(Contender, Ratio)>,
    pub(crate) to_limit: Option<Ratio>,
}

/// A contender by its best variant.
#[derive(Debug)]
pub(crate) struct Entry<'r> {
    pub(crate) contender: Contender,
    pub(crate) variant: &'r str,
    pub(crate) figure: Figure,
    pub(crate) tail: Option<(f64, f64)>,
    samples: &'r Samples,
}

/// A regime gets a row when it has this part of the runs of a work.
const ENOUGH: f64 = 0.2;

pub(crate) fn rows(results: &Results) -> Vec<Row<'_>> {
    results
        .works
        .iter()
        .flat_map(|measured| {
            regimes(measured)
                .into_iter()
                .map(|regime| row(measured, regime))
        })
        .collect()
}

fn regimes(measured: &Measured) -> Vec<Option<Regime>> {
    let labels = || {
        let samples = measured.series.iter().flat_map(|series| &series.samples.0);
        samples.map(|sample| sample.regime)
    };
    let part = |regime| {
        let of_it = labels().filter(|label| *label == regime).count();
        crate::run::as_f64(of_it as u64) / crate::run::as_f64(labels().count() as u64)
    };
    let regimes: Vec<_> = [Regime::Near, Regime::Far, Regime::Alone]
        .into_iter()
        .filter(|regime| part(*regime) >= ENOUGH)
        .map(Some)
        .collect();
    if regimes.is_empty() {
        vec![None]
    } else {
        regimes
    }
}

fn row(measured: &Measured, regime: Option<Regime>) -> Row<'_> {
    let unit = measured.work.unit();
    let entry = |contender| best_variant(measured, contender, unit, regime);
    let ours = entry(Contender::Ours);
    let peers: Vec<Entry<'_>> = PEERS.into_iter().filter_map(entry).collect();
    let limit = entry(Contender::Limit);
    let against = |theirs: &Entry<'_>| ours.as_ref()?.samples.against(theirs.samples, unit, regime);
    let to_best = peers
        .iter()
        .filter_map(|peer| Some((peer.contender, against(peer)?)))
        .min_by(|a, b| a.1.value.total_cmp(&b.1.value));
    let to_limit = limit.as_ref().and_then(against);
    Row {
        work: measured.work,
        regime,
        to_best,
        to_limit,
        ours,
        peers,
        limit,
    }
}

/// By the median, among the variants that have runs enough to be judged.
fn best_variant(
    measured: &Measured,
    contender: Contender,
    unit: Unit,
    regime: Option<Regime>,
) -> Option<Entry<'_>> {
    let figures = || {
        let series = measured
            .series
            .iter()
            .filter(move |series| series.contender == contender);
        series.filter_map(move |series| Some((series, series.samples.figure(regime)?)))
    };
    let most = figures().map(|(_, figure)| figure.count).max()?;
    let (best, figure): (&Series, Figure) = figures()
        .filter(|(_, figure)| 2 * figure.count >= most)
        .max_by(|a, b| unit.better_by(a.1.median, b.1.median).total_cmp(&1.0))?;
    Some(Entry {
        contender,
        variant: &best.variant,
        figure,
        tail: best.samples.tail(regime),
        samples: &best.samples,
    })
}
