//! A refusal of the logic.

use std::fmt;

/// A refusal: a stable number for programs, a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// From 1 to 0xfeff; 0 is accepted, and what is above is the engine's.
    pub code: u16,
    /// What it means.
    pub text: &'static str,
}

impl Reject {
    /// A refusal.
    #[must_use]
    pub const fn new(code: u16, text: &'static str) -> Self {
        Self { code, text }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused, code {}: {}", self.code, self.text)
    }
}

impl std::error::Error for Reject {}
