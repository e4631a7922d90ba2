//! How a verb ends: its exit code, and the two lines that explain a refusal.
//!
//! The same numbers hold for every verb, so that a script may act on them:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done (a `noisy` verdict is still 0 unless `--strict`) |
//! | 1 | failed while running: I/O, out of memory, a bug |
//! | 2 | bad command line or configuration |
//! | 3 | ran, but the result cannot carry the claim |
//! | 4 | ran, and the claim was tested and failed: a regression, a missed objective |
//! | 5 | data integrity: a corrupt journal, a state hash that differs |
//! | 6 | the environment refuses: a pin is impossible, results are not comparable |
//! | 130 | interrupted; what was measured is kept and marked |

use std::fmt;
use std::process::ExitCode;

/// How a verb ended, as the number a script sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed while running.
    Failed,
    /// The command line or the configuration makes no sense.
    Usage,
    /// It ran, and the result cannot carry the claim.
    Undecided,
    /// It ran, and the claim does not hold.
    Missed,
    /// The data are damaged.
    Corrupt,
    /// This machine, or these inputs, do not allow it.
    Refused,
    /// Stopped by a signal; what there was is kept.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Undecided => 3,
            Self::Missed => 4,
            Self::Corrupt => 5,
            Self::Refused => 6,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A reason not to go on, with what to do about it. Printed as
///
/// ```text
/// error: --ring 60000 is not a power of two
///   hint: 65536 (64Ki) or 32768 (32Ki)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong: subject, value, expectation.
    pub what: String,
    /// What to type instead; empty where there is no better advice.
    pub hint: String,
}

impl Refusal {
    /// A bad command line or configuration.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, hint)
    }

    /// Something that this machine or these inputs do not allow.
    pub fn environment(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what, hint)
    }

    /// A refusal with any exit code.
    pub fn new(exit: Exit, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// An error and its causes in one line; a cause that was told already is left out.
#[must_use]
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let inner = std::io::Error::other("no such file");
        let error = anyhow::Error::new(inner).context("a.pem: no such file; make one");
        assert_eq!(
            one_line(&error.context("tls")),
            "tls: a.pem: no such file; make one"
        );
    }

    #[test]
    fn a_refusal_says_what_and_then_what_to_do() {
        let refusal = Refusal::usage("--ring 60000 is not a power of two", "65536 (64Ki)");
        assert_eq!(
            refusal.to_string(),
            "--ring 60000 is not a power of two\n  hint: 65536 (64Ki)"
        );
        assert_eq!(refusal.exit.code(), 2);
    }
}
