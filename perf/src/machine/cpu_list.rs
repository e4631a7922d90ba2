//! Lists of CPUs as `taskset` writes them: `0,2-5,8-15:2`, and `!0` for "all but 0".

use std::fmt::Write as _;

/// The largest CPU number that is believed; Linux is built for at most 8192.
const CPU_MAX: u32 = 65_535;

/// A list that cannot be read, and what was perhaps meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadList {
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub hint: String,
}

/// Reads a list in the order given, each CPU once. `allowed` is what `!N` leaves out from.
///
/// # Errors
///
/// Says which part cannot be read and why.
///
/// ```
/// use lockstep_perf::machine::cpu_list::parse;
///
/// assert_eq!(parse("4,0-2", &[]), Ok(vec![4, 0, 1, 2]));
/// assert_eq!(parse("8-15:4", &[]), Ok(vec![8, 12]));
/// assert_eq!(parse("!0", &[0, 1, 2]), Ok(vec![1, 2]));
/// ```
pub fn parse(text: &str, allowed: &[u32]) -> Result<Vec<u32>, BadList> {
    let mut cpus: Vec<u32> = Vec::new();
    let mut excluded: Vec<u32> = Vec::new();
    for part in text.split(',').map(str::trim) {
        if let Some(part) = part.strip_prefix('!') {
            excluded.extend(range(part)?);
        } else {
            for cpu in range(part)? {
                if !cpus.contains(&cpu) {
                    cpus.push(cpu);
                }
            }
        }
    }
    if cpus.is_empty() && !excluded.is_empty() {
        cpus = allowed.to_vec();
    }
    cpus.retain(|cpu| !excluded.contains(cpu));
    if cpus.is_empty() {
        return Err(bad("it leaves no CPU", "a list as taskset takes it: 0,2-5"));
    }
    Ok(cpus)
}

/// Reads a list that the kernel wrote; an empty or unreadable one is no CPUs.
#[must_use]
pub fn from_kernel(text: &str) -> Vec<u32> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    parse(text.trim(), &[]).unwrap_or_default()
}

/// `N`, `N-M` or `N-M:STEP`.
fn range(part: &str) -> Result<Vec<u32>, BadList> {
    let (span, step) = match part.split_once(':') {
        Some((span, step)) => (span, Some(number(step)?)),
        None => (part, None),
    };
    let (first, last) = match span.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => {
            let only = number(span)?;
            (only, only)
        }
    };
    if first > last {
        return Err(bad("range runs backwards", &format!("{last}-{first}")));
    }
    match step {
        Some(0) => Err(bad(
            "a step of 0 never arrives",
            &format!("{first}-{last}:1"),
        )),
        step => Ok((first..=last).step_by(step.unwrap_or(1) as usize).collect()),
    }
}

fn number(text: &str) -> Result<u32, BadList> {
    match text.trim().parse() {
        Ok(number) if number <= CPU_MAX => Ok(number),
        Ok(number) => Err(bad(
            &format!("no machine has a CPU {number}"),
            "lockstep doctor shows the CPUs of this one",
        )),
        Err(_) => Err(bad(
            &format!("{text:?} is no CPU number"),
            "a list as taskset takes it: 0,2-5,8-15:2",
        )),
    }
}

fn bad(reason: &str, hint: &str) -> BadList {
    BadList {
        reason: reason.to_owned(),
        hint: hint.to_owned(),
    }
}

/// Writes CPUs as short as possible: `0-2,4`.
#[must_use]
pub fn show(cpus: &[u32]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut text = String::new();
    let mut rest = sorted.as_slice();
    while let Some(&first) = rest.first() {
        let length = (first..)
            .zip(rest)
            .take_while(|(expected, cpu)| expected == *cpu)
            .count();
        let last = rest[length - 1];
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = match length {
            1 => write!(text, "{first}"),
            2 => write!(text, "{first},{last}"),
            _ => write!(text, "{first}-{last}"),
        };
        rest = &rest[length..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_the_order_and_name_each_cpu_once() {
        assert_eq!(parse("3,1,3", &[]), Ok(vec![3, 1]));
        assert_eq!(parse("0-1, 4-8:2", &[]), Ok(vec![0, 1, 4, 6, 8]));
        assert_eq!(parse("0-3,!2", &[]), Ok(vec![0, 1, 3]));
    }

    #[test]
    fn a_bad_list_says_why() {
        let cases = [
            ("2-1", "range runs backwards", "1-2"),
            ("0-4:0", "a step of 0 never arrives", "0-4:1"),
            (
                "",
                "\"\" is no CPU number",
                "a list as taskset takes it: 0,2-5,8-15:2",
            ),
            (
                "a",
                "\"a\" is no CPU number",
                "a list as taskset takes it: 0,2-5,8-15:2",
            ),
            (
                "99999999",
                "no machine has a CPU 99999999",
                "lockstep doctor shows the CPUs of this one",
            ),
            (
                "!0-7",
                "it leaves no CPU",
                "a list as taskset takes it: 0,2-5",
            ),
        ];
        for (text, reason, hint) in cases {
            assert_eq!(parse(text, &[0, 1]), Err(bad(reason, hint)), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for cpus in [vec![0], vec![0, 1], vec![0, 1, 2, 5, 7, 8, 9]] {
            assert_eq!(parse(&show(&cpus), &[]), Ok(cpus));
        }
        assert_eq!(show(&[2, 0, 1, 4]), "0-2,4");
        assert_eq!(show(&[]), "");
    }
}
