//! What a thread does while there is nothing to do.
//!
//! A [`Wait`] is chosen for each thread at run time and read from text. It costs nothing
//! while there is work: only a turn that found none comes here. Every strategy is the
//! same three phases with other numbers:
//!
//! ```text
//!   spin (n times, p PAUSEs each)  →  yield (n times)  →  nap a while | park until woken
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::error::nearest;
use crate::sync::{Arc, spin_loop, thread};
use crate::wake::{PARK_BACKSTOP, WakeSlot};

/// A wait strategy. As text: `spin`, `spin-pause:N`, `yield:N`, `backoff:SPINS,YIELDS,NS`,
/// `park`, `auto`; the numbers may be left out.
///
/// | strategy | idle CPU | wakes within | when |
/// |---|---|---|---|
/// | `spin` | all of it | a cache miss | a CPU of its own, nothing beside it on the core |
/// | `spin-pause:N` | all of it, but kind to its sibling | N PAUSEs more | the same with SMT |
/// | `yield:N` | all that nobody else wants | a time slice if others run | more threads than CPUs |
/// | `backoff` | little | its nap | latency matters less than CPU time |
/// | `park` | none | a wake-up of the kernel, tens of µs | idle most of the time |
/// | `auto` | little | as `spin-pause` while busy | unless you know better |
///
/// ```
/// use lockstep_ringbuffer::Wait;
///
/// let wait: Wait = "yield:100".parse()?;
/// assert_eq!(wait, Wait::Yield { spins: 100 });
/// assert_eq!(wait.to_string(), "yield:100");
/// assert!("yield:many".parse::<Wait>().is_err());
/// # Ok::<(), lockstep_ringbuffer::WaitParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// Look again at once, for ever.
    Spin,
    /// Execute PAUSE so many times between looks, for ever.
    SpinPause {
        /// PAUSEs between two looks, at least 1.
        pauses: u32,
    },
    /// Spin so many times, then give the CPU away between looks.
    Yield {
        /// Looks before the first yield.
        spins: u32,
    },
    /// Spin, then yield, then sleep between looks.
    Backoff {
        /// Looks before the first yield.
        spins: u32,
        /// Yields before the first nap.
        yields: u32,
        /// How long a nap lasts. Timer slack adds some 50 µs on Linux.
        nap_ns: u32,
    },
    /// Sleep in the kernel until woken by whoever publishes.
    Park,
    /// Spin for a while if the machine has a CPU for each thread of the pipeline, yield
    /// for a while, then park.
    #[default]
    Auto,
}

impl Wait {
    const PAUSES: u32 = 1;
    const YIELD_SPINS: u32 = 100;
    const BACKOFF: Self = Self::Backoff {
        spins: 100,
        yields: 100,
        nap_ns: 50_000,
    };

    /// Whether a thread that waits like this never gives its CPU away.
    #[must_use]
    pub fn spins_for_ever(self) -> bool {
        matches!(self, Self::Spin | Self::SpinPause { .. })
    }

    /// Whether a thread that waits like this must be woken.
    pub(crate) fn may_park(self) -> bool {
        matches!(self, Self::Park | Self::Auto)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spin => write!(f, "spin"),
            Self::SpinPause { pauses } => write!(f, "spin-pause:{pauses}"),
            Self::Yield { spins } => write!(f, "yield:{spins}"),
            Self::Backoff {
                spins,
                yields,
                nap_ns,
            } => write!(f, "backoff:{spins},{yields},{nap_ns}"),
            Self::Park => write!(f, "park"),
            Self::Auto => write!(f, "auto"),
        }
    }
}

/// The names of all strategies.
const NAMES: [&str; 6] = ["spin", "spin-pause", "yield", "backoff", "park", "auto"];

/// A wait strategy that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no wait strategy: {reason}; one of: spin, spin-pause[:PAUSES], yield[:SPINS], \
     backoff[:SPINS,YIELDS,NS], park, auto{}",
    nearest(.text.split(':').next().unwrap_or_default(), NAMES.into_iter(), "; did you mean ", "?")
)]
pub struct WaitParseError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Wait {
    type Err = WaitParseError;

    fn from_str(text: &str) -> Result<Self, WaitParseError> {
        let refuse = |reason| WaitParseError {
            text: text.to_owned(),
            reason,
        };
        let (name, arguments) = match text.split_once(':') {
            Some((name, arguments)) => (name, Some(arguments)),
            None => (text, None),
        };
        let numbers = numbers(arguments).map_err(refuse)?;
        match (name, numbers.as_slice()) {
            ("spin", []) => Ok(Self::Spin),
            ("spin-pause", []) => Ok(Self::SpinPause {
                pauses: Self::PAUSES,
            }),
            ("spin-pause", [0]) => Err(refuse(
                "it pauses at least once; without pauses it is `spin`",
            )),
            ("spin-pause", &[pauses]) => Ok(Self::SpinPause { pauses }),
            ("yield", []) => Ok(Self::Yield {
                spins: Self::YIELD_SPINS,
            }),
            ("yield", &[spins]) => Ok(Self::Yield { spins }),
            ("backoff", []) => Ok(Self::BACKOFF),
            ("backoff", &[spins, yields, nap_ns]) => Ok(Self::Backoff {
                spins,
                yields,
                nap_ns,
            }),
            ("park", []) => Ok(Self::Park),
            ("auto", []) => Ok(Self::Auto),
            ("spin" | "spin-pause" | "yield" | "backoff" | "park" | "auto", _) => {
                Err(refuse("it takes another number of arguments"))
            }
            _ => Err(refuse("the name is unknown")),
        }
    }
}

/// The numbers behind the colon; none without a colon.
fn numbers(arguments: Option<&str>) -> Result<Vec<u32>, &'static str> {
    let Some(arguments) = arguments else {
        return Ok(Vec::new());
    };
    arguments
        .split(',')
        .map(|number| {
            number
                .parse()
                .map_err(|_| "an argument is no whole number from 0 to 4294967295")
        })
        .collect()
}

/// A strategy as numbers: what to do at which idle turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Idle turns that spin; `u32::MAX`: all of them.
    spins: u32,
    pauses: u32,
    /// Idle turns behind them that yield; `u32::MAX`: all of them.
    yields: u32,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nap(Duration),
    Park,
}

impl Plan {
    /// `crowded`: more threads want to spin than there are CPUs.
    fn of(wait: Wait, crowded: bool) -> Self {
        let (spins, pauses, yields, then) = match wait {
            Wait::Spin => (u32::MAX, 0, 0, Then::Park),
            Wait::SpinPause { pauses } => (u32::MAX, pauses, 0, Then::Park),
            Wait::Yield { spins } => (spins, 1, u32::MAX, Then::Park),
            Wait::Backoff {
                spins,
                yields,
                nap_ns,
            } => {
                let nap = Duration::from_nanos(u64::from(nap_ns));
                (spins, 1, yields, Then::Nap(nap))
            }
            Wait::Park => (if cfg!(loom) { 0 } else { 64 }, 1, 0, Then::Park),
            // Some 100 µs of PAUSEs: events that come at 10 k/s or faster find the thread
            // awake; yields after that cost others nothing.
            Wait::Auto if !crowded => (4_000, 1, 64, Then::Park),
            Wait::Auto => (0, 0, 512, Then::Park),
        };
        Self {
            spins,
            pauses,
            yields,
            then,
        }
    }
}

/// One waiting thread: how long it has been idle, and where it sleeps.
#[derive(Debug)]
pub(crate) struct Idler {
    plan: Plan,
    idle_turns: u32,
    slot: Arc<WakeSlot>,
    /// The slot knows that this thread is about to park.
    announced: bool,
}

impl Idler {
    pub(crate) fn new(wait: Wait, crowded: bool, slot: Arc<WakeSlot>) -> Self {
        Self {
            plan: Plan::of(wait, crowded),
            idle_turns: 0,
            slot,
            announced: false,
        }
    }

    /// There was work.
    #[inline(always)]
    pub(crate) fn reset(&mut self) {
        self.idle_turns = 0;
        if self.announced {
            self.retract();
        }
    }

    /// A turn found nothing. Returns when it is worth looking again; the caller must then
    /// look, since a park needs a look between announcing and sleeping.
    #[cold]
    #[inline(never)]
    pub(crate) fn idle(&mut self, deadline: Option<Instant>) {
        let Plan {
            spins,
            pauses,
            yields,
            then,
        } = self.plan;
        if self.idle_turns < spins {
            self.idle_turns = self.idle_turns.wrapping_add(u32::from(spins != u32::MAX));
            (0..pauses).for_each(|_| spin_loop());
            #[cfg(loom)]
            spin_loop();
        } else if yields == u32::MAX || self.idle_turns < spins.saturating_add(yields) {
            self.idle_turns = self.idle_turns.saturating_add(1);
            thread::yield_now();
        } else {
            match then {
                Then::Nap(nap) => thread::park(Some(at_most(nap, deadline))),
                Then::Park => self.announce_or_park(deadline),
            }
        }
    }

    fn announce_or_park(&mut self, deadline: Option<Instant>) {
        if !self.announced {
            self.slot.announce();
            self.announced = true;
            return;
        }
        thread::park(Some(at_most(PARK_BACKSTOP, deadline)));
        self.retract();
    }

    #[cold]
    fn retract(&mut self) {
        self.slot.retract();
        self.announced = false;
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        if self.announced {
            self.retract();
        }
    }
}

fn at_most(duration: Duration, deadline: Option<Instant>) -> Duration {
    match deadline {
        Some(deadline) => duration.min(deadline.saturating_duration_since(Instant::now())),
        None => duration,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_wait() -> impl Strategy<Value = Wait> {
        prop_oneof![
            Just(Wait::Spin),
            (1..=u32::MAX).prop_map(|pauses| Wait::SpinPause { pauses }),
            any::<u32>().prop_map(|spins| Wait::Yield { spins }),
            any::<(u32, u32, u32)>().prop_map(|(spins, yields, nap_ns)| Wait::Backoff {
                spins,
                yields,
                nap_ns
            }),
            Just(Wait::Park),
            Just(Wait::Auto),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 8 } else { 256 }, ..ProptestConfig::default() })]

        #[test]
        fn what_is_printed_is_read_back(wait in any_wait()) {
            prop_assert_eq!(wait.to_string().parse::<Wait>(), Ok(wait));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,24}") {
            let _outcome = text.parse::<Wait>();
        }
    }

    #[test]
    fn an_unreadable_strategy_names_the_text_and_what_there_is() {
        for text in [
            "",
            "spinn",
            "spin:1",
            "spin-pause:0",
            "yield:-1",
            "yield:1,2",
            "backoff:1,2",
            "park:",
            "YIELD",
        ] {
            let error = text.parse::<Wait>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(error.contains("backoff[:SPINS,YIELDS,NS]"), "{error}");
        }
    }

    #[test]
    fn auto_spins_less_where_threads_are_crowded() {
        let (alone, crowded) = (Plan::of(Wait::Auto, false), Plan::of(Wait::Auto, true));
        assert!(alone.spins > 100 && crowded.spins == 0);
        assert!(crowded.yields > alone.yields);
    }

    #[test]
    fn a_timed_wait_ends_at_its_deadline_and_not_earlier() {
        for wait in ["spin", "spin-pause", "yield", "backoff", "park", "auto"] {
            let mut idler = Idler::new(wait.parse().unwrap(), false, Arc::default());
            let start = Instant::now();
            let deadline = start + Duration::from_millis(5);
            while Instant::now() < deadline {
                idler.idle(Some(deadline));
            }
            assert!(start.elapsed() >= Duration::from_millis(5), "{wait}");
        }
    }
}
