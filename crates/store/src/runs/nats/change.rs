//! Making runs, and writing their batches.

use bytes::Bytes;

use super::bucket::Bucket;
use super::entry::{Entry, Found, Name, Place, State};
use super::owners::Claim;
use super::{Shared, TRIES};
use crate::StoreError;
use crate::nats::Payload;
use crate::runs::{Append, CreatedRun, NewRunRecord, RunsError};

/// A payload of a message that is to be written; in the data stream, if it is large, before the message.
async fn stored(
    bucket: &Bucket,
    name: &Name,
    place: &Place,
    kind: &str,
    token: u64,
    bytes: &Bytes,
) -> Result<Payload, StoreError> {
    let (payload, large) = Payload::of(bytes.clone(), &format!("{kind}{token:x}"));
    if let Some(large) = large {
        bucket.put_payload(name, place, &payload, &large).await?;
    }
    Ok(payload)
}

impl Shared {
    pub(super) async fn create(&self, run: &NewRunRecord) -> Result<CreatedRun, RunsError> {
        let name = Name { tenant: run.tenant.clone(), id: run.id.clone() };
        let asked = name.clone();
        // What stands for a known id need not be written first.
        let known = self.ask(move |index| index.knows(&asked)).await?;
        let mut expected = 0;
        if known && let Some((sequence, found)) = self.bucket.last(&name).await? {
            if let Some(found) = found {
                return self.known(run, &found);
            }
            expected = sequence;
        }
        if let Some(most) = run.most_live {
            let (tenant, limit) = (run.tenant.clone(), u64::from(most));
            if self.ask(move |index| index.live(&tenant, limit)).await? >= limit {
                return Err(RunsError::Full(most));
            }
        }
        let token = self.bucket.channel.token();
        let place = Place::new(self.bucket.clock().now(), token);
        let head = stored(&self.bucket, &name, &place, "h", token, &run.head).await?;
        let batch = stored(&self.bucket, &name, &place, "b", token, &run.batch).await?;
        let entry = Entry { state: State::new(run, place.clone()), token, head, batch: Some(batch) };
        let claim = Claim::new(self, &name);
        for _ in 0..TRIES {
            if let Some(made) = self.write(&name, expected, entry.clone()).await? {
                self.learn_run(&name, &made).await?;
                claim.told();
                return Ok(CreatedRun::New { fence: made.entry.state.fence });
            }
            match self.bucket.last(&name).await? {
                Some((_, Some(found))) => {
                    claim.told();
                    if found.entry.state.place != place {
                        self.drop_unused(&name, &place, &[&entry.head, entry.batch.as_ref().unwrap_or(&Payload::None)])
                            .await?;
                    }
                    return self.known(run, &found);
                }
                // The mark of an earlier run, or nothing any more.
                Some((sequence, None)) => expected = sequence,
                None => expected = 0,
            }
        }
        claim.told();
        Err(StoreError::Overloaded.into())
    }

    fn known(&self, run: &NewRunRecord, found: &Found) -> Result<CreatedRun, RunsError> {
        if found.entry.state.fingerprint == hex::encode(run.fingerprint) {
            Ok(CreatedRun::Known)
        } else {
            Err(RunsError::Mismatch(run.id.clone()))
        }
    }

    async fn drop_unused(&self, name: &Name, place: &Place, payloads: &[&Payload]) -> Result<(), StoreError> {
        for payload in payloads {
            self.bucket.drop_payload(name, place, payload).await?;
        }
        Ok(())
    }

    pub(super) async fn append(&self, append: &Append) -> Result<(), RunsError> {
        let name = Name { tenant: append.tenant.clone(), id: append.id.clone() };
        let token = self.bucket.channel.token();
        // What is remembered says what to write; whatever it does not allow is decided again on what the stream has.
        let mut found = self.last.lock().get(&name).cloned();
        let mut fresh = false;
        let mut written: Option<Written> = None;
        for _ in 0..TRIES {
            if found.is_none() && !fresh {
                (found, fresh) = (self.fetch(&name).await?, true);
            }
            let decided = match &found {
                None => Err(RunsError::NotFound(append.id.clone())),
                Some(found) => decide(append, &found.entry.state),
            };
            let last = match (decided, found.take()) {
                (Ok(Step::Write), Some(last)) => last,
                (Err(_) | Ok(Step::Check), _) if !fresh => {
                    (found, fresh) = (self.fetch(&name).await?, true);
                    continue;
                }
                (decided, _) => {
                    if let Some(written) = written {
                        self.drop_unused(&name, &written.place, &[&written.batch, &written.output]).await?;
                    }
                    if decided.is_err() {
                        self.last.lock().remove(&name);
                    }
                    return decided.map(drop);
                }
            };
            let place = &last.entry.state.place;
            if written.as_ref().is_none_or(|written| written.place != *place) {
                let batch = stored(&self.bucket, &name, place, "b", token, &append.batch).await?;
                let output = match append.update.as_ref().and_then(|update| update.output.as_ref()) {
                    Some(output) => stored(&self.bucket, &name, place, "o", token, output).await?,
                    None => Payload::None,
                };
                written = Some(Written { place: place.clone(), batch, output });
            }
            let Some(payloads) = &written else { continue };
            let entry = next(append, &last.entry.state, payloads, token);
            if let Some(done) = self.write(&name, last.sequence, entry).await? {
                // The rest is heard from the stream, and no list shows it.
                if append.update.is_some() {
                    self.learn_run(&name, &done).await?;
                }
                return Ok(());
            }
            (found, fresh) = (self.fetch(&name).await?, true);
        }
        Err(StoreError::Overloaded.into())
    }
}

/// Payloads of a batch, put into the data stream where they are large.
struct Written {
    place: Place,
    batch: Payload,
    output: Payload,
}

/// What an append asks for.
enum Step {
    /// A message.
    Write,
    /// Nothing, since the batch is there from a first try, with all that came with it.
    There,
    /// Nothing but to know whether the run is the writer's still.
    Check,
}

fn decide(append: &Append, state: &State) -> Result<Step, RunsError> {
    if state.fence != append.fence {
        return Err(RunsError::Fenced(append.id.clone()));
    }
    if append.number > state.batches {
        return Err(RunsError::Gap { id: append.id.clone(), number: append.number });
    }
    Ok(match (append.batch.is_empty(), &append.update) {
        (false, _) if append.number < state.batches => Step::There,
        (true, None) => Step::Check,
        _ => Step::Write,
    })
}

/// The message that follows on `state`.
fn next(append: &Append, state: &State, payloads: &Written, token: u64) -> Entry {
    let mut state = state.clone();
    let batch = (!append.batch.is_empty()).then(|| payloads.batch.clone());
    state.batches += u64::from(batch.is_some());
    if let Some(update) = &append.update {
        (state.status, state.ended_at) = (update.status, update.ended_at);
        state.owed |= update.status.is_final() && state.notice.is_some();
        state.set_summary(&update.summary);
        if update.output.is_some() {
            state.output = payloads.output.clone();
        }
    }
    Entry { state, token, head: Payload::None, batch }
}
