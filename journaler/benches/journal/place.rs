//! A fresh directory on a file system that can make something durable; gone at the end.

use std::fs;
use std::path::{Path, PathBuf};

use lockstep_journaler::storage::{Disk, Storage};

use crate::rounds::Outcome;

/// Where everything is measured.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    pub(crate) medium: String,
}

impl Place {
    /// A new directory under `parent`.
    ///
    /// # Errors
    ///
    /// Where a sync promises nothing: figures from memory would say nothing of a disk.
    pub(crate) fn under(parent: &Path) -> Outcome<Place> {
        fs::create_dir_all(parent)?;
        let medium = Disk::at(parent)?.medium()?;
        if !medium.is_durable {
            let text = format!(
                "{} lies on {}, where a sync makes nothing durable; name a directory on a disk with --dir",
                parent.display(),
                medium.name
            );
            return Err(text.into());
        }
        let root = parent.join(format!("journal-bench-{}", std::process::id()));
        fs::create_dir(&root)?;
        Ok(Place {
            root,
            medium: medium.name,
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// An empty directory of this name, whatever was there.
    pub(crate) fn empty(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.root.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(path)
    }

    pub(crate) fn remove(&self, name: &str) -> Outcome<()> {
        Ok(fs::remove_dir_all(self.root.join(name))?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed stays where the next `cargo clean` finds it.
        let _ = fs::remove_dir_all(&self.root);
    }
}
