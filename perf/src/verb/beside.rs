//! A command that runs beside a measurement: with everything that it starts, and not a moment longer.

use std::process::{Child, Command, Stdio};

use lockstep_perf::exit::Refusal;

/// A command under way; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Beside {
    command: String,
    child: Child,
}

impl Beside {
    /// Starts it, in a group of its own.
    pub(crate) fn start(command: &str) -> Result<Self, Refusal> {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        let child = shell.spawn().map_err(|error| {
            Refusal::environment(
                format!("--with {command:?}: cannot be started: {error}"),
                "it is run by sh -c",
            )
        })?;
        Ok(Self {
            command: command.to_owned(),
            child,
        })
    }

    /// Ends it, and says what became of it.
    pub(crate) fn end(mut self) -> String {
        match self.child.try_wait() {
            Ok(Some(status)) => format!("{}, which had ended by itself: {status}", self.command),
            _ => self.command.clone(),
        }
    }

    /// All that it has started goes with it.
    fn kill(&mut self) {
        let group = format!("-{}", self.child.id());
        let killed = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        if !killed.is_ok_and(|status| status.success()) {
            // It has ended, or there is no kill: then itself at least.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn is_there(pid: &str) -> bool {
        // What has ended and is waited for by nobody is a zombie of init for a moment.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|text| !text.contains("State:\tZ"))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_it_has_started_goes_with_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("pid");
        let command = format!(
            "sleep 600 & echo $! > {}.new; mv {0}.new {0}; wait",
            file.display()
        );
        let beside = Beside::start(&command).unwrap();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !file.exists() {
            assert!(std::time::Instant::now() < limit, "nothing was started");
            std::thread::yield_now();
        }
        let pid = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        assert!(is_there(&pid));
        assert_eq!(beside.end(), command);
        while is_there(&pid) {
            assert!(std::time::Instant::now() < limit, "{pid} is still there");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_ends_by_itself_is_said() {
        let mut beside = Beside::start("exit 3").unwrap();
        beside.child.wait().unwrap();
        assert!(beside.end().contains("ended by itself: exit status: 3"));
    }
}
