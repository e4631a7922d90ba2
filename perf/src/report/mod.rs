//! One result type, and everything that is drawn from it.

pub mod environment;
pub mod result;
pub mod store;
pub mod text;
