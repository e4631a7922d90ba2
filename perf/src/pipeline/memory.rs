//! What the kernel grants of the memory that a plan asks for, seen before anything is measured.

use lockstep_ringbuffer::{BuildError, Graph, MemoryReport};

use super::event::{Event, for_event_size};
use crate::args::plan::Plan;
use crate::args::shape::Shape;

/// Makes the plan's rings, all at the same time as a run has them, and gives them up again: what
/// was granted of the first.
///
/// # Errors
///
/// Where they cannot be locked, or there is not so much memory.
pub fn granted(plan: &Plan) -> Result<MemoryReport, BuildError> {
    for_event_size!(plan.event_size, granted_with(plan))
}

fn granted_with<const WORDS: usize>(plan: &Plan) -> Result<MemoryReport, BuildError> {
    let ring = || Graph::with_memory(plan.ring, plan.memory, Event::<WORDS>::empty);
    let first = ring()?;
    // The engine's outputs have a ring of their own.
    let _outputs = match plan.shape {
        Shape::Full => Some(ring()?),
        _ => None,
    };
    Ok(first.memory())
}

#[cfg(test)]
mod tests {
    use lockstep_ringbuffer::Memory;

    use super::*;
    use crate::args::plan::Wishes;
    use crate::machine::cpus::Machine;

    #[test]
    fn what_is_asked_for_reaches_the_kernel() {
        let mut wishes = Wishes::new(Shape::Full);
        wishes.ring = 1 << 10;
        let plain = Plan::resolve(&wishes, &Machine::here()).unwrap();
        let report = granted(&plain).unwrap();
        assert_eq!((report.huge_pages, report.locked), (false, false));
        wishes.memory = Memory {
            huge_pages: true,
            lock: false,
        };
        let huge = Plan::resolve(&wishes, &Machine::here()).unwrap();
        // 64 KiB become a page of 2 MiB, whether or not the kernel takes the advice.
        assert_eq!(granted(&huge).unwrap().bytes, 2 << 20);
    }
}
