//! What a user asks of placement and waiting, before the machine is looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use lockstep_engine::{GateAt, JournalMode, JournalThread};
use lockstep_ringbuffer::Wait;

use crate::exit::Refusal;
use crate::machine::cpu_list;

/// `--pin`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pin {
    /// Near each other, no siblings.
    #[default]
    Auto,
    /// The scheduler decides.
    None,
    /// One CPU after the other: generators first, then the threads of the stages.
    List(Vec<u32>),
    /// By role: `producer`, `producer1`, `stage0`.
    Roles(BTreeMap<String, Vec<u32>>),
}

impl Pin {
    /// Reads it; `allowed` is what `!N` leaves out from.
    ///
    /// # Errors
    ///
    /// Says which part is wrong.
    pub fn parse(text: &str, allowed: &[u32]) -> Result<Self, Refusal> {
        match text {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let list = |part: &str| {
            cpu_list::parse(part, allowed)
                .map_err(|bad| Refusal::usage(format!("--pin {part:?}: {}", bad.reason), bad.hint))
        };
        if !text.contains('=') {
            return list(text).map(Self::List);
        }
        let mut parts: Vec<(String, String)> = Vec::new();
        for word in text.split(',').map(str::trim) {
            match (word.split_once('='), parts.last_mut()) {
                (Some((role, cpus)), _) => parts.push((plain(role), cpus.to_owned())),
                (None, Some((_, cpus))) => {
                    cpus.push(',');
                    cpus.push_str(word);
                }
                (None, None) => {
                    return Err(Refusal::usage(
                        format!("--pin {text:?}: {word:?} stands before any role"),
                        "--pin producer=0,stage0=1",
                    ));
                }
            }
        }
        let mut roles = BTreeMap::new();
        for (role, cpus) in parts {
            if roles.insert(role.clone(), list(&cpus)?).is_some() {
                return Err(Refusal::usage(
                    format!("--pin names {role} twice"),
                    "one list for each role",
                ));
            }
        }
        Ok(Self::Roles(roles))
    }
}

/// `--pin-policy`: which CPUs `--pin auto` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// As near each other as there is room, a core each.
    #[default]
    Near,
    /// As far from each other as the machine allows.
    Far,
    /// Hardware threads of the same cores.
    Smt,
    /// All behind one last-level cache, a core each; refused where none is large enough.
    L3,
    /// All on this NUMA node, a core each; refused where it is too small.
    Node(u32),
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let node = || text.strip_prefix("node:")?.parse().ok();
        match text {
            "near" => Ok(Self::Near),
            "far" => Ok(Self::Far),
            "smt" => Ok(Self::Smt),
            "l3" => Ok(Self::L3),
            _ => node()
                .map(Self::Node)
                .ok_or_else(|| format!("{text:?} is no policy: near, far, smt, l3, node:N")),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Near => f.write_str("near"),
            Self::Far => f.write_str("far"),
            Self::Smt => f.write_str("smt"),
            Self::L3 => f.write_str("l3"),
            Self::Node(node) => write!(f, "node:{node}"),
        }
    }
}

/// What the engine keeps of its events, and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What the journal promises.
    pub mode: JournalMode,
    /// Who waits for that promise.
    pub gate: GateAt,
    /// Where a sync blocks.
    pub thread: JournalThread,
    /// Below which directory; none: below the system's temporary one.
    pub directory: Option<PathBuf>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            mode: JournalMode::Sync,
            gate: GateAt::Logic,
            thread: JournalThread::Auto,
            directory: None,
        }
    }
}

impl Log {
    /// `none`, `async`, `sync`, `direct`.
    ///
    /// # Errors
    ///
    /// Says what there is.
    pub fn mode(text: &str) -> Result<JournalMode, String> {
        match text {
            "none" => Ok(JournalMode::None),
            "async" => Ok(JournalMode::Async),
            "sync" => Ok(JournalMode::Sync),
            "direct" => Ok(JournalMode::Direct),
            _ => Err(format!(
                "{text:?} is no journal: none, async, sync, direct (--journal-dir says where)"
            )),
        }
    }

    /// `logic` or `output`.
    ///
    /// # Errors
    ///
    /// Says what there is.
    pub fn gate(text: &str) -> Result<GateAt, String> {
        match text {
            "logic" => Ok(GateAt::Logic),
            "output" => Ok(GateAt::Output),
            _ => Err(format!("{text:?} is no gate: logic, output")),
        }
    }

    /// `auto`, `inline` or `worker`.
    ///
    /// # Errors
    ///
    /// Says what there is.
    pub fn thread(text: &str) -> Result<JournalThread, String> {
        match text {
            "auto" => Ok(JournalThread::Auto),
            "inline" => Ok(JournalThread::Inline),
            "worker" => Ok(JournalThread::Worker),
            _ => Err(format!(
                "{text:?} is no place for a sync: auto, inline, worker"
            )),
        }
    }

    /// As it is written in flags and in the engine's configuration.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            JournalMode::None => "none",
            JournalMode::Async => "async",
            JournalMode::Sync => "sync",
            JournalMode::Direct => "direct",
        }
    }

    /// As it is written.
    #[must_use]
    pub fn gate_name(&self) -> &'static str {
        match self.gate {
            GateAt::Logic => "logic",
            GateAt::Output => "output",
        }
    }

    /// As it is written.
    #[must_use]
    pub fn thread_name(&self) -> &'static str {
        match self.thread {
            JournalThread::Auto => "auto",
            JournalThread::Inline => "inline",
            JournalThread::Worker => "worker",
        }
    }

    /// What an event has behind it when it counts as done.
    #[must_use]
    pub fn acknowledged(&self) -> &'static str {
        match (self.mode, self.gate) {
            (JournalMode::None, _) => "applied, its output out; nothing is kept",
            (JournalMode::Async, _) => {
                "written, applied, its output out; a power cut loses the last 100 ms or 16 MiB"
            }
            (JournalMode::Sync, GateAt::Logic) => {
                "durable (fdatasync), then applied, its output out"
            }
            (JournalMode::Sync, GateAt::Output) => "applied, durable (fdatasync), its output out",
            (JournalMode::Direct, GateAt::Logic) => {
                "durable (O_DIRECT, RWF_DSYNC), then applied, its output out"
            }
            (JournalMode::Direct, GateAt::Output) => {
                "applied, durable (O_DIRECT, RWF_DSYNC), its output out"
            }
        }
    }
}

/// `stage[0]` is `stage0`.
fn plain(role: &str) -> String {
    role.trim().replace(['[', ']'], "")
}

/// `--place`: which stages share a thread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// As many threads as there are CPUs for.
    #[default]
    Auto,
    /// These groups.
    Groups(Vec<Vec<String>>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let groups: Vec<Vec<String>> = text
            .split(',')
            .map(|group| group.split('+').map(plain).collect())
            .collect();
        if groups.iter().flatten().any(String::is_empty) {
            return Err(format!(
                "{text:?}: as in stage0+stage1,stage2: + shares a thread"
            ));
        }
        Ok(Self::Groups(groups))
    }
}

/// `--wait`: one for all, or by role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waits {
    /// For everybody who is not named.
    pub all: Option<Wait>,
    /// By role.
    pub roles: BTreeMap<String, Wait>,
}

impl Waits {
    /// What `role` was asked to do.
    #[must_use]
    pub fn of(&self, role: &str) -> Wait {
        let named = self.named(role).or(self.all);
        named.unwrap_or(Wait::Auto)
    }

    /// The same, if it was named itself or by its kind.
    #[must_use]
    pub fn named(&self, role: &str) -> Option<Wait> {
        let own = self.roles.get(role);
        own.or_else(|| self.roles.get(Self::kind(role))).copied()
    }

    /// `stage` of `stage3`.
    #[must_use]
    pub fn kind(role: &str) -> &str {
        role.trim_end_matches(|c: char| c.is_ascii_digit())
    }
}

impl FromStr for Waits {
    type Err = String;

    /// `spin`, `backoff:1,2,3`, `stage0=spin,producer=yield:10`. Numbers after a comma belong
    /// to the strategy before them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts: Vec<String> = Vec::new();
        for word in text.split(',') {
            match parts.last_mut() {
                Some(last) if word.bytes().all(|b| b.is_ascii_digit()) && !word.is_empty() => {
                    last.push(',');
                    last.push_str(word);
                }
                _ => parts.push(word.trim().to_owned()),
            }
        }
        let mut waits = Self::default();
        for part in parts {
            let read = |text: &str| text.parse::<Wait>().map_err(|error| error.to_string());
            match part.split_once('=') {
                Some((role, wait)) => {
                    waits.roles.insert(plain(role), read(wait)?);
                }
                None if waits.all.is_none() => waits.all = Some(read(&part)?),
                None => return Err(format!("{text:?} names two strategies for everybody")),
            }
        }
        Ok(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_lists_or_roles() {
        assert_eq!(Pin::parse("0-2", &[]).unwrap(), Pin::List(vec![0, 1, 2]));
        let roles = BTreeMap::from([
            ("producer".to_owned(), vec![0, 1]),
            ("stage0".to_owned(), vec![3]),
        ]);
        assert_eq!(
            Pin::parse("producer=0,1,stage[0]=3", &[]).unwrap(),
            Pin::Roles(roles)
        );
        let refusal = Pin::parse("2-1", &[]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "--pin \"2-1\": range runs backwards\n  hint: 1-2"
        );
        assert!(Pin::parse("0,stage0=1", &[]).is_err());
        assert!(Pin::parse("stage0=1,stage0=2", &[]).is_err());
    }

    #[test]
    fn waits_are_for_all_or_by_role() {
        let waits: Waits = "yield:5,stage1=spin,producer=backoff:1,2,3"
            .parse()
            .unwrap();
        assert_eq!(waits.of("stage0"), Wait::Yield { spins: 5 });
        assert_eq!(waits.of("stage1"), Wait::Spin);
        assert_eq!(waits.of("producer0").to_string(), "backoff:1,2,3");
        assert!("spin,yield".parse::<Waits>().is_err());
        assert!("fast".parse::<Waits>().is_err());
    }

    #[test]
    fn places_are_groups() {
        let place: Place = "stage0+stage[1],stage2".parse().unwrap();
        let groups = vec![
            vec!["stage0".to_owned(), "stage1".to_owned()],
            vec!["stage2".to_owned()],
        ];
        assert_eq!(place, Place::Groups(groups));
        assert!("stage0+".parse::<Place>().is_err());
    }
}
