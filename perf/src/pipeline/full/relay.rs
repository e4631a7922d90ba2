//! A logic that does what any logic does and nothing of its own: it reads, works for a while, answers.

use std::marker::PhantomData;

use lockstep_engine::prelude::*;

use crate::machine::clock::{Clock, Ticks as _};
use crate::pipeline::order::Order;
use crate::pipeline::toil::Toil;

lockstep_engine::bodies! {
    pub(super) Filled, kind 101, version 1: {
        /// Of the order.
        intended: u64,
        /// Of the order.
        sent: u64,
        /// When it had its position, in nanoseconds behind `sent`.
        ordered_ns: u64,
        /// When the logic began with it, in ticks.
        begun: u64,
        /// When the logic was done with it, in ticks.
        applied: u64
    }
}

/// A logic that reads every byte of an order, works for a while and answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relay<O> {
    sum: u64,
    toil: Toil,
    /// Reads the clock where the way is split.
    split: Option<Clock>,
    orders: PhantomData<O>,
}

impl<O> Relay<O> {
    pub(super) fn new(toil: Toil, split: Option<Clock>) -> Self {
        Self {
            sum: 0,
            toil,
            split,
            orders: PhantomData,
        }
    }
}

impl<O: Order> State for Relay<O> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.sum.save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let sum = u64::load(from)?;
        Ok(Self {
            sum,
            ..Self::new(Toil::default(), None)
        })
    }
}

impl<O: Order> Logic for Relay<O> {
    type In = O;
    type Out = Filled;

    fn apply(&mut self, order: O::View<'_>, context: &Context, out: &mut Outputs<'_, Filled>) {
        let begun = self.split.map_or(0, |clock| clock.ordered());
        let order = O::seen(order);
        self.sum ^= order.sum();
        self.toil.work();
        let ticket = order.ticket();
        out.emit(Filled {
            intended: ticket.intended,
            sent: ticket.sent,
            ordered_ns: context.time().saturating_sub(order.sent_unix_ns()),
            begun,
            applied: self.split.map_or(0, |clock| clock.ordered()),
        });
    }
}
