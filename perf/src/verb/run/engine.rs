//! The engine's configuration, from a file and from flags, and what its errors mean.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use lockstep_engine::config::ConfigError;
use lockstep_engine::core::StepError;
use lockstep_engine::{Config, Error};
use lockstep_journaler::{OpenError, ReadError};
use lockstep_perf::exit::{Exit, Refusal};
use lockstep_replicator::transport::TransportError;
use lockstep_replicator::{Fatal, StartError};
use lockstep_ringbuffer::BuildError;
use toml::{Table, Value};

use super::EngineFlags;
use crate::verb::Global;
use crate::verb::config::{ENGINE, is_engine_key, is_flag};
use crate::verb::flags::Pages;

/// Tables as a program fills them, and a load as its source wrote it: no sessions of the
/// engine's own, and no ticks but those of the flow.
pub(crate) fn config(flags: &EngineFlags, global: &Global) -> anyhow::Result<Config> {
    let mut config = match &global.config {
        Some(path) => of_file(path)?,
        None => Config::default(),
    };
    config.sessions_max = 0;
    config.tick_ms = 0;
    if let Some(journal) = flags.journal {
        config.journal = journal.into();
    }
    if let Some(gate) = flags.gate {
        config.gate = gate.into();
    }
    config.allow_volatile |= flags.allow_volatile;
    config.lock_memory |= flags.mlock;
    if let Some(pages) = flags.mem {
        config.huge_pages = pages == Pages::Huge;
    }
    config.checked().map_err(|error| refused(error.into()))?;
    Ok(config)
}

/// The table `[engine]`, or the whole of a file that has nothing but the engine's names.
fn of_file(path: &Path) -> anyhow::Result<Config> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        Refusal::usage(format!("{}: {}", path.display(), error.message()), "TOML")
    })?;
    let own = match table.remove(ENGINE) {
        Some(Value::Table(own)) => own,
        Some(other) => {
            let what = format!("{}: {ENGINE} is {}", path.display(), other.type_str());
            return Err(Refusal::usage(what, "[engine], a table").into());
        }
        None if table.keys().all(|key| is_engine_key(key)) => table,
        // A file of flags, such as tune writes for rings alone: nothing in it is the engine's.
        None => {
            let lost = |key: &&String| is_engine_key(key) && !is_flag(key);
            if let Some(key) = table.keys().find(lost) {
                let what = format!("{}: {key} is the engine's, beside flags", path.display());
                let hint = "put what is the engine's below [engine]";
                return Err(Refusal::usage(what, hint).into());
            }
            Table::new()
        }
    };
    own.try_into().map_err(|error: toml::de::Error| {
        let what = format!("{}: [{ENGINE}]: {}", path.display(), error.message());
        Refusal::usage(what, "names and values as in the engine's configuration").into()
    })
}

/// An engine's error with its exit code.
pub(crate) fn refused(error: Error) -> anyhow::Error {
    let (exit, hint) = meaning(&error);
    Refusal::new(exit, error.to_string(), hint).into()
}

fn meaning(error: &Error) -> (Exit, &'static str) {
    match error {
        Error::Config(ConfigError::Read { .. }) | Error::Directory { .. } => (Exit::Failed, ""),
        Error::Graph(BuildError::Lock { .. }) => (Exit::Refused, "lockstep doctor shows the limit"),
        Error::Config(_) | Error::Graph(_) => (Exit::Usage, ""),
        Error::Journal(error) | Error::Cluster(StartError::Open(error)) => of_opening(error),
        Error::Read(ReadError::Damaged { .. }) => (Exit::Corrupt, VERIFY),
        // A file of the journal's that is not there.
        Error::Read(ReadError::Io(fault)) if fault.source.kind() == ErrorKind::NotFound => {
            (Exit::Corrupt, VERIFY)
        }
        Error::Read(ReadError::OtherType { .. })
        | Error::EventSize { .. }
        | Error::OtherSchema { .. } => (Exit::Refused, INSPECT),
        Error::Step(StepError::Diverged { .. } | StepError::Broken { .. })
        | Error::NoStart { .. }
        | Error::OutputsGone { .. } => (Exit::Corrupt, ""),
        Error::Cluster(error) => of_start(error),
        Error::Agreement(error) => of_agreement(error),
        Error::Transport(
            TransportError::Listen { .. } | TransportError::PlaintextOutside { .. },
        ) => (Exit::Refused, ""),
        _ => (Exit::Failed, ""),
    }
}

const VERIFY: &str = "lockstep journal verify says what survives";
const INSPECT: &str = "lockstep journal inspect says whose it is";

fn of_opening(error: &OpenError) -> (Exit, &'static str) {
    match error {
        OpenError::InUse { .. } => (Exit::Refused, "lockstep top shows what it does"),
        OpenError::Corrupt(_) | OpenError::Missing { .. } => (Exit::Corrupt, VERIFY),
        OpenError::Foreign { .. } | OpenError::Future { .. } | OpenError::Schema { .. } => {
            (Exit::Refused, INSPECT)
        }
        OpenError::Options(_) => (Exit::Usage, ""),
        _ => (Exit::Failed, ""),
    }
}

/// Why a node does not fit its cluster, or its directory.
fn of_start(error: &StartError) -> (Exit, &'static str) {
    match error {
        StartError::Fatal(error) => of_agreement(error),
        StartError::NoCluster
        | StartError::OtherCluster { .. }
        | StartError::OtherNode { .. }
        | StartError::OlderEpoch { .. }
        | StartError::EpochNotAbove { .. } => (Exit::Refused, ""),
        StartError::Index { .. } | StartError::Forgot { .. } => (Exit::Corrupt, ""),
        StartError::Sites(_) | StartError::NoFounders | StartError::EventSize { .. } => {
            (Exit::Usage, "")
        }
        _ => (Exit::Failed, ""),
    }
}

/// Why a node cannot go on in its cluster.
fn of_agreement(error: &Fatal) -> (Exit, &'static str) {
    match error {
        Fatal::Diverged { .. } | Fatal::Panicked { .. } | Fatal::Lost(_) => (Exit::Corrupt, ""),
        Fatal::Read(ReadError::Damaged { .. }) | Fatal::NotThere { .. } => (Exit::Corrupt, VERIFY),
        _ => (Exit::Failed, ""),
    }
}
