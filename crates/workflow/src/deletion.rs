//! Deleting a run before its time: its history, its output and its values go at once.
//!
//! What must hold: nothing is taken from a run that goes on, nor from one that waits for what another one gives; nobody misses the end of
//! a run who is to be told of it.

use std::time::Duration;

use lyra_types::workflow::no_such_run;
use lyra_types::{Code, Error, Result, RunId, TenantName};
use lyra_wire::Workflows;

use crate::service::Service;

/// What is owed is passed on at once, unless control is away.
const AGAIN: Duration = Duration::from_secs(1);
/// Ends that may be owed at a time, of which this one is looked for.
const OWED: usize = 10_000;

pub(crate) async fn delete(service: &Service, tenant: &TenantName, id: &RunId) -> Result<()> {
    let run = service.run(tenant, id, Duration::ZERO).await?;
    let conflict = |why: &str| Error::new(Code::Conflict, format!("run \"{id}\" is {}: {why}", run.status));
    let Some(ended_at) = run.ended_at.filter(|_| run.status.is_final()) else {
        return Err(conflict("cancel it first; only a run that has ended is deleted"));
    };
    if let Some(parent) = &run.parent {
        match service.run(tenant, &parent.run, Duration::ZERO).await {
            Ok(whole) if !whole.status.is_final() => {
                let why = format!("it is a part of run \"{}\", which has not ended; cancel that first", parent.run);
                return Err(conflict(&why));
            }
            Err(error) if error.code != Code::NotFound => return Err(error),
            _ => {}
        }
    }
    let owed = service.engine().deps().runs.owed(OWED).await?;
    if owed.iter().any(|one| one.record.tenant == *tenant && one.record.id == *id) {
        let detail = format!("those who hear of the end of run \"{id}\" have not been told yet; try again");
        return Err(Error::new(Code::Unavailable, detail).with_retry_after(AGAIN));
    }
    match service.engine().forget_now(tenant, id, ended_at).await {
        Ok(true) => Ok(()),
        // Taken up again since, or gone.
        Ok(false) => match service.run(tenant, id, Duration::ZERO).await {
            Ok(now) => Err(Error::new(Code::Conflict, format!("run \"{id}\" is {} again", now.status))),
            Err(error) => Err(error),
        },
        Err(error) if error.code == Code::NotFound => Err(no_such_run(id)),
        Err(error) => Err(error),
    }
}
