//! One node goes on alone, by an operator's word, while its process is off.

use std::path::Path;

use lockstep_journaler::storage::Disk;
use lockstep_replicator::replica::Forced;

use super::node::NodeOptions;
use crate::error::{Error, Result};
use crate::event::Kinds;
use crate::logic::Logic;

/// Makes the node in this directory the only member of its cluster, from the epoch in `options` on.
///
/// The others must be off, and stay off: those who come back are refused by their epoch.
///
/// # Errors
///
/// The node runs, it is another one, or the epoch does not rise: then nothing was changed.
pub fn force_single<L: Logic>(directory: &Path, options: &NodeOptions) -> Result<Forced> {
    let disk = Disk::create(directory).map_err(|source| Error::Directory {
        directory: directory.display().to_string(),
        source,
    })?;
    let schema = L::In::schema();
    let journal = crate::log::options(&options.config, &schema);
    Ok(lockstep_replicator::replica::force_single(
        disk,
        &journal,
        &options.replica,
    )?)
}
