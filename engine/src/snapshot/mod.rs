//! Snapshots: taken by a shadow of the logic; what they make needless is given up behind them.

pub(crate) mod keeper;
pub(crate) mod shadow;
