//! Batches of a journal: entries as lines of JSON, large outputs in the blob store.

use bytes::Bytes;
use lyra_store::Blobs;
use lyra_types::function::Digest;
use lyra_types::{Error, Result};

use crate::core::entry::Stored;
use crate::core::{Entry, Event};

/// Writes entries as one batch. Outputs above `inline` bytes go to the blob store first, and the batch names them.
pub(super) async fn write(entries: &[Entry], blobs: &dyn Blobs, inline: usize) -> Result<Bytes> {
    let mut batch = Vec::with_capacity(entries.len() * 128);
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
        let bytes = serde_json::to_vec(output).map_err(unwritable)?;
        let digest = blobs.put(Bytes::from(bytes)).await?;
        let output = Stored::Blob(digest.0);
        let event = Event::Succeeded { key: key.clone(), attempt: *attempt, resource: resource.clone(), output };
        batch.truncate(start);
        put(&mut batch, &Entry { at: entry.at, event })?;
    }
    Ok(Bytes::from(batch))
}

fn put(batch: &mut Vec<u8>, entry: &Entry) -> Result<()> {
    serde_json::to_writer(batch, entry).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::internal(format!("a journal's entry can't be written: {error}"))
}

/// Reads batches back, with every output in its place.
pub(super) async fn read(batches: &[Bytes], blobs: &dyn Blobs) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for batch in batches {
        for line in batch.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut entry: Entry = serde_json::from_slice(line)
                .map_err(|error| Error::internal(format!("a journal's entry can't be read: {error}")))?;
            if let Event::Succeeded { output, .. } = &mut entry.event {
                bring_back(output, blobs).await?;
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

async fn bring_back(output: &mut Stored, blobs: &dyn Blobs) -> Result<()> {
    let Stored::Blob(digest) = output else { return Ok(()) };
    let found = blobs.get(&Digest(digest.clone())).await?;
    let bytes = found.ok_or_else(|| Error::internal(format!("the output {digest} is not in the blob store")))?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::internal(format!("the output {digest} can't be read: {error}")))?;
    *output = Stored::Value(value);
    Ok(())
}
