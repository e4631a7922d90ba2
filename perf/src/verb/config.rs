//! `--config FILE`: a TOML file whose keys are flags without their dashes. It replaces their
//! defaults: what is typed, and what the environment says, wins over it.
//!
//! The table `[engine]` is the engine's configuration, by its own names; a file that has nothing
//! but such names needs no table. Whatever is neither a flag nor the engine's is an error.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use lockstep_engine::Config;
use lockstep_perf::exit::Refusal;
use toml::{Table, Value};

/// The table of the engine's configuration.
pub(crate) const ENGINE: &str = "engine";

/// Whether the engine's configuration has this name.
pub(crate) fn is_engine_key(key: &str) -> bool {
    let mut one = Table::new();
    // No value fits all types: what matters is that the name is not what is refused.
    one.insert(key.to_owned(), Value::Boolean(true));
    match one.try_into::<Config>() {
        Ok(_) => true,
        Err(error) => !error.message().starts_with("unknown field"),
    }
}

/// Whether a verb has a flag of this name.
pub(crate) fn is_flag(key: &str) -> bool {
    set_default(super::command(), key, "").1
}

/// The command with the file's values as defaults, if a file is named.
pub(crate) fn with_file(command: Command, arguments: &[OsString]) -> anyhow::Result<Command> {
    let Some(path) = named_file(arguments) else {
        return Ok(command);
    };
    let text = fs::read_to_string(&path).map_err(|error| {
        Refusal::usage(
            format!("--config {}: cannot be read: {error}", path.display()),
            "a TOML file, as lockstep tune writes it",
        )
    })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        Refusal::usage(
            format!("{}: {}", path.display(), error.message()),
            "TOML, as lockstep tune writes it",
        )
    })?;
    apply(command, &table, &path)
}

/// The file is needed before the command line can be read as a whole.
fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    // Ends: with the arguments.
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument
            .to_str()
            .and_then(|text| text.strip_prefix("--config="))
        {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("LOCKSTEP_CONFIG").map(PathBuf::from)
}

fn apply(mut command: Command, table: &Table, path: &Path) -> anyhow::Result<Command> {
    for (key, value) in table {
        let is_engines = key == ENGINE || is_engine_key(key);
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            _ if is_engines => continue,
            other => {
                return Err(Refusal::usage(
                    format!("{}: {key} is {}", path.display(), other.type_str()),
                    "a string, a whole number, or true or false",
                )
                .into());
            }
        };
        let (changed, found) = set_default(command, key, &text);
        command = changed;
        if !found && !is_engines {
            return Err(Refusal::usage(
                format!("{}: no verb has a flag --{key}", path.display()),
                "keys are flags without their dashes: ring = \"64Ki\"",
            )
            .into());
        }
    }
    Ok(command)
}

/// Sets the default of every flag of that name, in the command and below.
fn set_default(command: Command, key: &str, value: &str) -> (Command, bool) {
    let mut found = false;
    let command = command.mut_args(|argument| {
        if argument.get_long() != Some(key) {
            return argument;
        }
        found = true;
        if argument.get_action().takes_values() {
            argument.default_value(value.to_owned())
        } else {
            let on = value == "true";
            argument
                .action(clap::ArgAction::Set)
                .num_args(0..=1)
                .default_missing_value("true")
                .default_value(on.to_string())
        }
    });
    let mut deeper = false;
    let command = command.mut_subcommands(|sub| {
        let (sub, below) = set_default(sub, key, value);
        deeper |= below;
        sub
    });
    (command, found || deeper)
}

#[cfg(test)]
mod tests {
    use super::super::{Verb, parse};
    use super::*;

    fn parse_with(name: &str, text: &str, arguments: &[&str]) -> anyhow::Result<super::super::Cli> {
        let path = std::env::temp_dir().join(format!(
            "lockstep-config-{name}-{}.toml",
            std::process::id()
        ));
        fs::write(&path, text).unwrap();
        let config = format!("--config={}", path.display());
        let all = ["lockstep", &config]
            .into_iter()
            .chain(arguments.iter().copied());
        let parsed = parse(all.map(OsString::from));
        fs::remove_file(&path).unwrap();
        parsed
    }

    #[test]
    fn a_file_sets_defaults_and_flags_win() {
        let cli = parse_with(
            "defaults",
            "ring = \"1Ki\"\nclaim = 4\ninsist = true\n",
            &["latency", "--claim", "8"],
        )
        .unwrap();
        let Some(Verb::Latency(args)) = cli.verb else {
            panic!("{cli:?}")
        };
        let text = format!("{args:?}");
        for expected in ["ring: 1024", "claim: 8", "insist: true"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn the_engines_names_have_a_table_of_their_own_or_the_top_level() {
        for text in [
            "ring = 4\n[engine]\nslots = 4096\npin = [0, 1]\n",
            "slots = 4096\npin = [0]\n",
        ] {
            parse_with("engine", text, &["latency"]).unwrap();
        }
        assert!(is_engine_key("slots") && is_engine_key("prometheus"));
        assert!(!is_engine_key("slotz"));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = parse_with("unknown", "rings = 4\n", &["latency"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("no verb has a flag --rings"), "{error}");
        let error = parse_with("broken", "ring = \n", &["latency"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("hint: TOML"), "{error}");
    }
}
