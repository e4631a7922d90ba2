//! A disk that can be full: a small file system in memory for each node.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lockstep_perf::exit::Refusal;

/// A small file system in memory, for a disk that can be filled.
#[derive(Debug)]
pub(super) struct Mount(PathBuf);

impl Mount {
    pub(super) fn at(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "lockstep-drill"])
            .arg(path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(path.to_owned())),
            Ok(output) => Err(Refusal::environment(
                format!(
                    "disk-full wants a small file system at {}: {}",
                    path.display(),
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
                "run it as root, or where a user may have namespaces of its own",
            )
            .into()),
            Err(error) => Err(error).context("cannot run mount"),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Nothing is lost by it; whoever owns the machine sees it in its mounts.
            eprintln_left(&self.0);
        }
    }
}

fn eprintln_left(path: &Path) {
    use std::io::Write as _;
    let _closed = writeln!(
        std::io::stderr(),
        "warning: {} is still mounted: umount it",
        path.display()
    );
}

/// The size of such a file system: the journals of a few minutes.
const DISK: &str = "size=160m";

/// Fills a file system up to its last byte.
pub(super) fn fill(ballast: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast)?;
    let block = vec![0xa5; 64 << 10];
    // Ends: the file system is full.
    loop {
        match file.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
