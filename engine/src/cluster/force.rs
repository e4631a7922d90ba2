//! One node goes on alone, by an operator's word, while its process is off.

use std::path::Path;

use lockstep_journaler::storage::Disk;
use lockstep_replicator::replica::{self, Forced};

use super::administration::{Action, Administration};
use super::options::NodeOptions;
use crate::error::{Error, Result};
use crate::event::{Kinds, Slot};
use crate::logic::{EventOf, Logic};
use crate::runtime::clock::Clock;
use crate::system::Membership;

/// Makes the node in this directory the only member of its cluster, from the epoch in `options` on.
///
/// The others must be off, and stay off: those who come back are refused by their epoch. The log says it, and
/// which user of which machine wanted it; nobody has proved who that is.
///
/// # Errors
///
/// The node runs, it is another one, or the epoch does not rise: then nothing was changed.
pub fn force_single<L: Logic>(directory: &Path, options: &NodeOptions) -> Result<Forced> {
    let disk = disk(directory)?;
    let schema = L::In::schema();
    let journal = crate::log::options(&options.config, &schema);
    let own = &options.replica;
    let asked = Administration::of_system(Action::ForceSingle)
        .about(own.node)
        .with(own.epoch.0);
    let mut word = EventOf::<L>::event(&asked);
    let now_ns = Clock::System.now_ns().unwrap_or(0);
    word.header_mut().time = now_ns;
    let mut change = EventOf::<L>::event(&Membership::default());
    change.header_mut().time = now_ns;
    let (word, change) = (bytemuck::bytes_of(&word), bytemuck::bytes_of(&change));
    Ok(replica::force_single(
        disk, &journal, own, word, change, now_ns,
    )?)
}

/// What [`force_single`] would do; a torn tail is cut, as at a start, and nothing else is changed.
///
/// # Errors
///
/// As of [`force_single`].
pub fn would_force_single<L: Logic>(directory: &Path, options: &NodeOptions) -> Result<Forced> {
    let disk = disk(directory)?;
    let schema = L::In::schema();
    let journal = crate::log::options(&options.config, &schema);
    Ok(replica::would_force_single(
        disk,
        &journal,
        &options.replica,
    )?)
}

fn disk(directory: &Path) -> Result<Disk> {
    Disk::create(directory).map_err(|source| Error::Directory {
        directory: directory.display().to_string(),
        source,
    })
}
