//! The harness on logic of your own: a queue to another thread, and where its time goes.
//!
//! ```text
//! cargo run --release -p lockstep-perf --example own_logic
//! ```

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use lockstep_perf::{Harness, Recorder, Target, Ticket};

/// The sending end: the harness offers an event each time one is due.
struct Queue(SyncSender<Ticket>);

impl Target for Queue {
    fn offer(&mut self, ticket: Ticket) -> bool {
        // A full queue says no; the harness offers the event again, and counts its wait.
        self.0.try_send(ticket).is_ok()
    }
}

/// The receiving end, on a thread of its own: does the work, and says when it is done.
fn work(tickets: std::sync::mpsc::Receiver<Ticket>, mut recorder: Recorder) {
    let mut books = [0_u64; 64];
    for ticket in tickets {
        books[(ticket.intended % 64) as usize] ^= ticket.intended;
        recorder.done(ticket);
    }
}

fn main() -> anyhow::Result<()> {
    let harness = Harness::new("a queue")
        .rate(50_000)
        .warmup(Duration::from_millis(200))
        .duration(Duration::from_secs(1))
        .runs(3);
    let report = harness.run(|session| {
        let (sender, receiver) = sync_channel(1024);
        let recorder = session.recorder();
        std::thread::spawn(move || work(receiver, recorder));
        Ok(vec![Queue(sender)])
    })?;
    show(&report.text()?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what an example is for")]
fn show(text: &str) {
    print!("{text}");
}
