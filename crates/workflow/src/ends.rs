//! Ends of runs, from the store of runs to whoever tells of them.
//!
//! What must hold: the store owes an end from the write that made it, and is told that it was passed on only when the other side has it
//! for good. So no `kill -9` loses one, and one that is passed on twice, by two processes or by one that did not know, is one delivery.

use std::time::Duration;

use futures::StreamExt;
use lyra_store::runs::OwedRun;
use lyra_types::workflow::Run;
use lyra_types::{Code, Result};

use crate::service::{Service, shown};

/// Ends that are passed on together.
const CHUNK: usize = 100;
/// Of those, at the same time.
const AT_ONCE: usize = 16;
/// How often what is owed is looked for beside when a run ends here: processes that were killed have left some.
const LOOK: Duration = Duration::from_secs(10);
/// Ends that come close together are looked for once.
const GATHER: Duration = Duration::from_millis(10);
/// Wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Service {
    /// Passes on what is owed, for ever.
    pub(crate) async fn pass_on_ends(self) {
        let clock = self.clock().clone();
        loop {
            match self.pass_on_some().await {
                // There may be more.
                Ok(CHUNK) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "ends of runs can't be passed on yet");
                    clock.sleep(AGAIN).await;
                    continue;
                }
            }
            tokio::select! {
                () = self.engine().has_ended() => clock.sleep(GATHER).await,
                () = clock.sleep(LOOK) => {}
            }
        }
    }

    /// Passes on up to [`CHUNK`] ends; returns how many.
    async fn pass_on_some(&self) -> Result<usize> {
        let owed = self.engine().deps().runs.owed(CHUNK).await?;
        let count = owed.len();
        // Together, since the stores commit together what comes together. One that fails keeps none of the others from their way.
        let passing = owed.into_iter().map(|one| self.pass_on(one));
        let outcomes: Vec<Result<()>> = futures::stream::iter(passing).buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().collect::<Result<()>>().map(|()| count)
    }

    async fn pass_on(&self, owed: OwedRun) -> Result<()> {
        let runs = &self.engine().deps().runs;
        let (tenant, id) = (owed.record.tenant.clone(), owed.record.id.clone());
        let Some(ended_at) = owed.record.ended_at else { return Ok(()) };
        match self.told(&owed).await {
            // It was taken up again or forgotten in between: that end is nobody's business any more, or will be another.
            Ok(run) if run.ended_at != Some(ended_at) => return Ok(()),
            Err(error) if error.code == Code::NotFound => return Ok(()),
            Ok(run) => self.ends().ended(&run, ended_at, &owed.notice).await?,
            Err(error) if error.code == Code::Internal => {
                tracing::error!(%tenant, run = %id, %error, "the end of a run can't be told: its record can't be read");
            }
            Err(error) => return Err(error),
        }
        Ok(runs.passed_on(tenant, id, ended_at).await?)
    }

    /// The run as it is shown; without its output where that can't be read.
    async fn told(&self, owed: &OwedRun) -> Result<Run> {
        match self.look(&owed.record.tenant, &owed.record.id).await {
            Err(error) if error.code == Code::Internal => shown(owed.record.clone(), None),
            found => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lyra_kit::Clock;
    use lyra_types::delivery::DestinationsRequest;
    use lyra_types::{RunId, TenantName, WorkflowName};
    use lyra_wire::Workflows;
    use lyra_wire::workflows::NewRun;
    use serde_json::json;

    use super::*;
    use crate::Config;
    use crate::clearing::tests::Site;
    use crate::enact::tests::doubles::FakeEnds;

    async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !is().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn an_end_that_a_killed_process_did_not_pass_on_is_told_by_the_next_and_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let away = Arc::new(FakeEnds { wants: true, away: true, ..FakeEnds::default() });
        let first = Site::on(dir, Config::default(), Clock::system(), Arc::clone(&away)).await;
        first.deploy("").await;
        assert_eq!(first.run("r").await, json!({"sum": 2}));
        let own = NewRun {
            input: json!({"n": 2}).as_object().expect("an object").clone(),
            id: Some(RunId::new("own").expect("an id")),
            destinations: Some(Box::new(DestinationsRequest::default())),
            ..NewRun::default()
        };
        let (tenant, adds) = (TenantName::default_tenant(), WorkflowName::new("adds").expect("a name"));
        let id = first.service.start(&tenant, &adds, own).await.expect("started").id;
        first.service.run(&tenant, &id, Duration::from_secs(60)).await.expect("the run");
        assert_eq!(first.service.engine().deps().runs.owed(10).await.expect("owed").len(), 2);
        first.service.stop(Duration::ZERO).await;
        let Site { dir, service } = first;
        drop(service);

        let ends = Arc::new(FakeEnds { wants: true, ..FakeEnds::default() });
        let second = Site::on(dir, Config::default(), Clock::system(), Arc::clone(&ends)).await;
        let runs = Arc::clone(&second.service.engine().deps().runs);
        until("all is passed on", async || runs.owed(10).await.expect("owed").is_empty()).await;
        let mut told = std::mem::take(&mut *ends.told.lock());
        told.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        let shown: Vec<_> = told.iter().map(|(run, _, notice)| (run.id.as_str(), notice.as_str())).collect();
        assert_eq!(shown, [("own", "its own"), ("r", "that of adds")]);
        for (run, at, _) in &told {
            assert_eq!((run.ended_at, run.output.is_some()), (Some(*at), true));
        }
        // One that ends here is told at once, and none of the others again.
        second.run("last").await;
        until("the end is told", async || !ends.told.lock().is_empty()).await;
        assert_eq!(ends.told.lock().iter().map(|(run, ..)| run.id.to_string()).collect::<Vec<_>>(), ["last"]);
        second.service.stop(Duration::ZERO).await;
    }
}
