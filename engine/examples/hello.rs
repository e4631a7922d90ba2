//! A bank in forty lines: journaled, recovered, snapshotted. Kill it, start it again: it goes on.
//!
//! ```text
//! cargo run --release -p lockstep-engine --example hello -- ./bank
//! ```

use lockstep_engine::prelude::*;

bodies! {
    Deposit, kind 1, version 1: { account: u64, cents: i64 }
    Balance, kind 101, version 1: { account: u64, cents: i64 }
}

#[derive(Default)]
struct Bank {
    balances: DetMap<u64, i64>,
}
snapshot!(Bank { balances });

impl Logic for Bank {
    type In = Deposit;
    type Out = Balance;

    fn validate(&self, deposit: &Deposit, _: &Context) -> Result<(), Reject> {
        if deposit.cents == 0 {
            Err(Reject::new(1, "zero amount"))
        } else {
            Ok(())
        }
    }

    fn apply(&mut self, deposit: &Deposit, _: &Context, out: &mut Outputs<'_, Balance>) {
        let balance = self.balances.entry(deposit.account);
        *balance += deposit.cents;
        out.emit(Balance {
            account: deposit.account,
            cents: *balance,
        });
    }
}

fn main() -> lockstep_engine::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "./bank".to_owned());
    let deposits = arguments
        .next()
        .map_or(3, |count| count.parse().unwrap_or(3));
    let engine = Engine::<Bank>::open(directory)
        .snapshot_every(100_000)
        .start()?;
    report(&format!("recovered to #{}", engine.position()));
    let mut producer = engine.producer();
    for _ in 0..deposits {
        let ack = producer.publish(|slot: &mut Deposit| {
            slot.account = 7;
            slot.cents = 100;
        })?;
        report(&format!("{:?}", ack.wait()?)); // durable, applied, its outputs gone
    }
    let (position, balance) = engine.read(|bank| bank.balances.get(&7).copied())?;
    report(&format!("account 7 has {balance:?} at #{position}"));
    engine.close()
}

#[expect(clippy::print_stdout, reason = "what an example is for")]
fn report(line: &str) {
    println!("{line}");
}
