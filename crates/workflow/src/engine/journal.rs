//! Batches of a journal: entries as lines of JSON, large outputs in the blob store.

use std::sync::Arc;

use bytes::Bytes;
use lyra_kit::Random;
use lyra_store::Blobs;
use lyra_types::function::Digest;
use lyra_types::{Error, Result};
use serde::Serialize;

use crate::core::entry::Stored;
use crate::core::{Core, Entry, Event};

/// What a value in the blob store begins with: a line of its own that makes it unlike any other, so that it belongs to
/// one run, and goes with it.
const KEPT: &[u8] = b"lyra-value ";

/// A batch to append.
pub(super) struct Written {
    pub batch: Bytes,
    /// Whether it names blobs.
    pub spilled: bool,
}

/// Writes entries as one batch. Outputs above `inline` bytes go to the blob store first, and the batch names them.
pub(super) async fn write(entries: &[Entry], blobs: &dyn Blobs, inline: usize, random: &Random) -> Result<Written> {
    let mut batch = Vec::with_capacity(entries.len() * 128);
    let mut spilled = false;
    for entry in entries {
        if !batch.is_empty() {
            batch.push(b'\n');
        }
        let start = batch.len();
        put(&mut batch, entry)?;
        if batch.len() - start <= inline {
            continue;
        }
        let Event::Succeeded { key, attempt, resource, output: Stored::Value(output) } = &entry.event else { continue };
        spilled = true;
        let output = Stored::Blob(keep(output, blobs, random).await?);
        let event = Event::Succeeded { key: key.clone(), attempt: *attempt, resource: resource.clone(), output };
        batch.truncate(start);
        put(&mut batch, &Entry { at: entry.at, event })?;
    }
    Ok(Written { batch: Bytes::from(batch), spilled })
}

/// Puts a value into the blob store and returns its digest.
pub(super) async fn keep(value: &impl Serialize, blobs: &dyn Blobs, random: &Random) -> Result<String> {
    let mut bytes = Vec::with_capacity(1_024);
    bytes.extend_from_slice(KEPT);
    bytes.extend_from_slice(format!("{:032x}\n", random.u128()).as_bytes());
    serde_json::to_writer(&mut bytes, value).map_err(unwritable)?;
    Ok(blobs.put(Bytes::from(bytes)).await?.0)
}

/// The JSON of a value that was kept; those of earlier versions of Lyra have no line before it.
pub(crate) fn value_of(bytes: &Bytes) -> Bytes {
    let end =
        if bytes.starts_with(KEPT) { bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
    bytes.slice(end..)
}

/// The digests of what a journal has in the blob store.
pub(crate) fn blobs(batches: &[Bytes]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    each(batches, |entry| match entry.event {
        Event::Succeeded { output: Stored::Blob(digest), .. } => found.push(digest),
        Event::Left { blobs } => found.extend(blobs),
        _ => {}
    })?;
    Ok(found)
}

fn each(batches: &[Bytes], mut take: impl FnMut(Entry)) -> Result<()> {
    batches.iter().flat_map(lines).try_for_each(|line| entry_of(&line).map(&mut take))
}

fn entry_of(line: &Bytes) -> Result<Entry> {
    serde_json::from_slice(line).map_err(|error| Error::internal(format!("a journal's entry can't be read: {error}")))
}

fn put(batch: &mut Vec<u8>, entry: &Entry) -> Result<()> {
    serde_json::to_writer(batch, entry).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::internal(format!("a journal's entry can't be written: {error}"))
}

/// Tokens that are moved before others get their turn: some milliseconds.
pub(super) const TURN: u64 = 10_000;

/// A journal that is read back: entry for entry, so that no more values are in memory than the run holds, and in parts, so
/// that others get their turn however much follows from an entry.
pub(super) struct Replay {
    lines: std::vec::IntoIter<Bytes>,
    next: Option<Entry>,
    blobs: Arc<dyn Blobs>,
    redriven: Option<i64>,
}

impl Replay {
    pub(super) fn new(batches: &[Bytes], blobs: Arc<dyn Blobs>) -> Result<Replay> {
        let lines: Vec<Bytes> = batches.iter().flat_map(lines).collect();
        let mut replay = Replay { lines: lines.into_iter(), next: None, blobs, redriven: None };
        replay.look()?;
        Ok(replay)
    }

    /// Reads the next entry.
    fn look(&mut self) -> Result<Option<Entry>> {
        let next = self.lines.next().map(|line| entry_of(&line)).transpose()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Whether all entries are taken in; not all that follows from the last one needs to be done then.
    pub(super) fn is_read(&self) -> bool {
        self.next.is_none()
    }

    /// When the run was redriven last, as far as it is read.
    pub(super) fn redriven(&self) -> Option<i64> {
        self.redriven
    }

    /// Moves a run by one turn; false when it stands where its journal ends and nothing is left to be moved.
    pub(super) async fn turn(&mut self, core: &mut Core) -> Result<bool> {
        let until = core.moved() + TURN;
        loop {
            let before = self.next.as_ref().and_then(Entry::moved).unwrap_or(u64::MAX);
            let more = core.advance(until.min(before).saturating_sub(core.moved()));
            // Nobody is to do it again.
            core.take_effects();
            if more && core.moved() < before {
                return Ok(true);
            }
            if core.moved() >= until && !self.is_read() {
                return Ok(true);
            }
            let Some(mut entry) = self.look()? else { return Ok(false) };
            match &mut entry.event {
                Event::Succeeded { output, .. } => bring_back(output, self.blobs.as_ref()).await?,
                Event::Redriven => self.redriven = Some(entry.at),
                _ => {}
            }
            core.take(&entry);
        }
    }
}

fn lines(batch: &Bytes) -> Vec<Bytes> {
    let all = batch.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    all.map(|line| batch.slice_ref(line)).collect()
}

async fn bring_back(output: &mut Stored, blobs: &dyn Blobs) -> Result<()> {
    let Stored::Blob(digest) = output else { return Ok(()) };
    let found = blobs.get(&Digest(digest.clone())).await?;
    let bytes = found.ok_or_else(|| Error::internal(format!("the output {digest} is not in the blob store")))?;
    let value = serde_json::from_slice(&value_of(&bytes))
        .map_err(|error| Error::internal(format!("the output {digest} can't be read: {error}")))?;
    *output = Stored::Value(value);
    Ok(())
}
