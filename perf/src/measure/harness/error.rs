//! Why a harness did not come to an end.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// What can go wrong besides a bad result.
#[derive(Debug)]
#[non_exhaustive]
pub enum HarnessError {
    /// A thread could not be put on its CPU.
    Pin {
        /// Which thread.
        thread: String,
        /// Where it should run.
        cpu: u32,
        /// The system's reason.
        source: io::Error,
    },
    /// What is measured could not be built.
    Build(Box<dyn Error + Send + Sync>),
    /// A recorder was neither dropped nor had it seen all events when the limit was over.
    RecorderLost {
        /// How long was waited.
        waited: Duration,
    },
    /// What was measured stopped by itself.
    Failed(String),
    /// A thread of the generator panicked.
    Panicked,
}

impl fmt::Display for HarnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin {
                thread,
                cpu,
                source,
            } => write!(f, "cannot pin {thread} to CPU {cpu}: {source}"),
            Self::Build(source) => write!(f, "cannot build what is to be measured: {source}"),
            Self::RecorderLost { waited } => write!(
                f,
                "a recorder did not come back within {waited:?} after the run: the thread that owns it \
                 hangs or was leaked; drop it when its input ends"
            ),
            Self::Failed(cause) => write!(f, "what is measured stopped: {cause}"),
            Self::Panicked => f.write_str("a thread of the generator panicked"),
        }
    }
}

impl Error for HarnessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Pin { source, .. } => Some(source),
            Self::Build(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}
