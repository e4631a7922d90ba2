//! What a thread of a peer does between two looks at an empty or full queue.

use std::hint;
use std::thread;

/// A way to idle, chosen at compile time as these crates want it.
pub(crate) trait Idle: Copy + Send + 'static {
    const NAME: &'static str;
    /// Others get the CPU meanwhile.
    const YIELDS: bool = false;

    fn idle();
}

/// Looks again at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spin;

/// One PAUSE between looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause;

/// Gives the CPU away between looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yield;

impl Idle for Spin {
    const NAME: &'static str = "spin";

    #[inline(always)]
    fn idle() {}
}

impl Idle for Pause {
    const NAME: &'static str = "pause";

    #[inline(always)]
    fn idle() {
        hint::spin_loop();
    }
}

impl Idle for Yield {
    const NAME: &'static str = "yield";
    const YIELDS: bool = true;

    #[inline(always)]
    fn idle() {
        thread::yield_now();
    }
}

/// Runs a block once for each way to idle that makes sense here: on one CPU a spinning
/// thread only keeps the other from working.
macro_rules! for_each_idle {
    ($machine:expr, $I:ident => $body:block) => {
        if $machine.cpu_count() > 1 {
            {
                type $I = $crate::idle::Spin;
                $body
            }
            {
                type $I = $crate::idle::Pause;
                $body
            }
        }
        {
            type $I = $crate::idle::Yield;
            $body
        }
    };
}
pub(crate) use for_each_idle;
