//! What clients were told, held against the journals of the nodes.
//!
//! | found | counted as |
//! |---|---|
//! | an answered request that is not in a node's log at the position that the answer named | lost |
//! | a request that the logic did more than once, by the log | duplicated |
//! | two nodes whose logs differ in a frame that both have | differing |

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use lockstep_engine::event::SYSTEM_KINDS;
use lockstep_engine::replay::{Range, Replay};
use lockstep_engine::system::code;
use lockstep_exchange::exchange::Exchange;
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{From, Reader};

use super::load::Answered;
use crate::verb::node::fresh;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) differing: u64,
    /// The first few findings, in words.
    pub(super) findings: Vec<String>,
    /// Where each node's log ends.
    pub(super) ends: Vec<u64>,
}

/// Findings that are told in words.
const TOLD_MAX: usize = 5;

impl Checked {
    fn find(&mut self, what: String) {
        if self.findings.len() < TOLD_MAX {
            self.findings.push(what);
        }
    }
}

/// Checks all logs; the nodes have ended.
pub(super) fn check(directories: &[&Path], answered: &[Answered]) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let mut logs = Vec::new();
    for directory in directories {
        let done = done_by(directory, &mut checked)?;
        for one in answered {
            let found = done.get(&(one.session, one.number)).copied();
            if found != Some(one.position) {
                checked.lost += 1;
                checked.find(format!(
                    "{}: session {}, request {} was answered at position {}, in the log it is at {found:?}",
                    directory.display(),
                    one.session,
                    one.number,
                    one.position
                ));
            }
        }
        logs.push(frames_of(directory)?);
    }
    for (at, log) in logs.iter().enumerate().skip(1) {
        let first = logs[0]
            .iter()
            .zip(log)
            .position(|(one, other)| one != other);
        if let Some(frame) = first {
            checked.differing += 1;
            checked.find(format!(
                "{} and {} differ in frame {frame}",
                directories[0].display(),
                directories[at].display()
            ));
        }
    }
    Ok(checked)
}

/// Which request was done where, by running the log through the logic again.
fn done_by(directory: &Path, checked: &mut Checked) -> anyhow::Result<BTreeMap<(u64, u32), u64>> {
    let context = || format!("the log of {}", directory.display());
    let mut replay =
        Replay::<Exchange>::open(directory, fresh, Range::default()).with_context(context)?;
    let mut done = BTreeMap::new();
    let mut end = 0;
    // Ends: with the log.
    while let Some(stepped) = replay.step().with_context(context)? {
        end = stepped.position.0 + 1;
        let header = stepped.event.header;
        let is_clients = header.session != 0 && header.kind != 0 && header.kind < SYSTEM_KINDS;
        let was_done = !matches!(
            stepped.outcome.code,
            code::REPEATED
                | code::REQUEST_GAP
                | code::REQUEST_FORGOTTEN
                | code::SESSION_UNKNOWN
                | code::SESSIONS_FULL
        );
        if !is_clients || !was_done {
            continue;
        }
        let before = done.insert((header.session, header.request), stepped.position.0);
        if let Some(before) = before {
            checked.duplicated += 1;
            checked.find(format!(
                "{}: session {}, request {} was done at position {before} and at {}",
                directory.display(),
                header.session,
                header.request,
                stepped.position
            ));
        }
    }
    checked.ends.push(end);
    Ok(done)
}

/// The checksum of each frame's header, which covers its events and all before it.
fn frames_of(directory: &Path) -> anyhow::Result<Vec<u32>> {
    let mut reader = Reader::open(Disk::at(directory)?, From::Oldest)?;
    let mut frames = Vec::new();
    // Ends: with the log.
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame.header().header_crc());
    }
    Ok(frames)
}
