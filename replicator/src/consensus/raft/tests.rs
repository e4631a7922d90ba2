//! Each surprise of the crate, by name.
