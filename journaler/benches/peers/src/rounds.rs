//! The name that the files of `benches/journal` know their errors by.

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
