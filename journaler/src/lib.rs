//! What is durable on this node, and proof of it.

pub mod storage;
