//! State as bytes: written field by field in a fixed order, read back, hashed.
//!
//! The bytes are canonical: equal states write equal bytes on every machine, since
//! everything is little-endian, of fixed width or with its length in front, and in an
//! order that the type fixes. A snapshot is these bytes; the state hash is XXH3 of them.
//!
//! # Invariants
//!
//! * `SB1` `load(save(state)) = state`, and saving it again gives the same bytes.
//! * `SB2` Reading never allocates more than the bytes that are left could hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::det_map::{DetMap, Key};
use crate::runtime::priority::breathe;

/// Bytes gathered before they are handed on.
const BUFFER_BYTES: usize = 64 * 1024;

/// Something that is part of a state: [`snapshot!`](crate::snapshot) writes it for a struct.
pub trait State: Sized {
    /// Writes the canonical bytes.
    fn save(&self, out: &mut StateWriter<'_>);

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// Bytes that no `save` wrote, or a version that this program does not know.
    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError>;
}

/// Why bytes are no state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes end in the middle of something.
    #[error("the state ends early: {what} wants {wanted} bytes, {left} are left")]
    Short {
        /// The type that was read.
        what: &'static str,
        /// Bytes it needs.
        wanted: u64,
        /// Bytes there are.
        left: u64,
    },
    /// A struct was saved in a version that this program has no way to read.
    #[error(
        "the state of {what} has version {found}, this program reads {known}: use the program that wrote it, \
         or add a migration from {found} to its snapshot!"
    )]
    Version {
        /// The struct.
        what: &'static str,
        /// In the bytes.
        found: u32,
        /// What this program writes.
        known: u32,
    },
    /// A value that the type cannot have.
    #[error("the state of {what} cannot be {found}")]
    Value {
        /// The type.
        what: &'static str,
        /// What was found.
        found: u64,
    },
    /// What the type itself says of its bytes.
    #[error("the state of {what}: {why}")]
    Own {
        /// The type.
        what: &'static str,
        /// What does not fit.
        why: String,
    },
    /// There are bytes behind the state.
    #[error("{bytes} bytes are left behind the state: another logic wrote it")]
    Left {
        /// How many.
        bytes: u64,
    },
}

/// Where a state is written to.
pub struct StateWriter<'a> {
    buffer: Vec<u8>,
    sink: &'a mut dyn FnMut(&[u8]),
}

impl std::fmt::Debug for StateWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateWriter")
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl<'a> StateWriter<'a> {
    /// Hands the bytes to `sink`, in runs of 64 KiB.
    pub fn new(sink: &'a mut dyn FnMut(&[u8])) -> Self {
        Self {
            buffer: Vec::with_capacity(BUFFER_BYTES),
            sink,
        }
    }

    /// Writes bytes as they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush();
        }
        if bytes.len() >= BUFFER_BYTES {
            for run in bytes.chunks(BUFFER_BYTES) {
                (self.sink)(run);
                breathe();
            }
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Writes a length.
    pub fn length(&mut self, length: usize) {
        (length as u64).save(self);
    }

    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            (self.sink)(&self.buffer);
            self.buffer.clear();
            breathe();
        }
    }
}

impl Drop for StateWriter<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Where a state is read from.
#[derive(Debug)]
pub struct StateReader<'a> {
    rest: &'a [u8],
}

impl<'a> StateReader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    ///
    /// [`LoadError::Short`].
    #[inline]
    pub fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], LoadError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(LoadError::Short {
                what,
                wanted: count as u64,
                left: self.rest.len() as u64,
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A length, of things of at least `least` bytes each (`SB2`).
    ///
    /// # Errors
    ///
    /// [`LoadError::Short`] if so many cannot follow.
    pub fn length(&mut self, least: usize, what: &'static str) -> Result<usize, LoadError> {
        let length = u64::load(self)?;
        let wanted = length.saturating_mul(least as u64);
        let left = self.rest.len() as u64;
        if wanted > left {
            return Err(LoadError::Short { what, wanted, left });
        }
        usize::try_from(length).map_err(|_| LoadError::Short { what, wanted, left })
    }

    /// Nothing is left, as it must be behind a whole state.
    ///
    /// # Errors
    ///
    /// [`LoadError::Left`].
    pub fn end(&self) -> Result<(), LoadError> {
        match self.rest.len() as u64 {
            0 => Ok(()),
            bytes => Err(LoadError::Left { bytes }),
        }
    }
}

/// The hash of a state: XXH3, 64 bits, over its canonical bytes, without holding them.
///
/// ```
/// use lockstep_engine::state::state_hash;
///
/// assert_eq!(state_hash(&(1_u64, 2_u32)), state_hash(&(1_u64, 2_u32)));
/// assert_ne!(state_hash(&vec![1_u8]), state_hash(&vec![1_u8, 0]));
/// ```
#[must_use]
pub fn state_hash<S: State>(state: &S) -> u64 {
    let mut hasher = Xxh3::new();
    let mut sink = |bytes: &[u8]| hasher.update(bytes);
    let mut writer = StateWriter::new(&mut sink);
    state.save(&mut writer);
    drop(writer);
    hasher.digest()
}

/// The canonical bytes of a state.
#[must_use]
pub fn to_bytes<S: State>(state: &S) -> Vec<u8> {
    let mut all = Vec::new();
    let mut sink = |bytes: &[u8]| all.extend_from_slice(bytes);
    let mut writer = StateWriter::new(&mut sink);
    state.save(&mut writer);
    drop(writer);
    all
}

/// The state of these bytes, all of them.
///
/// # Errors
///
/// [`LoadError`] says what they are not.
pub fn from_bytes<S: State>(bytes: &[u8]) -> Result<S, LoadError> {
    let mut reader = StateReader::new(bytes);
    let state = S::load(&mut reader)?;
    reader.end()?;
    Ok(state)
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl State for $type {
            #[inline]
            fn save(&self, out: &mut StateWriter<'_>) {
                out.bytes(&self.to_le_bytes());
            }

            #[inline]
            fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
                let bytes = from.bytes(size_of::<$type>(), stringify!($type))?;
                let mut own = [0; size_of::<$type>()];
                own.copy_from_slice(bytes);
                Ok(Self::from_le_bytes(own))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

impl State for bool {
    fn save(&self, out: &mut StateWriter<'_>) {
        u8::from(*self).save(out);
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        match u8::load(from)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(LoadError::Value {
                what: "bool",
                found: u64::from(found),
            }),
        }
    }
}

impl State for () {
    fn save(&self, _: &mut StateWriter<'_>) {}

    fn load(_: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(())
    }
}

impl State for String {
    fn save(&self, out: &mut StateWriter<'_>) {
        out.length(self.len());
        out.bytes(self.as_bytes());
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let length = from.length(1, "String")?;
        let bytes = from.bytes(length, "String")?.to_vec();
        String::from_utf8(bytes).map_err(|error| LoadError::Value {
            what: "String",
            found: error.utf8_error().valid_up_to() as u64,
        })
    }
}

impl<T: State> State for Option<T> {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.is_some().save(out);
        if let Some(value) = self {
            value.save(out);
        }
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        bool::load(from)?.then(|| T::load(from)).transpose()
    }
}

impl<T: State, const N: usize> State for [T; N] {
    fn save(&self, out: &mut StateWriter<'_>) {
        self.iter().for_each(|value| value.save(out));
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let values = (0..N)
            .map(|_| T::load(from))
            .collect::<Result<Vec<_>, _>>()?;
        values.try_into().map_err(|_| LoadError::Value {
            what: "array",
            found: N as u64,
        })
    }
}

macro_rules! tuples {
    ($($name:ident $index:tt),*) => {
        impl<$($name: State),*> State for ($($name,)*) {
            fn save(&self, out: &mut StateWriter<'_>) {
                $(self.$index.save(out);)*
            }

            fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
                Ok(($($name::load(from)?,)*))
            }
        }
    };
}
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);

/// Collections: their length, then what they hold, in their order.
macro_rules! collections {
    ($($name:ident),*) => {$(
        impl<T: State + Ord> State for $name<T> {
            fn save(&self, out: &mut StateWriter<'_>) {
                out.length(self.len());
                self.iter().for_each(|value| value.save(out));
            }

            fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
                let length = from.length(0, stringify!($name))?;
                (0..length).map(|_| T::load(from)).collect()
            }
        }
    )*};
}
collections!(BTreeSet);

impl<T: State> State for Vec<T> {
    fn save(&self, out: &mut StateWriter<'_>) {
        out.length(self.len());
        self.iter().for_each(|value| value.save(out));
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let length = from.length(0, "Vec")?;
        (0..length).map(|_| T::load(from)).collect()
    }
}

impl<T: State> State for VecDeque<T> {
    fn save(&self, out: &mut StateWriter<'_>) {
        out.length(self.len());
        self.iter().for_each(|value| value.save(out));
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        Ok(Vec::load(from)?.into())
    }
}

impl<K: State + Ord, V: State> State for BTreeMap<K, V> {
    fn save(&self, out: &mut StateWriter<'_>) {
        out.length(self.len());
        for (key, value) in self {
            key.save(out);
            value.save(out);
        }
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let length = from.length(0, "BTreeMap")?;
        (0..length)
            .map(|_| Ok((K::load(from)?, V::load(from)?)))
            .collect()
    }
}

impl<K: State + Key, V: State> State for DetMap<K, V> {
    fn save(&self, out: &mut StateWriter<'_>) {
        out.length(self.len());
        for (key, value) in self.iter() {
            key.save(out);
            value.save(out);
        }
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let length = from.length(1, "DetMap")?;
        let mut map = DetMap::with_capacity(length);
        for _ in 0..length {
            let key = K::load(from)?;
            if map.insert(key, V::load(from)?).is_some() {
                return Err(LoadError::Value {
                    what: "DetMap with a key twice",
                    found: map.len() as u64,
                });
            }
        }
        Ok(map)
    }
}

impl State for crate::system::Parameters {
    fn save(&self, out: &mut StateWriter<'_>) {
        out.bytes(bytemuck::bytes_of(self));
    }

    fn load(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
        let bytes = from.bytes(size_of::<Self>(), "Parameters")?;
        Ok(bytemuck::pod_read_unaligned(bytes))
    }
}

/// Writes [`State`] for a struct: a version, then its fields in this order.
///
/// ```
/// use lockstep_engine::prelude::*;
/// use lockstep_engine::state::{from_bytes, to_bytes};
///
/// #[derive(Default, Debug, PartialEq)]
/// struct Bank { balances: DetMap<u64, i64>, fees: i64 }
/// snapshot!(Bank { balances, fees });
///
/// let mut bank = Bank::default();
/// *bank.balances.entry(7) += 100;
/// assert_eq!(from_bytes::<Bank>(&to_bytes(&bank)), Ok(bank));
/// ```
///
/// A field added later: the version is raised, and older snapshots are migrated.
///
/// ```
/// # use lockstep_engine::prelude::*;
/// use lockstep_engine::state::{LoadError, State, StateReader};
///
/// # #[derive(Default)]
/// struct Bank { balances: DetMap<u64, i64>, fees: i64 }
/// snapshot!(Bank, version 2 { balances, fees } from { 1 => Bank::of_version_1 });
///
/// impl Bank {
///     fn of_version_1(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
///         Ok(Bank { balances: State::load(from)?, fees: 0 })
///     }
/// }
/// ```
#[macro_export]
macro_rules! snapshot {
    ($name:ty { $($field:ident),* $(,)? }) => {
        $crate::snapshot!($name, version 1 { $($field),* } from {});
    };
    ($name:ty, version $version:literal { $($field:ident),* $(,)? }) => {
        $crate::snapshot!($name, version $version { $($field),* } from {});
    };
    (
        $name:ty, version $version:literal { $($field:ident),* $(,)? }
        from { $($old:literal => $migrate:path),* $(,)? }
    ) => {
        impl $crate::state::State for $name {
            fn save(&self, out: &mut $crate::state::StateWriter<'_>) {
                let version: u32 = $version;
                $crate::state::State::save(&version, out);
                $($crate::state::State::save(&self.$field, out);)*
            }

            fn load(
                from: &mut $crate::state::StateReader<'_>,
            ) -> ::core::result::Result<Self, $crate::state::LoadError> {
                match <u32 as $crate::state::State>::load(from)? {
                    $version => ::core::result::Result::Ok(Self {
                        $($field: $crate::state::State::load(from)?,)*
                    }),
                    $($old => $migrate(from),)*
                    found => ::core::result::Result::Err($crate::state::LoadError::Version {
                        what: stringify!($name),
                        found,
                        known: $version,
                    }),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct All {
        numbers: (u8, i64, u128),
        text: String,
        maybe: Option<u32>,
        list: Vec<(u16, bool)>,
        queue: VecDeque<u8>,
        tree: BTreeMap<u32, String>,
        set: BTreeSet<u8>,
        map: DetMap<u64, [u32; 3]>,
    }
    crate::snapshot!(All {
        numbers,
        text,
        maybe,
        list,
        queue,
        tree,
        set,
        map
    });

    fn all() -> All {
        let mut all = All {
            numbers: (1, -2, 3),
            text: "four".into(),
            maybe: Some(5),
            list: vec![(6, true), (7, false)],
            queue: [8, 9].into(),
            tree: [(10, "ten".into())].into(),
            set: [11, 12].into(),
            map: DetMap::new(),
        };
        all.map.insert(99, [1, 2, 3]);
        all.map.insert(3, [4, 5, 6]);
        all
    }

    #[test]
    fn sb1_a_state_survives_its_bytes() {
        let bytes = to_bytes(&all());
        let read: All = from_bytes(&bytes).unwrap();
        assert_eq!(read, all());
        assert_eq!(to_bytes(&read), bytes);
        assert_eq!(state_hash(&read), xxhash_rust::xxh3::xxh3_64(&bytes));
    }

    #[test]
    fn sb2_every_prefix_is_refused_and_so_is_more() {
        let bytes = to_bytes(&all());
        for end in 0..bytes.len() {
            assert!(
                matches!(
                    from_bytes::<All>(&bytes[..end]),
                    Err(LoadError::Short { .. })
                ),
                "{end}"
            );
        }
        let more = [&bytes[..], &[0]].concat();
        assert_eq!(from_bytes::<All>(&more), Err(LoadError::Left { bytes: 1 }));
        let huge = u64::MAX.to_le_bytes();
        assert!(matches!(
            from_bytes::<DetMap<u64, u64>>(&huge),
            Err(LoadError::Short { .. })
        ));
        assert!(matches!(
            from_bytes::<Vec<u64>>(&huge),
            Err(LoadError::Short { .. })
        ));
    }

    struct New {
        kept: u64,
        added: u32,
    }
    crate::snapshot!(New, version 3 { kept, added } from { 2 => New::of_2 });

    impl New {
        fn of_2(from: &mut StateReader<'_>) -> Result<Self, LoadError> {
            Ok(Self {
                kept: State::load(from)?,
                added: 77,
            })
        }
    }

    #[test]
    fn an_old_version_is_migrated_and_an_unknown_one_named() {
        let old = to_bytes(&(2_u32, 9_u64));
        let new: New = from_bytes(&old).unwrap();
        assert_eq!((new.kept, new.added), (9, 77));
        let error = from_bytes::<New>(&to_bytes(&(1_u32, 9_u64))).err().unwrap();
        assert_eq!(
            error,
            LoadError::Version {
                what: "New",
                found: 1,
                known: 3
            }
        );
    }
}
