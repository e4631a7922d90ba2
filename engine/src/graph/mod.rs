//! From stages to rings and runners: who follows whom, and on which thread.

pub(crate) mod build;
pub(crate) mod placement;
