//! `lockstep doctor`: what about this machine speaks for or against measuring on it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use lockstep_perf::args::quantity::{Units, counted, show_short};
use lockstep_perf::exit::Exit;
use lockstep_perf::machine::c2c;
use lockstep_perf::machine::cpus::Files;
use lockstep_perf::machine::doctor::{Check, Diagnosis, Fitness, State};
use lockstep_perf::machine::storage;
use lockstep_perf::report::text::{Table, wrap};

use super::Global;
use super::bench::Bench;
use super::flags::check_directory;

/// CPUs whose clocks are compared with the first one's; more would take long.
const SKEW_CPUS: usize = 8;

/// Arguments of `lockstep doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lockstep doctor -v\n  lockstep doctor --journal-dir ./j\n  \
                        lockstep doctor --require tail && lockstep latency --rate 1M\n\n\
                        Exit codes: 0 done · 6 the machine is not what --require asks for"
)]
pub(crate) struct Args {
    /// Also show what is in order
    #[arg(short, long)]
    verbose: bool,
    /// Exit with 6 unless the machine is fit for this
    #[arg(long, value_enum)]
    require: Option<Require>,
    /// Also examine the disk under this directory, for 2 s
    #[arg(long, value_name = "DIR")]
    journal_dir: Option<PathBuf>,
    /// Print the fixes as a shell script; nothing is run
    #[arg(long)]
    fix_script: bool,
}

/// What a machine may be required to be fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Require {
    /// Latency at p99 and above.
    Tail,
}

/// Examines and advises.
pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<Exit> {
    let bench = Bench::new(global);
    let mut diagnosis = Diagnosis::of(&bench.machine, &bench.clock, &Files(Path::new("/")));
    diagnosis.checks.push(skew(&bench));
    if let Some(directory) = &args.journal_dir {
        check_directory("--journal-dir", directory)?;
        diagnosis.checks.extend(disk(&bench, directory)?);
    }
    if args.fix_script {
        bench.say(&fix_script(&diagnosis))?;
    } else {
        bench.say(&text(&bench, &diagnosis, args.verbose))?;
    }
    let mut document = bench.document("doctor", "");
    document.env.checks = diagnosis.checks.clone();
    bench.finish(&document, None)?;
    let unfit = args.require == Some(Require::Tail) && diagnosis.fitness() != Fitness::Tail;
    Ok(if unfit { Exit::Refused } else { Exit::Done })
}

/// The first four lines: machine, clock, the worst findings, verdict.
pub(crate) fn four_lines(bench: &Bench) -> String {
    let diagnosis = Diagnosis::of(&bench.machine, &bench.clock, &Files(Path::new("/")));
    let named = |state| {
        let checks = diagnosis.checks.iter().filter(|check| check.state == state);
        checks.map(|check| check.id.as_str()).collect::<Vec<_>>()
    };
    let (bad, warned) = (named(State::Bad), named(State::Warn));
    let mut findings = if bad.is_empty() {
        "nothing bad".to_owned()
    } else {
        format!("bad: {}", bad.join(", "))
    };
    if !warned.is_empty() {
        let _ = write!(findings, " · {}", counted(warned.len(), "warning"));
    }
    let more = "   (lockstep doctor says why)";
    format!(
        "{}{}\n{}\n",
        first_lines(bench),
        wrap(&format!("findings  {findings}{more}"), 79, "          "),
        wrap(
            &format!("verdict   {}", diagnosis.verdict()),
            79,
            "          "
        )
    )
}

fn first_lines(bench: &Bench) -> String {
    let clock = &bench.clock;
    format!(
        "{}\nclock     {} {:.3} MHz, calibrated to ±{:.2} ppm, a read costs {:.0} ns\n",
        wrap(
            &format!("machine   {}", bench.machine.summary()),
            79,
            "          "
        ),
        clock.source().name(),
        clock.hz() / 1e6,
        clock.error_ppm(),
        clock.read_cost_ns()
    )
}

fn text(bench: &Bench, diagnosis: &Diagnosis, verbose: bool) -> String {
    let mut text = first_lines(bench);
    let mut checks: Vec<&Check> = diagnosis.checks.iter().collect();
    checks.sort_by_key(|check| std::cmp::Reverse(check.state));
    let is_shown = |check: &&Check| verbose || matches!(check.state, State::Bad | State::Warn);
    let hidden = checks.iter().filter(|check| !is_shown(check)).count();
    for check in checks.iter().filter(|check| is_shown(check)) {
        let head = format!("  {:<5} {:<14} ", check.state, check.id);
        let mut body = check.evidence.clone();
        if !check.effect.is_empty() {
            let _ = write!(body, ": {}", check.effect);
        }
        let mut lines = wrap(&body, 57, "");
        if !check.fix.is_empty() {
            lines.push('\n');
            lines.push_str(&wrap(&format!("-> {}", check.fix), 57, "   "));
        }
        let below = format!("\n{}", " ".repeat(head.chars().count()));
        let _ = writeln!(text, "{head}{}", lines.replace('\n', &below));
    }
    if hidden > 0 {
        let _ = writeln!(text, "  {hidden} more are in order, absent or unknown (-v)");
    }
    let _ = writeln!(
        text,
        "verdict   {}",
        wrap(diagnosis.verdict(), 69, "          ")
    );
    text
}

fn fix_script(diagnosis: &Diagnosis) -> String {
    let mut script = String::from(
        "#!/bin/sh\n# Read it before you run it: each line is advice, not all are commands.\n",
    );
    for check in diagnosis
        .checks
        .iter()
        .filter(|check| !check.fix.is_empty())
    {
        let _ = writeln!(
            script,
            "\n# {}: {}\n# {}",
            check.id, check.evidence, check.fix
        );
    }
    script
}

/// How far the CPUs' clocks seem apart.
fn skew(bench: &Bench) -> Check {
    let cpus = &bench.machine.allowed;
    let mut table = Table::new("ll");
    let (mut worst, mut bound) = (0.0_f64, 0.0_f64);
    for &cpu in cpus.iter().skip(1).take(SKEW_CPUS) {
        match c2c::measure(&bench.clock, cpus[0], cpu, 1) {
            Ok(pair) => {
                worst = worst.max(pair.skew_ns.abs());
                bound = bound.max(pair.skew_bound_ns);
            }
            Err(error) => table.row([cpu.to_string(), error.to_string()]),
        }
    }
    let check = |state, evidence: String| Check {
        id: "skew".to_owned(),
        state,
        evidence,
        effect: String::new(),
        fix: String::new(),
    };
    if cpus.len() < 2 {
        return check(State::Absent, "one CPU".to_owned());
    }
    let evidence = format!("clocks of CPUs differ by less than {:.0} ns", worst + bound);
    if worst <= bound {
        check(State::Ok, evidence)
    } else {
        Check {
            effect: "an event may seem to arrive before it was sent".to_owned(),
            ..check(State::Warn, evidence)
        }
    }
}

fn disk(bench: &Bench, directory: &Path) -> anyhow::Result<Vec<Check>> {
    let found = storage::examine(&bench.clock, directory, Duration::from_secs(2))
        .with_context(|| format!("cannot examine the disk under {}", directory.display()))?;
    let check = |id: &str, state, evidence: String, effect: &str| Check {
        id: id.to_owned(),
        state,
        evidence,
        effect: effect.to_owned(),
        fix: String::new(),
    };
    let filesystem = found.filesystem.unwrap_or_else(|| "unknown".to_owned());
    let volatile = matches!(filesystem.as_str(), "tmpfs" | "ramfs" | "overlay");
    let syncs = &found.sync_ns;
    Ok(vec![
        check(
            "filesystem",
            if volatile { State::Warn } else { State::Ok },
            format!(
                "{} is on {filesystem}, O_DIRECT {}",
                directory.display(),
                if found.direct { "works" } else { "refused" }
            ),
            if volatile {
                "may not survive what a journal must survive"
            } else {
                ""
            },
        ),
        check(
            "sync",
            State::Ok,
            format!(
                "4 KiB written and synced: p50 {}, p99 {}, max {} ({} syncs)",
                Units::Auto.show(syncs.value_at_percentile(50.0)),
                Units::Auto.show(syncs.value_at_percentile(99.0)),
                Units::Auto.show(syncs.max()),
                syncs.len()
            ),
            "",
        ),
        match found.free_bytes {
            Some(bytes) => check(
                "free",
                State::Ok,
                format!("{} MiB free", show_short(bytes >> 20)),
                "",
            ),
            None => check(
                "free",
                State::Unknown,
                "free space is not told".to_owned(),
                "",
            ),
        },
    ])
}
