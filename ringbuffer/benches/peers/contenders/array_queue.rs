//! `crossbeam_queue::ArrayQueue`: a stamp in each slot, many on both sides.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::{Case, Contender};
use crate::event::Event;
use crate::machine::Machine;
use crate::queues::{self, Queue, Shared};
use crate::works::Work;

struct Array;

impl Queue for Array {
    type Sender = Arc<ArrayQueue<Event>>;
    type Receiver = Arc<ArrayQueue<Event>>;

    fn bounded(size: usize) -> (Self::Sender, Self::Receiver) {
        let queue = Arc::new(ArrayQueue::new(size));
        (Arc::clone(&queue), queue)
    }

    #[inline(always)]
    fn try_send(sender: &mut Self::Sender, event: Event) -> bool {
        sender.push(event).is_ok()
    }

    #[inline(always)]
    fn try_receive(receiver: &mut Self::Receiver) -> Option<Event> {
        receiver.pop()
    }
}

impl Shared for Array {
    fn another(sender: &Self::Sender) -> Self::Sender {
        Arc::clone(sender)
    }
}

pub(crate) fn cases(work: &Work, machine: &Machine, cases: &mut Vec<Case>) {
    queues::cases::<Array>(Contender::ArrayQueue, work, machine, cases);
    queues::shared_cases::<Array>(Contender::ArrayQueue, work, machine, cases);
}
