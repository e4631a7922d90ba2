//! The bounded channel of `kanal`: a deque behind a lock that spins, by its calls that never wait.

use ::kanal::{Receiver, Sender, bounded};

use super::{Case, Contender};
use crate::event::Event;
use crate::machine::Machine;
use crate::queues::{self, Queue, Shared};
use crate::works::Work;

struct Channel;

impl Queue for Channel {
    type Sender = Sender<Event>;
    type Receiver = Receiver<Event>;

    fn bounded(size: usize) -> (Self::Sender, Self::Receiver) {
        bounded(size)
    }

    #[inline(always)]
    fn try_send(sender: &mut Self::Sender, event: Event) -> bool {
        sender.try_send(event).unwrap_or(false)
    }

    #[inline(always)]
    fn try_receive(receiver: &mut Self::Receiver) -> Option<Event> {
        receiver.try_recv().ok().flatten()
    }
}

impl Shared for Channel {
    fn another(sender: &Self::Sender) -> Self::Sender {
        sender.clone()
    }
}

pub(crate) fn cases(work: &Work, machine: &Machine, cases: &mut Vec<Case>) {
    queues::cases::<Channel>(Contender::Kanal, work, machine, cases);
    queues::shared_cases::<Channel>(Contender::Kanal, work, machine, cases);
}
