//! What the engine tells an operator while it runs: its `tracing` events, on stderr.

use std::io::Write as _;

use lockstep_engine::Clock;

use super::journal::print;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Loud {
    /// What fails
    Error,
    /// And what somebody should look at
    Warn,
    /// And what happens: roles, peers, operators, snapshots
    Info,
    /// And each message of a peer that is not taken, with the reason
    Debug,
}

impl From<Loud> for tracing::Level {
    fn from(loud: Loud) -> Self {
        match loud {
            Loud::Error => Self::ERROR,
            Loud::Warn => Self::WARN,
            Loud::Info => Self::INFO,
            Loud::Debug => Self::DEBUG,
        }
    }
}

/// From here on every event of at least this level is told.
pub(crate) fn listen(loud: Loud) {
    // Somebody else's, if there is one already: a test's.
    let _set = tracing::subscriber::set_global_default(Stderr(loud.into()));
}

/// A line for each event of at least this level, on stderr.
struct Stderr(tracing::Level);

/// The fields of an event, one behind the other.
#[derive(Default)]
struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        // Writing into a string does not fail.
        let _written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl tracing::Subscriber for Stderr {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = event.metadata().level();
        // A node's lines are read beside another's, and beside its log.
        let when = print::time_to_ms(Clock::System.now_ns().unwrap_or(0));
        // A closed stderr must not end what runs.
        let _closed = writeln!(std::io::stderr().lock(), "{when}  {level:<5}{}", line.0);
    }
}
