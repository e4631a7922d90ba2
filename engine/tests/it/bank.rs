//! The model that the tests run: accounts, and events that misbehave on demand.

use lockstep_engine::prelude::*;

bodies! {
    pub(crate) Deposit, kind 1, version 1: { account: u64, cents: i64 }
    /// Panics in `apply`, half-way.
    pub(crate) Bomb, kind 2, version 1: { account: u64, is_armed_in_validate: u64 }
    /// Emits so many outputs.
    pub(crate) Flood, kind 3, version 1: { outputs: u64 }
    pub(crate) Balance, kind 101, version 1: { account: u64, cents: i64 }
    pub(crate) Drop, kind 102, version 1: { number: u64 }
}
kinds! { pub(crate) enum BankIn: "test.bank" version 1 { Deposit, Bomb, Flood } }
kinds! { pub(crate) enum BankOut: "test.bank.outputs" version 1 { Balance, Drop } }

#[derive(Default, Debug, PartialEq)]
pub(crate) struct Bank {
    pub(crate) balances: DetMap<u64, i64>,
    pub(crate) total: i64,
}
snapshot!(Bank { balances, total });

pub(crate) const ZERO_AMOUNT: u16 = 1;

impl Logic for Bank {
    type In = BankIn<'static>;
    type Out = BankOut<'static>;

    fn validate(&self, event: BankIn<'_>, _: &Context) -> Result<(), Reject> {
        match event {
            BankIn::Deposit(deposit) if deposit.cents == 0 => {
                Err(Reject::new(ZERO_AMOUNT, "zero amount"))
            }
            BankIn::Bomb(bomb) if bomb.is_armed_in_validate != 0 => panic!("a bomb in validate"),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, event: BankIn<'_>, _: &Context, out: &mut Outputs<'_, Self::Out>) {
        match event {
            BankIn::Deposit(deposit) => {
                let balance = self.balances.entry(deposit.account);
                *balance += deposit.cents;
                self.total += deposit.cents;
                out.emit(Balance {
                    account: deposit.account,
                    cents: *balance,
                });
            }
            BankIn::Bomb(bomb) => {
                *self.balances.entry(bomb.account) += 1_000_000;
                out.emit(Balance {
                    account: bomb.account,
                    cents: -1,
                });
                panic!("a bomb in apply");
            }
            BankIn::Flood(flood) => {
                for number in 0..flood.outputs {
                    out.emit(Drop { number });
                }
            }
        }
    }

    fn check(&self) -> Result<(), std::borrow::Cow<'static, str>> {
        let sum: i64 = self.balances.values().sum();
        if sum == self.total {
            Ok(())
        } else {
            Err("the balances are not the total".into())
        }
    }
}

/// A builder with small rings and segments, so that the tests reach their ends.
pub(crate) fn bank(directory: &std::path::Path) -> lockstep_engine::Builder<Bank> {
    Engine::<Bank>::open(directory)
        .allow_volatile(true)
        .slots(256)
        .output_slots(256)
        .segment_bytes(1 << 20)
        .snapshot_every(0)
        .beacon_every(64)
}

pub(crate) fn deposit(account: u64, cents: i64) -> Event64 {
    Event64::event(&Deposit { account, cents })
}
