//! A book that is a list: everything is searched, nothing is clever.

use lockstep_exchange::book::{
    CancelReason, Cancellation, Change, Depth, Execution, Party, Place, Refusal, Report,
};
use lockstep_exchange::event::{OrderType, SelfTrade, Side, TimeInForce};

#[derive(Clone, Copy)]
struct Resting {
    place: Place,
    open: u64,
    /// By which it queues.
    turn: u64,
    /// By which it is older or newer than the owner's others.
    came: u64,
}

#[derive(Default)]
pub(crate) struct ModelBook {
    orders: Vec<Resting>,
    clock: u64,
    pub(crate) reports: Vec<Report>,
}

const fn trades(side: Side, limit: i64, price: i64) -> bool {
    match side {
        Side::Buy => price <= limit,
        Side::Sell => price >= limit,
    }
}

impl ModelBook {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn find(&self, owner: u32, id: u64) -> Result<usize, Refusal> {
        let is_it = |order: &Resting| order.place.owner == owner && order.place.id == id;
        self.orders
            .iter()
            .position(is_it)
            .ok_or(Refusal::UnknownOrder { owner, id })
    }

    /// Indices of a side, first to trade first.
    fn sorted(&self, side: Side) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.orders.len())
            .filter(|&at| self.orders[at].place.side == side)
            .collect();
        all.sort_by_key(|&at| {
            let Resting { place, turn, .. } = self.orders[at];
            (
                if side == Side::Buy {
                    -place.price
                } else {
                    place.price
                },
                turn,
            )
        });
        all
    }

    fn canceled(&mut self, place: &Place, price: i64, quantity: u64, reason: CancelReason) {
        self.reports.push(Report::Canceled(Cancellation {
            id: place.id,
            owner: place.owner,
            tag: place.tag,
            book: 0,
            side: place.side,
            price,
            quantity,
            reason,
        }));
    }

    fn best_price(&self, side: Side) -> Option<i64> {
        self.sorted(side)
            .first()
            .map(|&at| self.orders[at].place.price)
    }

    fn would_trade(&self, place: &Place, limit: i64) -> Result<(), Refusal> {
        match self.best_price(place.side.opposite()) {
            Some(price) if place.post_only && trades(place.side, limit, price) => {
                Err(Refusal::WouldTrade(price))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn place(&mut self, place: &Place) -> Result<(), Refusal> {
        let Place { owner, id, .. } = *place;
        if place.quantity == 0 {
            return Err(Refusal::QuantityInvalid(0));
        }
        if self.find(owner, id).is_ok() {
            return Err(Refusal::DuplicateOrder { owner, id });
        }
        let limit = match (place.order_type, place.side) {
            (OrderType::Limit, _) => place.price,
            (OrderType::Market, Side::Buy) => i64::MAX,
            (OrderType::Market, Side::Sell) => i64::MIN,
        };
        self.would_trade(place, limit)?;
        self.reports.push(Report::Accepted(*place));
        if place.time_in_force == TimeInForce::FillOrKill && !self.fillable(place, limit) {
            self.canceled(place, limit, place.quantity, CancelReason::NotFilledWhole);
            return Ok(());
        }
        let came = self.tick();
        self.come_in(place, limit, place.quantity, came);
        Ok(())
    }

    fn fillable(&self, place: &Place, limit: i64) -> bool {
        let mut missing = place.quantity;
        for at in self.sorted(place.side.opposite()) {
            let Resting {
                place: maker, open, ..
            } = self.orders[at];
            if missing == 0 || !trades(place.side, limit, maker.price) {
                break;
            }
            if maker.owner == place.owner && place.self_trade != SelfTrade::Allow {
                if place.self_trade != SelfTrade::CancelOldest {
                    return false;
                }
                continue;
            }
            missing = missing.saturating_sub(open);
        }
        missing == 0
    }

    fn come_in(&mut self, place: &Place, limit: i64, quantity: u64, came: u64) {
        let mut left = quantity;
        while left > 0 {
            let Some(&at) = self.sorted(place.side.opposite()).first() else {
                break;
            };
            let maker = self.orders[at];
            if !trades(place.side, limit, maker.place.price) {
                break;
            }
            if maker.place.owner == place.owner && place.self_trade != SelfTrade::Allow {
                if place.self_trade != SelfTrade::CancelNewest {
                    self.orders.remove(at);
                    self.canceled(
                        &maker.place,
                        maker.place.price,
                        maker.open,
                        CancelReason::SelfTrade,
                    );
                }
                if place.self_trade != SelfTrade::CancelOldest {
                    self.canceled(place, limit, left, CancelReason::SelfTrade);
                    return;
                }
                continue;
            }
            let traded = left.min(maker.open);
            left -= traded;
            self.orders[at].open -= traded;
            if self.orders[at].open == 0 {
                self.orders.remove(at);
            }
            let party = |place: &Place, left| Party {
                id: place.id,
                owner: place.owner,
                tag: place.tag,
                left,
            };
            self.reports.push(Report::Executed(Execution {
                price: maker.place.price,
                quantity: traded,
                taker_side: place.side,
                maker: party(&maker.place, maker.open - traded),
                taker: party(place, left),
            }));
        }
        if left == 0 {
            return;
        }
        let rests = !matches!(
            place.time_in_force,
            TimeInForce::ImmediateOrCancel | TimeInForce::FillOrKill
        );
        if rests {
            let turn = self.tick();
            self.orders.push(Resting {
                place: *place,
                open: left,
                turn,
                came,
            });
        } else {
            self.canceled(place, limit, left, CancelReason::NotFilled);
        }
    }

    pub(crate) fn cancel(&mut self, owner: u32, id: u64) -> Result<(), Refusal> {
        let at = self.find(owner, id)?;
        let order = self.orders.remove(at);
        self.canceled(
            &order.place,
            order.place.price,
            order.open,
            CancelReason::Requested,
        );
        Ok(())
    }

    pub(crate) fn reduce(&mut self, owner: u32, id: u64, by: u64) -> Result<(), Refusal> {
        let at = self.find(owner, id)?;
        if by == 0 {
            return Err(Refusal::QuantityInvalid(0));
        }
        if by >= self.orders[at].open {
            return self.cancel(owner, id);
        }
        self.orders[at].open -= by;
        let order = self.orders[at];
        self.reports
            .push(Report::Reduced(change(&order.place, id, order.open, true)));
        Ok(())
    }

    pub(crate) fn replace(
        &mut self,
        owner: u32,
        id: u64,
        new_id: u64,
        price: i64,
        quantity: u64,
    ) -> Result<(), Refusal> {
        let at = self.find(owner, id)?;
        if quantity == 0 {
            return Err(Refusal::QuantityInvalid(0));
        }
        if new_id != id && self.find(owner, new_id).is_ok() {
            return Err(Refusal::DuplicateOrder { owner, id: new_id });
        }
        let old = self.orders[at];
        self.would_trade(&old.place, price)?;
        let place = Place {
            id: new_id,
            price,
            ..old.place
        };
        let kept = price == old.place.price && quantity <= old.open;
        self.reports
            .push(Report::Replaced(change(&place, id, quantity, kept)));
        if kept {
            self.orders[at] = Resting {
                place,
                open: quantity,
                ..old
            };
        } else {
            self.orders.remove(at);
            self.come_in(&place, price, quantity, old.came);
        }
        Ok(())
    }

    pub(crate) fn cancel_all(&mut self, owner: u32, side: Option<Side>) -> u64 {
        let picked = |order: &Resting| {
            order.place.owner == owner && side.is_none_or(|side| side == order.place.side)
        };
        let mut gone: Vec<Resting> = self.orders.iter().copied().filter(picked).collect();
        self.orders.retain(|order| !picked(order));
        gone.sort_by_key(|order| std::cmp::Reverse(order.came));
        for order in &gone {
            self.canceled(
                &order.place,
                order.place.price,
                order.open,
                CancelReason::MassCancel,
            );
        }
        gone.len() as u64
    }

    pub(crate) fn expire(&mut self, time: u64) -> u64 {
        let due = |order: &Resting| {
            order.place.time_in_force == TimeInForce::GoodTillTime && order.place.expires <= time
        };
        let mut gone: Vec<Resting> = self.orders.iter().copied().filter(due).collect();
        self.orders.retain(|order| !due(order));
        gone.sort_by_key(|order| (order.place.expires, order.came));
        for order in &gone {
            self.canceled(
                &order.place,
                order.place.price,
                order.open,
                CancelReason::Expired,
            );
        }
        gone.len() as u64
    }

    pub(crate) fn depth(&self, side: Side) -> Vec<Depth> {
        let mut depth: Vec<Depth> = Vec::new();
        for at in self.sorted(side) {
            let Resting { place, open, .. } = self.orders[at];
            match depth.last_mut() {
                Some(last) if last.price == place.price => {
                    last.quantity += open;
                    last.orders += 1;
                }
                _ => depth.push(Depth {
                    price: place.price,
                    quantity: open,
                    orders: 1,
                }),
            }
        }
        depth
    }

    pub(crate) fn queue(&self, side: Side) -> Vec<(u32, u64, u64)> {
        let of = |at: usize| {
            let Resting { place, open, .. } = self.orders[at];
            (place.owner, place.id, open)
        };
        self.sorted(side).into_iter().map(of).collect()
    }
}

const fn change(place: &Place, old_id: u64, quantity: u64, priority_kept: bool) -> Change {
    Change {
        old_id,
        id: place.id,
        owner: place.owner,
        tag: place.tag,
        side: place.side,
        price: place.price,
        quantity,
        priority_kept,
    }
}
