//! What clients were told, held against the journals of the nodes.
//!
//! | found | counted as |
//! |---|---|
//! | an answered request that is not in a node's log at the position that the answer named | lost |
//! | a request that the logic did more than once, by the log, or that was answered more than once | duplicated |
//! | an answer with another code, or other outputs, than the log gives when it is run again | wrong |
//! | a session whose requests are in the log, or were answered, in another order than they were asked | reordered |
//! | an answer from a place in the log before one that was answered before this was asked | stale |
//! | two nodes whose logs differ in a frame that both have | differing |
//!
//! The last but one is what makes a history linearizable: what was done is one order, that of the log, each
//! answer is the one of its place, and that order contains the order of real time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lockstep_engine::event::{SYSTEM_KINDS, Slot as _};
use lockstep_engine::replay::{Range, Replay};
use lockstep_engine::system::code;
use lockstep_exchange::exchange::Exchange;
use lockstep_journaler::storage::Disk;
use lockstep_journaler::{From, Reader};

use super::load::{Answered, digest};
use crate::verb::node::fresh;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) wrong: u64,
    pub(super) reordered: u64,
    pub(super) stale: u64,
    pub(super) differing: u64,
    /// The first few findings, in words.
    pub(super) findings: Vec<String>,
}

/// Findings that are told in words.
const TOLD_MAX: usize = 5;

impl Checked {
    fn find(&mut self, what: impl FnOnce() -> String) {
        if self.findings.len() < TOLD_MAX {
            self.findings.push(what());
        }
    }
}

/// A request that the logic did, by a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    session: u64,
    number: u32,
    position: u64,
    code: u16,
    /// Of the outputs.
    digest: u64,
}

/// The log of a node.
#[derive(Debug, Clone)]
struct Log {
    name: String,
    /// The positions that it can say anything of: what was in front of them was given up, or before its time.
    span: std::ops::Range<u64>,
    /// In the log's order.
    done: Vec<Done>,
    /// The index of its first frame.
    first_frame: u64,
    /// The checksum of each frame's header, which covers its events and all before it.
    frames: Vec<u32>,
}

/// Checks all logs; the nodes have ended, those that are gone earlier than the others.
pub(super) fn check(
    directories: &[PathBuf],
    gone: &[PathBuf],
    answered: &[Answered],
) -> anyhow::Result<Checked> {
    let mut logs = Vec::new();
    for directory in directories.iter().chain(gone) {
        logs.push(Log::read(directory)?);
    }
    for log in &mut logs[..directories.len()] {
        // Who was there until the end has all that is behind its beginning.
        log.span.end = u64::MAX;
    }
    Ok(judge(&logs, answered))
}

/// Everything that a history can be wrong in, of logs that were read.
fn judge(logs: &[Log], answered: &[Answered]) -> Checked {
    let mut checked = Checked::default();
    for log in logs {
        judge_log(log, answered, &mut checked);
    }
    judge_answers(answered, &mut checked);
    judge_time(answered, &mut checked);
    for log in logs.iter().skip(1) {
        let (one, other) = (&logs[0], log);
        let first = one.first_frame.max(other.first_frame);
        let mut both = one.frames_from(first).zip(other.frames_from(first));
        if let Some(at) = both.position(|(one, other)| one != other) {
            let frame = first + at as u64;
            checked.differing += 1;
            checked.find(|| format!("{} and {} differ in frame {frame}", one.name, other.name));
        }
    }
    checked
}

/// A log by itself, and each answer against it.
fn judge_log(log: &Log, answered: &[Answered], checked: &mut Checked) {
    let name = &log.name;
    let mut done: BTreeMap<(u64, u32), Done> = BTreeMap::new();
    let mut newest: BTreeMap<u64, u32> = BTreeMap::new();
    for one in &log.done {
        let (session, number, position) = (one.session, one.number, one.position);
        if let Some(before) = done.insert((session, number), *one) {
            checked.duplicated += 1;
            checked.find(|| {
                let first = before.position;
                format!("{name}: session {session}, request {number} was done at {first} and at {position}")
            });
            // The answer that counts is the first one.
            done.insert((session, number), before);
            continue;
        }
        let newest = newest.entry(session).or_default();
        if number < *newest {
            checked.reordered += 1;
            checked.find(|| {
                format!("{name}: session {session}, request {number} was done at {position}, behind request {newest}")
            });
        }
        *newest = number.max(*newest);
    }
    for answer in answered {
        let (session, number, position) = (answer.session, answer.number, answer.position);
        if !log.span.contains(&position) {
            continue;
        }
        let found = done.get(&(session, number));
        let Some(found) = found.filter(|found| found.position == position) else {
            checked.lost += 1;
            checked.find(|| {
                let at = found.map(|found| found.position);
                format!("{name}: session {session}, request {number} was answered at position {position}, in the log it is at {at:?}")
            });
            continue;
        };
        let is_same_output = answer.digest.is_none_or(|digest| digest == found.digest);
        if answer.code != found.code || !is_same_output {
            checked.wrong += 1;
            checked.find(|| {
                let (told, code) = (answer.code, found.code);
                format!("{name}: session {session}, request {number} was answered with code {told}, by the log it is {code}; outputs equal: {is_same_output}")
            });
        }
    }
}

/// What each session was told: every number once, and rising.
fn judge_answers(answered: &[Answered], checked: &mut Checked) {
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
    for answer in answered {
        let (session, number) = (answer.session, answer.number);
        if !seen.insert((session, number)) {
            checked.duplicated += 1;
            checked.find(|| format!("session {session}, request {number} was answered twice"));
            continue;
        }
        let now = (number, answer.position);
        let before = newest.insert(session, now);
        if let Some(before) = before.filter(|before| before.0 >= now.0 || before.1 >= now.1) {
            checked.reordered += 1;
            checked.find(|| {
                format!(
                    "session {session} was answered (request, position) {now:?} behind {before:?}"
                )
            });
        }
    }
}

/// Whoever asks when another has its answer comes behind it in the log.
fn judge_time(answered: &[Answered], checked: &mut Checked) {
    let mut by_answer: Vec<&Answered> = answered.iter().collect();
    by_answer.sort_by(|one, other| one.at.total_cmp(&other.at));
    let mut by_question: Vec<&Answered> = answered.iter().collect();
    by_question.sort_by(|one, other| one.asked.total_cmp(&other.asked));
    let mut answers = by_answer.into_iter().peekable();
    let mut furthest: Option<&Answered> = None;
    for question in by_question {
        // Ends: with an answer that came later, or with the answers.
        while let Some(answer) = answers.next_if(|answer| answer.at < question.asked) {
            if furthest.is_none_or(|furthest| answer.position > furthest.position) {
                furthest = Some(answer);
            }
        }
        if let Some(before) = furthest.filter(|before| before.position >= question.position) {
            checked.stale += 1;
            checked.find(|| {
                format!(
                    "session {}, request {} is at position {}, though {} was answered before it was asked",
                    question.session, question.number, question.position, before.position
                )
            });
        }
    }
}

impl Log {
    fn read(directory: &Path) -> anyhow::Result<Self> {
        let (span, done) = done_by(directory)?;
        let (first_frame, frames) = frames_of(directory)?;
        Ok(Self {
            name: directory.display().to_string(),
            span,
            done,
            first_frame,
            frames,
        })
    }

    fn frames_from(&self, first: u64) -> impl Iterator<Item = &u32> {
        let skipped = usize::try_from(first - self.first_frame).unwrap_or(usize::MAX);
        self.frames.iter().skip(skipped)
    }
}

/// Which request was done where, and what came of it, by running the log through the logic again, from its
/// first snapshot where its beginning was given up; and which positions that were.
fn done_by(directory: &Path) -> anyhow::Result<(std::ops::Range<u64>, Vec<Done>)> {
    let context = || format!("the log of {}", directory.display());
    let mut replay =
        Replay::<Exchange>::open(directory, fresh, Range::default()).with_context(context)?;
    let first = replay.core().position().0;
    let mut done = Vec::new();
    // Ends: with the log.
    while let Some(stepped) = replay.step().with_context(context)? {
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
        let outputs = stepped.outputs.iter();
        let outputs = outputs.filter(|output| output.output().kind < SYSTEM_KINDS);
        let bytes: Vec<u8> = outputs
            .flat_map(|output| bytemuck::bytes_of(output).iter().copied())
            .collect();
        done.push(Done {
            session: header.session,
            number: header.request,
            position: stepped.position.0,
            code: stepped.outcome.code,
            digest: digest(&bytes),
        });
    }
    Ok((first..replay.core().position().0, done))
}

/// The index of the first frame, and the seal of each.
fn frames_of(directory: &Path) -> anyhow::Result<(u64, Vec<u32>)> {
    let mut reader = Reader::open(Disk::at(directory)?, From::Oldest)?;
    let mut first = None;
    let mut frames = Vec::new();
    // Ends: with the log.
    while let Some(frame) = reader.next_frame()? {
        first.get_or_insert(frame.header().index);
        frames.push(frame.header().header_crc());
    }
    Ok((first.unwrap_or(0), frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sessions that take turns: session 10 has the even positions, 20 the odd ones.
    fn history() -> (Vec<Log>, Vec<Answered>) {
        let done: Vec<Done> = (0..20)
            .map(|position| Done {
                session: if position % 2 == 0 { 10 } else { 20 },
                number: u32::try_from(position / 2 + 2).unwrap(),
                position,
                code: u16::from(position == 7),
                digest: position * 31,
            })
            .collect();
        let answered = done.iter().map(|done| {
            let asked = done.position as f64;
            Answered {
                session: done.session,
                number: done.number,
                position: done.position,
                code: done.code,
                digest: Some(done.digest),
                due: asked,
                asked,
                at: asked + 1.5,
            }
        });
        let answered = answered.collect();
        let frames: Vec<u32> = (0..20).collect();
        let log = |node| Log {
            name: format!("node{node}"),
            span: 0..u64::MAX,
            done: done.clone(),
            first_frame: 0,
            frames: frames.clone(),
        };
        ([log(1), log(2), log(3)].to_vec(), answered)
    }

    /// What is found when this is planted.
    fn planted(plant: impl FnOnce(&mut Vec<Log>, &mut Vec<Answered>)) -> Checked {
        let (mut logs, mut answered) = history();
        plant(&mut logs, &mut answered);
        let checked = judge(&logs, &answered);
        let faults = [
            checked.lost,
            checked.duplicated,
            checked.wrong,
            checked.reordered,
            checked.stale,
            checked.differing,
        ];
        let is_right = faults.iter().sum::<u64>() == 0;
        assert_eq!(is_right, checked.findings.is_empty(), "{checked:?}");
        checked
    }

    #[test]
    fn a_history_without_a_fault_is_right() {
        assert_eq!(planted(|_, _| {}), Checked::default());
        // Answered again after a failover: without outputs.
        let repeated = planted(|_, answered| answered[4].digest = None);
        assert_eq!(repeated, Checked::default());
        // Done, and never answered: the drill counts it as unanswered, it is not lost.
        let unanswered = planted(|_, answered| {
            answered.remove(5);
        });
        assert_eq!(unanswered, Checked::default());
        // A node that ended earlier than the others has a shorter log.
        let shorter = planted(|logs, _| {
            logs[1].frames.pop();
        });
        assert_eq!(shorter, Checked::default());
    }

    #[test]
    fn a_log_says_nothing_of_what_it_gave_up_or_of_what_came_when_it_was_gone() {
        let part = |logs: &mut Vec<Log>| {
            logs[2].span = 5..12;
            logs[2].done = logs[2].done.drain(5..12).collect();
            logs[2].first_frame = 5;
            logs[2].frames = logs[2].frames.drain(5..12).collect();
        };
        assert_eq!(planted(|logs, _| part(logs)), Checked::default());
        let lost = planted(|logs, _| {
            part(logs);
            logs[2].done.remove(3);
        });
        assert_eq!(lost.lost, 1);
        let differs = planted(|logs, _| {
            part(logs);
            logs[2].frames[4] ^= 1;
        });
        assert_eq!(differs.findings, ["node1 and node3 differ in frame 9"]);
    }

    #[test]
    fn an_answer_that_one_log_lacks_is_lost() {
        let checked = planted(|logs, _| {
            logs[2].done.remove(6);
        });
        assert_eq!(checked.lost, 1);
        assert!(checked.findings[0].contains("node3: session 10, request 5"));
        let moved = planted(|logs, _| logs[1].done[6].position = 60);
        assert_eq!(moved.lost, 1);
        let all = planted(|logs, _| logs[0].done.clear());
        assert_eq!((all.lost, all.findings.len()), (20, TOLD_MAX));
    }

    #[test]
    fn what_is_done_or_answered_twice_is_found() {
        let done = planted(|logs, _| {
            let again = Done {
                position: 90,
                ..logs[0].done[3]
            };
            logs[0].done.push(again);
        });
        assert_eq!(done.duplicated, 1);
        assert_eq!(done.lost, 0, "the first one counts");
        let answered = planted(|_, answered| answered.push(answered[3]));
        assert_eq!(answered.duplicated, 1);
        // And differently: both are found.
        let differently = planted(|_, answered| {
            answered.push(Answered {
                code: 9,
                ..answered[3]
            });
        });
        assert_eq!((differently.duplicated, differently.wrong), (1, 3));
    }

    #[test]
    fn an_answer_that_the_log_does_not_give_is_wrong() {
        let code = planted(|_, answered| answered[7].code = 0);
        assert_eq!(code.wrong, 3, "by each log");
        let outputs = planted(|_, answered| answered[7].digest = Some(1));
        assert_eq!(outputs.wrong, 3);
        let one = planted(|logs, _| logs[2].done[7].digest = 1);
        assert_eq!(one.wrong, 1);
    }

    #[test]
    fn another_order_within_a_session_is_found() {
        let log = planted(|logs, _| {
            let (one, other) = (logs[0].done[4].number, logs[0].done[6].number);
            logs[0].done[4].number = other;
            logs[0].done[6].number = one;
        });
        assert_eq!((log.reordered, log.lost), (1, 2));
        let told = planted(|_, answered| answered.swap(4, 6));
        assert_eq!(told.reordered, 1);
    }

    #[test]
    fn an_answer_from_the_past_is_stale() {
        // Asked when position 9 had been answered long ago, and answered from position 8.
        let checked = planted(|_, answered| {
            answered[8].asked = 40.0;
            answered[8].at = 41.0;
        });
        assert_eq!(checked.stale, 1);
        // At the same time as the other: any order will do.
        let together = planted(|_, answered| answered[8].at = 10.9);
        assert_eq!(together.stale, 0);
    }

    #[test]
    fn logs_that_differ_are_found() {
        let checked = planted(|logs, _| logs[2].frames[12] ^= 1);
        assert_eq!(checked.differing, 1);
        assert_eq!(checked.findings, ["node1 and node3 differ in frame 12"]);
    }
}
