//! Files: of which format, packed or not.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

#[cfg(feature = "dbn")]
use super::dbn;
use super::{Loader, Options, Problem, Source, bitstamp, itch, lobster};

/// The formats that [`open`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// LOBSTER message CSV.
    Lobster,
    /// NASDAQ ITCH 5.0, binary.
    Itch,
    /// Databento DBN, schema MBO.
    Dbn,
    /// Bitstamp-style level 3 CSV.
    Bitstamp,
}

impl Format {
    /// The format of a file, by its name.
    ///
    /// ```
    /// use lockstep_exchange::load::Format;
    /// assert_eq!(Format::of("AAPL_2012_message_10.csv".as_ref()), Some(Format::Lobster));
    /// assert_eq!(Format::of("01302019.NASDAQ_ITCH50.gz".as_ref()), Some(Format::Itch));
    /// assert_eq!(Format::of("x.mbo.dbn.zst".as_ref()), Some(Format::Dbn));
    /// assert_eq!(Format::of("orders.csv.xz".as_ref()), Some(Format::Bitstamp));
    /// assert_eq!(Format::of("letter.txt".as_ref()), None);
    /// ```
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        if name.ends_with(".dbn") || name.ends_with(".dbn.zst") {
            Some(Self::Dbn)
        } else if name.contains("itch") {
            Some(Self::Itch)
        } else if name.contains(".csv") && name.contains("message") {
            Some(Self::Lobster)
        } else if name.contains(".csv") && name.contains("orders") {
            Some(Self::Bitstamp)
        } else {
            None
        }
    }
}

/// Any of the formats, chosen while the program runs.
pub type AnyLoader = Loader<Box<dyn Source + Send>>;

/// A file could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot load {}: {problem}", path.display())]
pub struct OpenError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub problem: Problem,
}

/// Opens a file in a format, or in that which its name tells.
///
/// # Errors
///
/// The file cannot be opened, or its format is not known or not built in.
pub fn open(path: &Path, format: Option<Format>, options: Options) -> Result<AnyLoader, OpenError> {
    open_source(path, format)
        .map(|source| Loader::new(source, options))
        .map_err(|problem| OpenError {
            path: path.to_owned(),
            problem,
        })
}

fn open_source(path: &Path, format: Option<Format>) -> Result<Box<dyn Source + Send>, Problem> {
    // First: of a file that is not there, its format is not what is wrong.
    let file = BufReader::with_capacity(1 << 18, File::open(path)?);
    let format = format
        .or_else(|| Format::of(path))
        .ok_or(Problem::UnknownFormat)?;
    Ok(match format {
        Format::Lobster => Box::new(lobster::Lobster::new(unpack(file)?)),
        Format::Itch => Box::new(itch::Itch::new(unpack(file)?)),
        Format::Bitstamp => Box::new(bitstamp::Bitstamp::new(unpack(file)?)),
        #[cfg(feature = "dbn")]
        Format::Dbn => Box::new(dbn::Dbn::new(file)?),
        #[cfg(not(feature = "dbn"))]
        Format::Dbn => return Err(Problem::NotBuilt("dbn")),
    })
}

/// What [`unpack`] reads from.
pub struct Unpacked(Box<dyn BufRead + Send>);

impl fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacked")
    }
}

impl Read for Unpacked {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl BufRead for Unpacked {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

/// Reads through gzip or xz, where the first bytes say so.
///
/// # Errors
///
/// Reading fails.
pub fn unpack<R: BufRead + Send + 'static>(mut reader: R) -> io::Result<Unpacked> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
    let first = reader.fill_buf()?;
    if first.starts_with(GZIP) {
        let unpacked = flate2::bufread::MultiGzDecoder::new(reader);
        return Ok(Unpacked(Box::new(BufReader::with_capacity(
            1 << 16,
            unpacked,
        ))));
    }
    if first.starts_with(XZ) {
        let unpacked = lzma_rust2::XzReader::new(reader, true);
        return Ok(Unpacked(Box::new(BufReader::with_capacity(
            1 << 16,
            unpacked,
        ))));
    }
    Ok(Unpacked(Box::new(reader)))
}
