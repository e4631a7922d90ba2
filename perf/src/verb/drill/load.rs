//! Clients that trade while something goes wrong, and remember everything that they were told.
//!
//! Orders are due at fixed times; a client that is held up sends them as soon as it can, and counts
//! from when they were due.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lockstep_exchange::event::{Event, NewOrder, SessionOpen, Side, TimeInForce};
use lockstep_replicator::client::{Client, ClientOptions};

use super::processes::{PATIENCE, go_on, now};
use crate::verb::node::{ACCOUNTS, INSTRUMENTS};

/// Orders of one client that may be without an answer.
const WINDOW: u32 = 256;

/// Silence of a node after which a client asks another. Several elections long: a node that is there
/// is not given up for being slow.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// An answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) session: u64,
    pub(super) number: u32,
    pub(super) position: u64,
    pub(super) code: u16,
    /// Of the outputs; a repeated answer comes without them.
    pub(super) digest: Option<u64>,
    /// When it was due, when it was asked, and when the answer came: seconds since the drill began.
    pub(super) due: f64,
    pub(super) asked: f64,
    pub(super) at: f64,
}

/// A number that stands for outputs.
pub(super) fn digest(outputs: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(outputs);
    hasher.finish()
}

/// What all clients were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) requests: u64,
    /// Answered with a refusal of the exchange, among the answered.
    pub(super) refused: u64,
    pub(super) answered: Vec<Answered>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// Nobody wants to hear what they were told any more.
    is_given_up: AtomicBool,
    /// Answers of all clients together.
    answers: AtomicU64,
    fault: Mutex<Option<String>>,
}

/// Clients that run.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<anyhow::Result<Told>>>,
}

/// When the drill began.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(now)
}

/// Seconds since the drill began.
pub(super) fn since_start(at: Instant) -> f64 {
    at.saturating_duration_since(start()).as_secs_f64()
}

impl Load {
    /// Starts the clients, each on a thread of its own.
    pub(super) fn start(addresses: &[SocketAddr], clients: u32, rate: u32) -> anyhow::Result<Self> {
        start();
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let shared = Arc::new(Shared::default());
        let gap = Duration::from_secs(1) * clients / rate;
        let mut threads = Vec::new();
        for number in 0..clients {
            let (addresses, shared) = (addresses.clone(), Arc::clone(&shared));
            let trade = move || {
                let told = trade(number, &addresses, gap, &shared);
                if let Err(error) = &told {
                    let mut fault = shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
                    fault.get_or_insert(format!("client {number}: {error:#}"));
                }
                told
            };
            let thread = std::thread::Builder::new().name(format!("client-{number}"));
            threads.push(thread.spawn(trade)?);
        }
        Ok(Self { shared, threads })
    }

    /// Waits until answers flow: as many as there are clients, twice.
    pub(super) fn flow(&self, within: Duration) -> anyhow::Result<()> {
        let started = now();
        // ORDERING: Relaxed, a count.
        let first = self.shared.answers.load(Ordering::Relaxed);
        let enough = first + 2 * self.threads.len() as u64;
        // Ends: enough came, a client failed, or out of patience.
        // ORDERING: Relaxed, a count.
        while self.shared.answers.load(Ordering::Relaxed) < enough {
            let fault = self.shared.fault.lock();
            if let Some(fault) = fault.unwrap_or_else(PoisonError::into_inner).as_ref() {
                bail!("{fault}");
            }
            go_on()?;
            if started.elapsed() > within {
                bail!("no answers came within {within:?}");
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets every client have its last answers, and ends them.
    pub(super) fn end(mut self) -> anyhow::Result<Told> {
        // ORDERING: Relaxed, the join orders everything else.
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for thread in std::mem::take(&mut self.threads) {
            let told = thread.join();
            let told = told.map_err(|_| anyhow::anyhow!("a client panicked"))??;
            all.requests += told.requests;
            all.refused += told.refused;
            all.answered.extend(told.answered);
        }
        all.answered
            .sort_by(|one, other| one.at.total_cmp(&other.at));
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // ORDERING: Relaxed, the joins order everything else.
        self.shared.is_given_up.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A drill that failed says why; its clients have nothing to add.
            let _told = thread.join();
        }
    }
}

/// One client: orders at their times, until it is over and everything is answered.
fn trade(
    number: u32,
    addresses: &[String],
    gap: Duration,
    shared: &Shared,
) -> anyhow::Result<Told> {
    let mut options = ClientOptions::new("drill".parse()?, 64);
    options.window = WINDOW;
    options.answer_within = ANSWER_WITHIN;
    options.principal = format!("client-{number}");
    let mut client = Client::connect(addresses, &options, PATIENCE)?;
    let account = number % ACCOUNTS;
    let login = Event::new(
        0,
        0,
        0,
        &SessionOpen {
            account,
            ..SessionOpen::default()
        },
    );
    let reply = client.call(bytemuck::bytes_of(&login), PATIENCE)?;
    if reply.code != 0 {
        bail!("the session may not trade: code {}", reply.code);
    }
    let mut told = Told::default();
    let mut due = Due::new(gap);
    let mut ended: Option<Instant> = None;
    // Ends: when it is over and all is answered, or nobody answers for far too long.
    loop {
        // ORDERING: Relaxed, as in `end`.
        let is_over = shared.is_over.load(Ordering::Relaxed);
        // ORDERING: Relaxed, as in `drop`.
        if shared.is_given_up.load(Ordering::Relaxed) {
            return Ok(told);
        }
        if is_over {
            let since = *ended.get_or_insert_with(now);
            if client.in_flight() == 0 || since.elapsed() > PATIENCE {
                return Ok(told);
            }
        }
        while !is_over && due.is_now() {
            let order = order(account, told.requests);
            due.sent();
            if client.ask(bytemuck::bytes_of(&order)).is_err() {
                due.take_back();
                break;
            }
            told.requests += 1;
        }
        let wait = if is_over { PATIENCE } else { due.left() };
        client
            .turn(wait.min(Duration::from_millis(50)))
            .context("a client cannot go on")?;
        // Ends: each turn takes one of finitely many.
        while let Some(reply) = client.reply() {
            // ORDERING: Relaxed, a count.
            shared.answers.fetch_add(1, Ordering::Relaxed);
            told.refused += u64::from(reply.code != 0);
            let (was_due, asked) = due.of(reply.number)?;
            told.answered.push(Answered {
                session: reply.session,
                number: reply.number,
                position: reply.position,
                code: reply.code,
                digest: (!reply.is_repeated).then(|| digest(&reply.outputs)),
                due: was_due,
                asked,
                at: since_start(now()),
            });
        }
    }
}

/// When orders are due, and when those were that are in flight.
struct Due {
    gap: Duration,
    next: Instant,
    /// Of the orders in flight, by request: when they were due, and when asked; the first trades under
    /// request 2, behind the login.
    flying: std::collections::VecDeque<(f64, f64)>,
    first: u32,
}

impl Due {
    fn new(gap: Duration) -> Self {
        Self {
            gap,
            next: now(),
            flying: std::collections::VecDeque::new(),
            first: 2,
        }
    }

    fn is_now(&self) -> bool {
        now() >= self.next
    }

    fn left(&self) -> Duration {
        self.next.saturating_duration_since(now())
    }

    fn sent(&mut self) {
        self.flying
            .push_back((since_start(self.next), since_start(now())));
        self.next += self.gap;
    }

    /// It was not sent after all: it stays due.
    fn take_back(&mut self) {
        if self.flying.pop_back().is_some() {
            self.next -= self.gap;
        }
    }

    /// When this request was due, and when it was asked; answers come in the order of requests.
    fn of(&mut self, number: u32) -> anyhow::Result<(f64, f64)> {
        let due = self.flying.pop_front().filter(|_| number == self.first);
        self.first += 1;
        due.with_context(|| format!("request {number} was answered out of order or twice"))
    }
}

/// Buys and sells that meet: the book stays small.
fn order(account: u32, count: u64) -> Event {
    let side = if (u64::from(account) + count).is_multiple_of(2) {
        Side::Buy
    } else {
        Side::Sell
    };
    let instrument = u32::try_from(count / 2 % u64::from(INSTRUMENTS)).unwrap_or(0);
    let order = NewOrder {
        price: 100,
        quantity: 1,
        order: count + 1,
        instrument,
        account,
        ..NewOrder::limit(side, TimeInForce::GoodTillCancel)
    };
    Event::new(0, 0, 0, &order)
}

impl Told {
    /// The longest silence, from the last answer before to the first after, of those that began or ended
    /// between the cause and full service again; in milliseconds.
    pub(super) fn outage_ms(&self, (from, until): (f64, f64)) -> f64 {
        let silences = self.answered.windows(2).filter_map(|pair| {
            let (before, after) = (pair[0].at, pair[1].at);
            (after >= from && before <= until).then_some((after - before) * 1e3)
        });
        silences.fold(0.0, f64::max)
    }

    /// From when each order was due to its answer, in microseconds.
    pub(super) fn responses_us(&self) -> Vec<f64> {
        let answers = self.answered.iter();
        answers.map(|one| (one.at - one.due) * 1e6).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(at: f64) -> Answered {
        Answered {
            session: 1,
            number: 1,
            position: 1,
            code: 0,
            digest: None,
            due: at - 0.001,
            asked: at - 0.001,
            at,
        }
    }

    #[test]
    fn an_outage_is_the_silence_around_its_cause() {
        let told = Told {
            answered: [0.1, 0.2, 0.25, 0.31, 0.5, 0.51, 0.9]
                .map(answered)
                .to_vec(),
            ..Told::default()
        };
        // Killed at 0.3; one answer was on its way.
        assert!((told.outage_ms((0.3, 0.6)) - 390.0).abs() < 1e-6);
        assert!((told.outage_ms((0.3, 0.505)) - 190.0).abs() < 1e-6);
        assert!(told.outage_ms((1.0, 2.0)).abs() < 1e-6);
        assert!((told.responses_us()[0] - 1000.0).abs() < 1e-6);
    }
}
