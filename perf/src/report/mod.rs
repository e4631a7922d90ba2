//! One result type, and everything that is drawn from it.

pub mod chart;
pub mod environment;
pub mod export;
pub mod html;
pub mod latency;
pub mod result;
pub mod store;
pub mod text;
