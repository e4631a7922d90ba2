//! A directory of one run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of one run, removed at its end.
#[derive(Debug)]
pub(super) struct Home(pub(super) PathBuf);

impl Home {
    pub(super) fn create(below: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(below)?;
        // Ends: with a number that nobody has used.
        loop {
            // ORDERING: Relaxed, the number only has to be unique.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = below.join(format!("lockstep-run-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What cannot be removed has a name that says whose it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}
