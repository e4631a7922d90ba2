//! What a tune has measured so far, a line each: one that was interrupted goes on from there.
//!
//! The way of a tune is settled by its command line, its seed, and what it measures. One that
//! is resumed goes the same way again, and takes what stands here instead of measuring it.
//!
//! # Invariants
//!
//! * `N1` What was measured is in the file before anything else is measured.
//! * `N2` Outcomes are taken in the order in which they were written, each by the
//!   configuration that it was measured of.
//! * `N3` A last line that was cut short is measured again.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lockstep_perf::exit::Refusal;
use serde::{Deserialize, Serialize};

use super::candidate::Outcome;

/// The file, in the directory of the result that it is to become.
pub(super) const FILE: &str = "measured.jsonl";

/// What has to be the same for outcomes to be taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The version of this file.
    pub(super) tune: u32,
    /// The command line, without the program's name.
    pub(super) argv: Vec<String>,
    /// What it came to, with file and environment.
    pub(super) asked: String,
    /// Of the machine.
    pub(super) fingerprint: String,
    /// Which program measured.
    pub(super) program: String,
}

/// The version that is written and read.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    configuration: String,
    outcome: Outcome,
}

/// The file, and what of it was not taken yet.
#[derive(Debug)]
pub(super) struct Notebook {
    home: PathBuf,
    head: Head,
    file: Option<File>,
    ahead: VecDeque<Line>,
    taken: usize,
}

impl Notebook {
    /// An empty one; its file is there when the first outcome is.
    pub(super) fn new(home: PathBuf, head: Head) -> Self {
        Self {
            home,
            head,
            file: None,
            ahead: VecDeque::new(),
            taken: 0,
        }
    }

    /// One that was left behind: in this directory, or for `last` in the newest below `out`.
    pub(super) fn find(out: &Path, name: &str) -> anyhow::Result<Self> {
        let named = PathBuf::from(name);
        let home = match name {
            "last" if !named.join(FILE).is_file() => newest(out),
            _ => Some(named),
        };
        let Some(home) = home.filter(|home| home.join(FILE).is_file()) else {
            return Err(Refusal::environment(
                format!("--resume {name}: no tune that was interrupted"),
                format!(
                    "a directory with {FILE}, as an interrupted tune names it, or last for the newest in {}",
                    out.display()
                ),
            )
            .into());
        };
        Self::read(home)
    }

    fn read(home: PathBuf) -> anyhow::Result<Self> {
        let path = home.join(FILE);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // N3: what has no end of line was not written whole.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines();
        let bad = |number: usize, error: &dyn std::fmt::Display| {
            Refusal::environment(
                format!("{}: line {number}: {error}", path.display()),
                "lockstep tune without --resume begins anew",
            )
        };
        let head = lines.next().unwrap_or("");
        let head: Head = serde_json::from_str(head).map_err(|error| bad(1, &error))?;
        if head.tune != VERSION {
            let words = format!("version {}, this lockstep reads {VERSION}", head.tune);
            return Err(bad(1, &words).into());
        }
        let outcomes = lines.enumerate().map(|(index, line)| {
            serde_json::from_str::<Line>(line).map_err(|error| bad(index + 2, &error))
        });
        let ahead: VecDeque<Line> = outcomes.collect::<Result<_, _>>()?;
        // What was cut short goes, so that the next line begins where a line begins.
        let length = (whole.len() + 1) as u64;
        let file = File::options().append(true).open(&path);
        let file = file.and_then(|file| file.set_len(length).map(|()| file));
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            home,
            head,
            file: Some(file),
            ahead,
            taken: 0,
        })
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Outcomes that are there to be taken.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Whether there is something to go on from.
    pub(super) fn is_written(&self) -> bool {
        self.file.is_some()
    }

    /// Refuses what was measured of something else, elsewhere, or by another program.
    pub(super) fn check(&self, now: &Head) -> Result<(), Refusal> {
        let (then, home) = (&self.head, self.home.display());
        for (what, then, now, hint) in [
            (
                "program",
                &then.program,
                &now.program,
                "the program that began it",
            ),
            (
                "machine",
                &then.fingerprint,
                &now.fingerprint,
                "the machine, kernel and CPUs that it began on",
            ),
            (
                "command line, file or environment",
                &then.asked,
                &now.asked,
                "the file of --config and the LOCKSTEP_ variables as they were",
            ),
        ] {
            if then != now {
                return Err(Refusal::environment(
                    format!("--resume {home}: another {what} than when it was begun"),
                    format!("{hint}; or lockstep tune without --resume"),
                ));
            }
        }
        Ok(())
    }

    /// N2: what was measured of this configuration at this point, if it was.
    pub(super) fn take(&mut self, configuration: &str) -> Result<Option<Outcome>, Refusal> {
        let Some(line) = self.ahead.pop_front() else {
            return Ok(None);
        };
        self.taken += 1;
        if line.configuration == configuration {
            return Ok(Some(line.outcome));
        }
        Err(Refusal::environment(
            format!(
                "{}: line {} is of {:?}, expected {configuration:?}",
                self.home.join(FILE).display(),
                self.taken + 1,
                line.configuration
            ),
            "lockstep tune without --resume begins anew",
        ))
    }

    /// N1.
    pub(super) fn note(&mut self, configuration: &str, outcome: &Outcome) -> anyhow::Result<()> {
        let path = self.home.join(FILE);
        let line = Line {
            configuration: configuration.to_owned(),
            outcome: *outcome,
        };
        let mut text = String::new();
        if self.file.is_none() {
            text = serde_json::to_string(&self.head)? + "\n";
            fs::create_dir_all(&self.home)
                .with_context(|| format!("cannot create {}", self.home.display()))?;
            let file = File::options().create_new(true).append(true).open(&path);
            self.file = Some(file.with_context(|| format!("cannot create {}", path.display()))?);
        }
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
        let written = self
            .file
            .as_mut()
            .map(|file| file.write_all(text.as_bytes()));
        written
            .transpose()
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// The result has everything: nothing is left to go on from.
    pub(super) fn close(self) -> anyhow::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let path = self.home.join(FILE);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }
}

/// The newest directory with a notebook; their names begin with the second.
fn newest(out: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(out).ok()?.flatten();
    let homes = entries.map(|entry| entry.path());
    homes.filter(|home| home.join(FILE).is_file()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            tune: VERSION,
            argv: vec!["tune".to_owned()],
            asked: "all".to_owned(),
            fingerprint: "here".to_owned(),
            program: "this".to_owned(),
        }
    }

    fn outcome(score: f64) -> Outcome {
        Outcome {
            score,
            p50: Some(1),
            p99: None,
            p999: None,
            cpus: 0.5,
        }
    }

    fn written(name: &str) -> PathBuf {
        let id = std::process::id();
        let home = std::env::temp_dir().join(format!("lockstep-notebook-{name}-{id}"));
        let mut notebook = Notebook::new(home.clone(), head());
        assert!(!notebook.is_written() && !home.exists());
        notebook.note("a", &outcome(7.0)).unwrap();
        notebook.note("b", &outcome(f64::INFINITY)).unwrap();
        home
    }

    #[test]
    fn n2_outcomes_come_back_in_their_order_and_only_to_their_own() {
        let home = written("order");
        let mut again = Notebook::find(&home, home.to_str().unwrap()).unwrap();
        assert_eq!((again.head(), again.ahead()), (&head(), 2));
        assert_eq!(again.take("a").unwrap(), Some(outcome(7.0)));
        let refusal = again.take("c").unwrap_err();
        assert!(
            refusal.what.ends_with("line 3 is of \"b\", expected \"c\""),
            "{refusal}"
        );
        let mut again = Notebook::find(&home, home.to_str().unwrap()).unwrap();
        again.take("a").unwrap();
        assert_eq!(again.take("b").unwrap(), Some(outcome(f64::INFINITY)));
        assert_eq!(
            again.take("c").unwrap(),
            None,
            "that is still to be measured"
        );
        again.close().unwrap();
        assert!(!home.join(FILE).exists());
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn n3_a_line_that_was_cut_short_is_measured_again() {
        let home = written("torn");
        let whole = fs::read_to_string(home.join(FILE)).unwrap();
        for cut in 1..20 {
            fs::write(home.join(FILE), &whole[..whole.len() - cut]).unwrap();
            let mut again = Notebook::find(&home, home.to_str().unwrap()).unwrap();
            assert_eq!(again.ahead(), 1, "{cut}");
            again.take("a").unwrap();
            again.note("b", &outcome(f64::INFINITY)).unwrap();
            assert_eq!(fs::read_to_string(home.join(FILE)).unwrap(), whole);
        }
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn what_was_measured_elsewhere_is_refused_by_name() {
        let home = written("elsewhere");
        let again = Notebook::find(&home, home.to_str().unwrap()).unwrap();
        assert!(again.check(&head()).is_ok());
        let elsewhere = Head {
            fingerprint: "there".to_owned(),
            ..head()
        };
        let refusal = again.check(&elsewhere).unwrap_err();
        assert!(
            refusal
                .what
                .ends_with("another machine than when it was begun"),
            "{refusal}"
        );
        fs::remove_dir_all(&home).unwrap();
        let nothing = Notebook::find(&home, "last").unwrap_err().to_string();
        assert!(
            nothing.contains("no tune that was interrupted"),
            "{nothing}"
        );
    }
}
