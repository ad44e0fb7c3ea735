//! Who lives, and taking over the runs of those who do not.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use lyra_types::Timestamp;
use lyra_types::workflow::RunStatus;

use super::bucket::UNTIL;
use super::entry::{Entry, Name, State};
use super::{AT_ONCE, Shared, TRIES};
use crate::StoreError;
use crate::nats::Payload;
use crate::runs::{RunsError, TakenRun};

/// Kept while a process makes itself the owner of a run. Dropped before the caller has been told, it remembers the run: it
/// may have an owner that does not know of it, and is looked at by the next take-over.
pub(super) struct Claim<'a> {
    shared: &'a Shared,
    name: Option<Name>,
}

impl<'a> Claim<'a> {
    pub(super) fn new(shared: &'a Shared, name: &Name) -> Claim<'a> {
        Claim { shared, name: Some(name.clone()) }
    }

    /// The caller learns how it went.
    pub(super) fn told(mut self) {
        self.name = None;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.shared.stranded.lock().insert(name);
        }
    }
}

impl Shared {
    fn owner_subject(&self, owner: u64) -> String {
        self.bucket.data_subject("o", &format!("{owner:016x}"))
    }

    pub(super) async fn renew(&self, owner: u64, until: Timestamp) -> Result<(), StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(UNTIL, until.millis().to_string().as_str());
        self.bucket.channel.send(&self.owner_subject(owner), &headers, &Bytes::new(), "renew an owner").await
    }

    /// Whether an owner lives, as the stream's leader has it.
    async fn lives(&self, owner: u64, now: Timestamp) -> Result<bool, StoreError> {
        let subject = self.owner_subject(owner);
        let found = self.bucket.channel.last(&self.bucket.data, &subject, "look for an owner").await?;
        Ok(found.is_some_and(|message| until(&message.headers).is_some_and(|until| until >= now)))
    }

    pub(super) async fn take(
        &self,
        owner: u64,
        now: Timestamp,
        alone: bool,
        limit: usize,
    ) -> Result<Vec<TakenRun>, RunsError> {
        let stranded: Vec<Name> = self.stranded.lock().iter().take(limit).cloned().collect();
        let mut names: Vec<(Name, u64)> = stranded.into_iter().map(|name| (name, owner)).collect();
        for other in self.ask(move |index| index.other_owners(owner)).await? {
            if names.len() >= limit {
                break;
            }
            if alone || !self.lives(other, now).await? {
                let left = limit - names.len();
                let theirs = self.ask(move |index| index.open_of(other, left)).await?;
                names.extend(theirs.into_iter().map(|name| (name, other)));
            }
        }
        let takes = names.into_iter().map(|(name, of)| async move {
            let may = |state: &State| !state.status.is_final() && state.owner == of;
            let taken = self.take_one(&name, owner, may, false).await;
            (name, taken)
        });
        let outcomes: Vec<_> = futures::stream::iter(takes).buffered(AT_ONCE).collect().await;
        let (mut taken, mut failed) = (Vec::new(), None);
        for (name, outcome) in outcomes {
            match outcome {
                Ok(Some(one)) => taken.push(one),
                Ok(None) => drop(self.stranded.lock().remove(&name)),
                Err(error) => {
                    tracing::warn!(%error, run = %name.id, "a run can't be taken over yet");
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if taken.is_empty() => Err(error),
            // Those that were taken must reach their owner: the rest is asked for again.
            _ => Ok(taken
                .into_iter()
                .map(|(run, claim)| {
                    self.stranded.lock().remove(&Name { tenant: run.record.tenant.clone(), id: run.record.id.clone() });
                    claim.told();
                    run
                })
                .collect()),
        }
    }

    /// Makes `owner` the owner of a run, if it is `may` still so.
    async fn take_one(
        &self,
        name: &Name,
        owner: u64,
        may: impl Fn(&State) -> bool + Send,
        reopen: bool,
    ) -> Result<Option<(TakenRun, Claim<'_>)>, RunsError> {
        for _ in 0..TRIES {
            let Some(found) = self.fetch(name).await?.filter(|found| may(&found.entry.state)) else {
                self.learn_gone_or_moved(name).await?;
                return Ok(None);
            };
            let record = found.entry.state.record(name);
            let mut state = found.entry.state;
            state.owner = owner;
            state.fence += 1;
            if reopen {
                (state.status, state.ended_at) = (RunStatus::Running, None);
            }
            let entry = Entry { state, token: self.bucket.channel.token(), head: Payload::None, batch: None };
            let claim = Claim::new(self, name);
            let Some(done) = self.write(name, found.sequence, entry).await? else {
                claim.told();
                continue;
            };
            self.learn_run(name, &done).await?;
            // Not before: a former owner that goes on writing would be ahead for ever. Where it can't be read, the claim
            // remembers the run.
            let (head, batches, damage) = match self.journal(name, &done).await {
                Ok(Some((head, batches))) => (head, batches, None),
                Ok(None) => {
                    claim.told();
                    continue;
                }
                // It will not be better the next time: the owner says so to whoever asks.
                Err(StoreError::Damaged { detail, .. }) => (Bytes::new(), Vec::new(), Some(detail)),
                Err(error) => return Err(error.into()),
            };
            let fence = done.entry.state.fence;
            return Ok(Some((TakenRun { record, fence, head, batches, damage }, claim)));
        }
        Err(StoreError::Overloaded.into())
    }

    /// What the index proposed is not so: it learns what is.
    async fn learn_gone_or_moved(&self, name: &Name) -> Result<(), StoreError> {
        if let Some((_, Some(found))) = self.bucket.last(name).await? {
            self.learn_run(name, &found).await?;
        }
        Ok(())
    }

    pub(super) async fn reopen(&self, name: &Name, owner: u64) -> Result<TakenRun, RunsError> {
        let taken = self.take_one(name, owner, |_| true, true).await?;
        let (run, claim) = taken.ok_or_else(|| RunsError::NotFound(name.id.clone()))?;
        claim.told();
        Ok(run)
    }
}

/// Until when the message of these headers counts.
pub(super) fn until(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(UNTIL)?.as_str().parse().ok().map(Timestamp::from_millis)
}
