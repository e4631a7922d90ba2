//! Taking snapshots, beside the logic and not in it.

pub(crate) mod shadow;
