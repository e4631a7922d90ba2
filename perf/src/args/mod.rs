//! What was typed, and what it means.

mod choose;
pub mod plan;
pub mod quantity;
pub mod shape;
pub mod slo;
pub mod wish;
