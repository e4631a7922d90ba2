//! How many requests each principal has in flight, where that has a limit.
//!
//! # Invariants
//!
//! * `QT1` What an account has in flight is the sum of what its routes have.
//! * `QT2` Whose name nobody has proved has no account, and no limit: another one could take its name.

use std::collections::BTreeMap;

use super::{Identity, Principal};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// 0: no limit, and nothing is counted.
    most: u32,
    numbers: BTreeMap<String, usize>,
    in_flight: Vec<u32>,
}

/// Whose requests they are; `None`: nobody counts them.
pub(super) type Account = Option<usize>;

impl Accounts {
    pub(super) fn new(most: u32) -> Accounts {
        Accounts {
            most,
            ..Accounts::default()
        }
    }

    /// Of whoever has come (`QT2`): there are as many as names that were ever proved here.
    pub(super) fn of(&mut self, principal: &Principal) -> Account {
        if self.most == 0 || principal.identity == Identity::Nobody {
            return None;
        }
        if let Some(number) = self.numbers.get(&principal.name) {
            return Some(*number);
        }
        let number = self.in_flight.len();
        self.in_flight.push(0);
        self.numbers.insert(principal.name.clone(), number);
        Some(number)
    }

    /// The most that one session of it may have in flight.
    pub(super) fn window(&self, account: Account, window: u32) -> u32 {
        account.map_or(window, |_| window.min(self.most))
    }

    pub(super) fn is_full(&self, account: Account) -> bool {
        account.is_some_and(|number| self.in_flight[number] >= self.most)
    }

    pub(super) fn more(&mut self, account: Account) {
        if let Some(number) = account {
            self.in_flight[number] += 1;
        }
    }

    pub(super) fn less(&mut self, account: Account, count: u32) {
        if let Some(number) = account {
            self.in_flight[number] -= count;
        }
    }

    /// No route has anything in flight.
    pub(super) fn clear(&mut self) {
        self.in_flight.fill(0);
    }
}
