//! `exchange.toml` in the journal's directory: what the exchange of this journal holds.
//!
//! The bounds of an exchange are part of its state: with other bounds the same log gives
//! another hash. So they are written once, before the first event, and read by everyone who
//! opens the directory later.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use lockstep_exchange::exchange::Bounds;
use lockstep_perf::args::quantity::{count, show_short};
use lockstep_perf::exit::Refusal;
use serde::{Deserialize, Serialize};

/// The file's name.
pub(crate) const FILE: &str = "exchange.toml";

const HEAD: &str =
    "# What the exchange of this journal holds. Part of its state: it never changes.\n";

/// The bounds as the file has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    orders: u32,
    accounts: u32,
    instruments: u32,
    holdings: u32,
    sessions: u32,
}

impl From<Bounds> for Held {
    fn from(bounds: Bounds) -> Self {
        let Bounds {
            orders,
            accounts,
            instruments,
            holdings,
            sessions,
        } = bounds;
        Self {
            orders,
            accounts,
            instruments,
            holdings,
            sessions,
        }
    }
}

impl From<Held> for Bounds {
    fn from(held: Held) -> Self {
        Self {
            orders: held.orders,
            accounts: held.accounts,
            instruments: held.instruments,
            holdings: held.holdings,
            sessions: held.sessions,
        }
    }
}

/// `--bounds orders=4M,instruments=16Ki`: what is not named is as by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoundsFlag(pub(crate) Bounds);

impl FromStr for BoundsFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bounds = Bounds::default();
        for part in text.split(',') {
            let Some((name, number)) = part.split_once('=') else {
                return Err(format!("{part:?}: expected NAME=NUMBER, as in orders=4M"));
            };
            let number =
                u32::try_from(count(number)?).map_err(|_| format!("{number} is too many"))?;
            match name {
                "orders" => bounds.orders = number,
                "accounts" => bounds.accounts = number,
                "instruments" => bounds.instruments = number,
                "holdings" => bounds.holdings = number,
                "sessions" => bounds.sessions = number,
                _ => {
                    return Err(format!(
                        "{name:?} is no table: orders, accounts, instruments, holdings, sessions"
                    ));
                }
            }
        }
        if bounds.are_possible() {
            Ok(Self(bounds))
        } else {
            let most = show_short(Bounds::TABLES_MAX.into());
            Err(format!(
                "{text}: more than handles hold (tables up to {most})"
            ))
        }
    }
}

/// Bounds for messages.
struct Shown(Bounds);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = self.0;
        let show = |number: u32| show_short(number.into());
        write!(
            f,
            "orders={},accounts={},instruments={},holdings={},sessions={}",
            show(bounds.orders),
            show(bounds.accounts),
            show(bounds.instruments),
            show(bounds.holdings),
            show(bounds.sessions)
        )
    }
}

/// What the exchange in this directory holds, if it says so.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Option<Bounds>> {
    let path = directory.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let held: Held = toml::from_str(&text).map_err(|error| {
        Refusal::usage(
            format!("{}: {}", path.display(), error.message()),
            "the file is written by lockstep run, once; put it back as it was",
        )
    })?;
    let bounds = Bounds::from(held);
    if !bounds.are_possible() {
        let what = format!("{}: {} cannot be", path.display(), Shown(bounds));
        return Err(Refusal::usage(what, "put the file back as it was").into());
    }
    Ok(Some(bounds))
}

/// The bounds to run with: those of the directory, or those that are wished for where it is
/// new.
pub(crate) fn agree(directory: &Path, wished: Option<Bounds>) -> anyhow::Result<Bounds> {
    if let Some(held) = read(directory)? {
        return match wished {
            Some(wished) if wished != held => Err(Refusal::usage(
                format!(
                    "--bounds {} contradicts {}, which has {}",
                    Shown(wished),
                    directory.join(FILE).display(),
                    Shown(held)
                ),
                "leave --bounds out, or name another directory",
            )
            .into()),
            _ => Ok(held),
        };
    }
    let bounds = wished.unwrap_or_default();
    if is_new(directory)? {
        write(directory, bounds)?;
    } else if wished.is_some_and(|wished| wished != Bounds::default()) {
        let what = format!(
            "{} has no {FILE}, so its exchange has the default bounds",
            directory.display()
        );
        return Err(Refusal::usage(what, "leave --bounds out, or name another directory").into());
    }
    Ok(bounds)
}

/// Says beside a node's journal what its exchange holds, so that whoever replays it has the same.
pub(crate) fn put(directory: &Path, bounds: Bounds) -> anyhow::Result<()> {
    match read(directory)? {
        None => write(directory, bounds),
        Some(held) if held == bounds => Ok(()),
        Some(held) => Err(Refusal::usage(
            format!(
                "{} says {}, and a node has {}",
                directory.join(FILE).display(),
                Shown(held),
                Shown(bounds)
            ),
            "the file is written by the node, once: put it back as it was",
        )
        .into()),
    }
}

/// Whether nothing is in the directory yet.
fn is_new(directory: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// Durable before the first event: a journal without it would be read with other bounds.
fn write(directory: &Path, bounds: Bounds) -> anyhow::Result<()> {
    let what = || format!("cannot write {}", directory.join(FILE).display());
    fs::create_dir_all(directory).with_context(what)?;
    let text = format!("{HEAD}{}", toml::to_string(&Held::from(bounds))?);
    let temporary: PathBuf = directory.join(".exchange.toml.new");
    let mut file = File::create(&temporary).with_context(what)?;
    file.write_all(text.as_bytes()).with_context(what)?;
    file.sync_all().with_context(what)?;
    fs::rename(&temporary, directory.join(FILE)).with_context(what)?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_bounds_are_put_once_and_then_compared() {
        let directory = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            orders: 1 << 10,
            ..Bounds::default()
        };
        for _ in 0..2 {
            put(directory.path(), bounds).unwrap();
            assert_eq!(read(directory.path()).unwrap(), Some(bounds));
        }
        let refused = put(directory.path(), Bounds::default()).unwrap_err();
        assert!(refused.to_string().contains("a node has"), "{refused}");
    }

    #[test]
    fn bounds_are_read_by_name() {
        let flag: BoundsFlag = "orders=4Mi,instruments=16Ki".parse().unwrap();
        assert_eq!(flag.0.orders, 4 << 20);
        assert_eq!(flag.0.instruments, 16_384);
        assert_eq!(flag.0.accounts, Bounds::default().accounts);
        for text in ["orders", "apples=3", "orders=9G", "orders=many"] {
            assert!(text.parse::<BoundsFlag>().is_err(), "{text}");
        }
    }
}
