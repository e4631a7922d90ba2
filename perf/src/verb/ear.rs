//! What the engine tells an operator while it runs: its `tracing` events, on stderr.

use std::io::Write as _;

use lockstep_engine::Clock;

use super::journal::print;

/// From here on every event of at least this level is told.
pub(crate) fn listen(level: tracing::Level) {
    // Somebody else's, if there is one already: a test's.
    let _set = tracing::subscriber::set_global_default(Stderr(level));
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
        let when = now();
        // A closed stderr must not end what runs.
        let _closed = writeln!(std::io::stderr().lock(), "{when}  {level:<5}{}", line.0);
    }
}

/// The time of day as the log's own times are written, to the millisecond: a node's lines are read beside another's.
fn now() -> String {
    let now_ns = Clock::System.now_ns().unwrap_or(0);
    let text = print::time(now_ns);
    match text.split_once('.') {
        Some((seconds, rest)) if rest.len() > 3 => format!("{seconds}.{}Z", &rest[..3]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_says_when_to_the_millisecond() {
        let now = super::now();
        assert_eq!(now.len(), "2026-11-25T17:34:00.123Z".len(), "{now}");
        assert!(now.ends_with('Z'), "{now}");
    }
}
