//! Where results are kept, and how they are found again: `last`, `last~1`, a label, a path.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::result::Document;
use crate::exit::Refusal;

/// Where results go unless another place is named.
pub const DIRECTORY: &str = "lockstep-results";

/// The file in each result's directory.
pub const FILE: &str = "result.json";

/// A moment in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    ms_since_1970: u64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            ms_since_1970: u64::try_from(since.as_millis()).unwrap_or(0),
        }
    }

    /// `2026-11-23T06:12:00.123Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time();
        let ms = self.ms_since_1970 % 1000;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }

    /// `20261123-061200`.
    #[must_use]
    pub fn compact(self) -> String {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time();
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }

    fn time(self) -> (u64, u64, u64) {
        let seconds = self.ms_since_1970 / 1000 % 86_400;
        (seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    /// The civil date, by counting in eras of 400 years that begin on the 1st of March.
    fn date(self) -> (u64, u64, u64) {
        let days = self.ms_since_1970 / 86_400_000 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        (year, month, day)
    }
}

/// A directory of its own for a result below `directory`, which is not there yet.
#[must_use]
pub fn home(directory: &Path, document: &Document) -> PathBuf {
    let mut name = format!("{}-{}", Moment::now().compact(), document.verb);
    if !document.label.is_empty() {
        name.push('-');
        name.extend(
            document
                .label
                .chars()
                .map(|c| if c.is_alphanumeric() { c } else { '_' }),
        );
    }
    let mut home = directory.join(&name);
    let mut again = 1;
    // Ends: there are fewer results of one second than numbers.
    while home.exists() {
        again += 1;
        home = directory.join(format!("{name}-{again}"));
    }
    home
}

/// Writes a result into its directory.
///
/// # Errors
///
/// When it cannot be written.
pub fn save(home: &Path, document: &Document) -> anyhow::Result<()> {
    fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
    write(&home.join(FILE), &document.to_json()?)
}

/// More than a result and its page take, mostly.
const ROOM_BYTES: usize = 256 << 10;

/// Whether results can be kept below `directory`; asked before anything is measured.
///
/// # Errors
///
/// Why they cannot.
pub fn check(directory: &Path) -> Result<(), Refusal> {
    let probe = directory.join(format!(".lockstep-{}", std::process::id()));
    let tried = fs::create_dir_all(directory).and_then(|()| {
        // A full disk takes a name, and no bytes.
        let written = fs::write(&probe, vec![0; ROOM_BYTES]);
        let removed = fs::remove_file(&probe);
        written.and(removed)
    });
    tried.map_err(|error| {
        Refusal::environment(
            format!(
                "--out {}: no result can be kept there: {error}",
                directory.display()
            ),
            "--out another directory, or --no-save",
        )
    })
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // Half a file is of no use, and a full disk wants the room.
        let _gone = fs::remove_file(&aside);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Finds results by what a user calls them: a file, a directory, `last`, `last~N`, `latest`,
/// or a label, which means all results that carry it.
///
/// # Errors
///
/// When there is none, with what there is.
pub fn find(directory: &Path, name: &str) -> anyhow::Result<Vec<(PathBuf, Document)>> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok(vec![(path.to_owned(), load(path)?)]);
    }
    if path.join(FILE).is_file() {
        let path = path.join(FILE);
        let document = load(&path)?;
        return Ok(vec![(path, document)]);
    }
    let all = list(directory);
    let back = match name {
        "last" | "latest" => Some(0),
        _ => name
            .strip_prefix("last~")
            .and_then(|n| n.parse::<usize>().ok()),
    };
    if let Some(back) = back {
        let found = all
            .len()
            .checked_sub(back + 1)
            .and_then(|index| all.get(index));
        let path = found.ok_or_else(|| {
            Refusal::environment(
                format!("{name}: {} results in {}", all.len(), directory.display()),
                "lockstep latency makes one; or name a file",
            )
        })?;
        return Ok(vec![(path.clone(), load(path)?)]);
    }
    labelled(directory, &all, name)
}

fn labelled(
    directory: &Path,
    all: &[PathBuf],
    name: &str,
) -> anyhow::Result<Vec<(PathBuf, Document)>> {
    let mut labels: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for path in all {
        // What cannot be read is no candidate for a label.
        let Ok(document) = load(path) else { continue };
        if document.label == name {
            found.push((path.clone(), document));
        } else if !document.label.is_empty() && !labels.contains(&document.label) {
            labels.push(document.label);
        }
    }
    if found.is_empty() {
        let known = if labels.is_empty() {
            "last, last~N, or the path of a result.json".to_owned()
        } else {
            format!("last, last~N, a path, or a label: {}", labels.join(", "))
        };
        return Err(Refusal::environment(
            format!(
                "{name:?} is no file, and no result in {} has that label",
                directory.display()
            ),
            known,
        )
        .into());
    }
    Ok(found)
}

/// Reads one result.
///
/// # Errors
///
/// When it cannot be read, with its path.
pub fn load(path: &Path) -> anyhow::Result<Document> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Document::from_json(&text).map_err(|error| {
        Refusal::environment(
            format!("{}: {error:#}", path.display()),
            "a file that this version of lockstep has written",
        )
        .into()
    })
}

/// All results below a directory, oldest first: their names begin with the second, and of one
/// second the files tell.
fn list(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path().join(FILE))
        .filter(|path| path.is_file())
        .collect();
    files.sort_by_cached_key(|path| {
        let name = path.parent().and_then(Path::file_name).unwrap_or_default();
        let second: String = name.to_string_lossy().chars().take(SECOND).collect();
        let written = fs::metadata(path).and_then(|found| found.modified()).ok();
        (second, written)
    });
    files
}

/// Characters of `20261123-061200`.
const SECOND: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_one_second_stand_in_the_order_they_were_written() {
        let home = std::env::temp_dir().join(format!("lockstep-list-{}", std::process::id()));
        let second = "20261123-061200";
        for (age_s, name) in [
            (3, "latency"),
            (2, "latency-10"),
            (1, "c2c"),
            (0, "latency-2"),
        ] {
            let one = home.join(format!("{second}-{name}"));
            fs::create_dir_all(&one).unwrap();
            fs::write(one.join(FILE), "{}").unwrap();
            let written = SystemTime::now() - std::time::Duration::from_secs(age_s);
            let file = fs::File::options()
                .write(true)
                .open(one.join(FILE))
                .unwrap();
            file.set_modified(written).unwrap();
        }
        let found = list(&home);
        let names = found.iter().map(|path| {
            let name = path.parent().and_then(Path::file_name).unwrap();
            name.to_string_lossy()[SECOND + 1..].to_owned()
        });
        let names: Vec<String> = names.collect();
        fs::remove_dir_all(home).unwrap();
        assert_eq!(names, ["latency", "latency-10", "c2c", "latency-2"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing_beside_it() {
        let home = std::env::temp_dir().join(format!("lockstep-beside-{}", std::process::id()));
        // A directory is in the way: only the last step fails.
        fs::create_dir_all(home.join("plot.svg")).unwrap();
        let error = write(&home.join("plot.svg"), "text").unwrap_err();
        assert!(error.to_string().ends_with("plot.svg"), "{error}");
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn moments_are_written_as_calendars_have_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_763_878_320_123, "2025-11-23T06:12:00.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            let moment = Moment { ms_since_1970: ms };
            assert_eq!(moment.rfc3339(), text);
        }
        let moment = Moment {
            ms_since_1970: 1_763_878_320_123,
        };
        assert_eq!(moment.compact(), "20251123-061200");
    }
}
