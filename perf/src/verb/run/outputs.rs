//! `--outputs FILE`: what the exchange says, each output once, over any number of crashes.
//!
//! A name that ends in `.bin` takes the outputs as they are, 64 bytes each; any other takes a
//! line of JSON for each. A file that is there already is gone on with: what is torn at its
//! end is cut, its last output is found, and the engine is asked for everything behind it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use anyhow::Context as _;
use lockstep_engine::schema::{Field, FieldType, Kind};
use lockstep_engine::{Kinds, Position};
use lockstep_exchange::logic::Reports;
use lockstep_exchange::output::Output;
use lockstep_perf::exit::Refusal;
use serde_json::{Map, Value};

use crate::verb::journal::print;

/// Outputs handed to the writing thread at a time.
const CHUNK: usize = 1024;

/// Chunks that may wait for it.
const CHUNKS: usize = 64;

/// No line is longer.
const LINE_BYTES_MAX: u64 = 4096;

const OUTPUT_BYTES: u64 = size_of::<Output>() as u64;

/// Which output: position of the event, and index.
pub(crate) type Last = (Position, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    Slots,
    Lines,
}

/// An opened file, to be gone on with.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    file: File,
    form: As,
    /// Whether it was there before.
    pub(crate) was_there: bool,
    /// The last output in it.
    pub(crate) last: Option<Last>,
}

impl OutputFile {
    /// Opens or creates it, and cuts what is torn.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot open {}", path.display());
        let was_there = path.exists();
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(what)?;
        let is_slots = path.extension().is_some_and(|extension| extension == "bin");
        let form = if is_slots { As::Slots } else { As::Lines };
        let (whole, last) = match form {
            As::Slots => last_slot(&mut file),
            As::Lines => last_line(&mut file),
        }
        .with_context(what)?
        .map_err(|what| {
            Refusal::usage(
                format!("{}: {what}", path.display()),
                "name another file: this one has not been written by lockstep run",
            )
        })?;
        file.set_len(whole).with_context(what)?;
        file.seek(SeekFrom::End(0)).with_context(what)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            form,
            was_there,
            last,
        })
    }

    /// Starts the thread that writes.
    pub(crate) fn writer(self) -> anyhow::Result<(Writer, Written)> {
        let (chunks, from) = sync_channel(CHUNKS);
        let failed = Arc::new(OnceLock::new());
        let tell = Arc::clone(&failed);
        let path = self.path.clone();
        let thread = std::thread::Builder::new()
            .name("outputs".to_owned())
            .spawn(move || {
                if let Err(error) = write_all(self.file, self.form, &from) {
                    // The first one counts, and there is only one.
                    let _ = tell.set(error.to_string());
                }
            })
            .context("cannot start the thread that writes outputs")?;
        let writer = Writer {
            chunk: Vec::with_capacity(CHUNK),
            chunks,
        };
        let written = Written {
            path,
            thread: Some(thread),
            failed,
        };
        Ok((writer, written))
    }
}

/// Where the last whole slot ends, and which it is.
fn last_slot(file: &mut File) -> io::Result<Result<(u64, Option<Last>), String>> {
    let whole = file.metadata()?.len() / OUTPUT_BYTES * OUTPUT_BYTES;
    if whole == 0 {
        return Ok(Ok((0, None)));
    }
    file.seek(SeekFrom::Start(whole - OUTPUT_BYTES))?;
    let mut output = Output::default();
    file.read_exact(bytemuck::bytes_of_mut(&mut output))?;
    let header = output.header;
    Ok(Ok((whole, Some((Position(header.position), header.index)))))
}

/// The same for lines.
fn last_line(file: &mut File) -> io::Result<Result<(u64, Option<Last>), String>> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(2 * LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        return Ok(if length <= LINE_BYTES_MAX {
            Ok((0, None))
        } else {
            Err("expected lines of JSON, found something else".to_owned())
        });
    };
    let begin = bytes[..end]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let line: Option<Value> = serde_json::from_slice(&bytes[begin..end]).ok();
    let number = |name: &str| line.as_ref()?.get(name)?.as_u64();
    let last = number("position").zip(number("index").and_then(|index| index.try_into().ok()));
    Ok(match last {
        Some((position, index)) => Ok((start + end as u64 + 1, Some((Position(position), index)))),
        None => Err("expected a line of JSON with position and index at its end".to_owned()),
    })
}

fn write_all(file: File, form: As, chunks: &Receiver<Vec<Output>>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let lines = LineWriter::new();
    // Ends: when the engine has dropped the other end.
    for chunk in chunks {
        match form {
            As::Slots => out.write_all(bytemuck::cast_slice(&chunk))?,
            As::Lines => chunk
                .iter()
                .try_for_each(|output| lines.write(output, &mut out))?,
        }
    }
    out.flush()?;
    out.get_ref().sync_all()
}

/// Outputs as lines of JSON.
pub(crate) struct LineWriter {
    kinds: Vec<Kind>,
}

impl LineWriter {
    pub(crate) fn new() -> Self {
        Self {
            kinds: Reports::schema().kinds.into_owned(),
        }
    }

    /// One output as an object.
    pub(crate) fn object(&self, output: &Output) -> Map<String, Value> {
        let header = output.header;
        let kind = self
            .kinds
            .iter()
            .find(|kind| kind.number == u32::from(header.kind));
        let name = kind.map_or_else(
            || Cow::Owned(format!("kind {}", header.kind)),
            |kind| kind.name.clone(),
        );
        let mut object = Map::new();
        object.insert("position".into(), header.position.into());
        object.insert("index".into(), header.index.into());
        object.insert("time".into(), header.time.into());
        object.insert("kind".into(), name.into_owned().into());
        object.insert("flags".into(), header.flags.into());
        let fields = kind.map_or(&[][..], |kind| &kind.fields);
        let bytes = bytemuck::bytes_of(output);
        let shown = |field: &&Field| field.kind != FieldType::Padding;
        for field in fields.iter().filter(shown) {
            if let Some(value) = field.value(bytes) {
                object.insert(field.name.to_string(), print::field(&value));
            }
        }
        object
    }

    pub(crate) fn write(&self, output: &Output, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &self.object(output))?;
        out.write_all(b"\n")
    }
}

/// The engine's end: gathers outputs and hands them on. Dropped, it hands on what it has.
#[derive(Debug)]
pub(crate) struct Writer {
    chunk: Vec<Output>,
    chunks: SyncSender<Vec<Output>>,
}

impl Writer {
    /// Takes one output; waits when the file is far behind.
    #[inline]
    pub(crate) fn take(&mut self, output: &Output) {
        self.chunk.push(*output);
        if self.chunk.len() == CHUNK {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        // The other end is gone only when it failed, which `Written` tells.
        let _ = self.chunks.send(chunk);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.hand_on();
    }
}

/// What became of the file.
#[derive(Debug)]
pub(crate) struct Written {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    failed: Arc<OnceLock<String>>,
}

impl Written {
    /// What went wrong, if something did.
    pub(crate) fn fault(&self) -> Option<String> {
        let fault = self.failed.get()?;
        Some(format!("cannot write {}: {fault}", self.path.display()))
    }

    /// Waits until everything is in the file; the engine must be closed by then.
    pub(crate) fn finish(&mut self) -> Option<String> {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Some(format!(
                "the thread that writes {} panicked",
                self.path.display()
            ));
        }
        self.fault()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(position: u64, index: u32) -> Output {
        let mut output = Output::default();
        output.header.position = position;
        output.header.index = index;
        output.header.kind = 3;
        output.header.version = 1;
        output
    }

    #[test]
    fn a_file_is_gone_on_with_behind_its_last_whole_output() {
        for name in ["outputs.bin", "outputs.jsonl"] {
            let path = std::env::temp_dir().join(format!("lockstep-{}-{name}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            for (first, last) in [(0, None), (3000, Some((Position(2999), 1)))] {
                let opened = OutputFile::open(&path).unwrap();
                assert_eq!(opened.last, last, "{name}");
                let (mut writer, mut written) = opened.writer().unwrap();
                for position in first..first + 3000 {
                    writer.take(&output(position, 0));
                    writer.take(&output(position, 1));
                }
                drop(writer);
                assert_eq!(written.finish(), None);
                // Torn in the middle of one more.
                let mut torn = File::options().append(true).open(&path).unwrap();
                torn.write_all(b"{\"position\":77").unwrap();
            }
            assert_eq!(
                OutputFile::open(&path).unwrap().last,
                Some((Position(5999), 1))
            );
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_as_it_is() {
        let path = std::env::temp_dir().join(format!("lockstep-{}-letter.txt", std::process::id()));
        std::fs::write(&path, "Dear all,\n").unwrap();
        let error = OutputFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("expected a line of JSON"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "Dear all,\n");
        std::fs::remove_file(&path).unwrap();
    }
}
