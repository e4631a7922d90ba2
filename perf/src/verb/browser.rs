//! Opens a page in the browser that the system, or `BROWSER`, names.

use std::path::Path;
use std::process::{Command, Stdio};

use lockstep_perf::exit::Refusal;

/// What opens a page where `BROWSER` says nothing.
const OPENER: &str = if cfg!(target_os = "macos") {
    "open"
} else {
    "xdg-open"
};

/// Opens it, and does not wait for who looks at it.
pub(crate) fn open(page: &Path) -> Result<(), Refusal> {
    let named = std::env::var_os("BROWSER").filter(|name| !name.is_empty());
    let browser = named.unwrap_or_else(|| OPENER.into());
    let started = Command::new(&browser)
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.map(drop).map_err(|error| {
        Refusal::environment(
            format!(
                "--open: {} cannot be started: {error}",
                browser.to_string_lossy()
            ),
            format!("BROWSER=PROGRAM, or look at {}", page.display()),
        )
    })
}
