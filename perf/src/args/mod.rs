//! What was typed, and what it means.

pub mod plan;
pub mod quantity;
pub mod shape;
pub mod slo;
pub mod wish;
