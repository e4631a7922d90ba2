//! What happens when a stage fails.

use std::time::Duration;

/// What the pipeline does when a stage panics or returns
/// [`Progress::Fail`](crate::Progress::Fail).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFault {
    /// Poison the pipeline at the stage and the first event that it has not promised:
    /// dependants stop exactly there, producers are refused.
    #[default]
    Halt,
    /// Record the fault, treat the event as done and go on. For stages that go event by
    /// event only, since else it is not known which event was at fault.
    Skip,
    /// Deliver the event again.
    Retry {
        /// How often, for one event.
        times: u32,
        /// How long to leave the stage alone before each of them. Other stages of the
        /// thread go on meanwhile.
        pause: Duration,
        /// What to do when that did not help.
        then: GiveUp,
    },
}

/// What a stage does when retries did not help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GiveUp {
    /// As [`OnFault::Halt`].
    #[default]
    Halt,
    /// As [`OnFault::Skip`].
    Skip,
}

impl OnFault {
    /// Whether it may skip an event.
    pub(crate) fn skips(self) -> bool {
        matches!(
            self,
            Self::Skip
                | Self::Retry {
                    then: GiveUp::Skip,
                    ..
                }
        )
    }
}
