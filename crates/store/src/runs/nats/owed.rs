//! Runs that have ended and whose owners want to hear of it.

use lyra_types::Timestamp;

use super::entry::{Entry, Name};
use super::{Shared, TRIES};
use crate::StoreError;
use crate::nats::Payload;
use crate::runs::{OwedRun, RunsError};

impl Shared {
    /// What the index proposes, as the stream has it: another process may have passed it on since.
    pub(super) async fn owed(&self, limit: usize) -> Result<Vec<OwedRun>, StoreError> {
        let mut owed = Vec::new();
        for one in self.ask(move |index| index.owed(limit)).await? {
            let name = Name { tenant: one.record.tenant, id: one.record.id };
            let Some(found) = self.fetch(&name).await? else { continue };
            let state = &found.entry.state;
            match &state.notice {
                Some(notice) if state.owed && state.status.is_final() => {
                    owed.push(OwedRun { record: state.record(&name), notice: notice.clone() });
                }
                _ => self.learn_run(&name, &found).await?,
            }
        }
        Ok(owed)
    }

    pub(super) async fn passed_on(&self, name: &Name, ended_at: Timestamp) -> Result<(), RunsError> {
        for _ in 0..TRIES {
            let Some(found) = self.fetch(name).await? else { return Ok(()) };
            let mut state = found.entry.state.clone();
            if !state.owed || state.ended_at != Some(ended_at) {
                self.learn_run(name, &found).await?;
                return Ok(());
            }
            state.owed = false;
            let entry = Entry { state, token: self.bucket.channel.token(), head: Payload::None, batch: None };
            if let Some(done) = self.write(name, found.sequence, entry).await? {
                self.learn_run(name, &done).await?;
                return Ok(());
            }
        }
        Err(StoreError::Overloaded.into())
    }
}
