//! Steps: jobs, and the one that fails for good.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use lyra_client::JobFilter;
use lyra_types::JobId;
use lyra_types::job::JobStatus;
use lyra_types::name::Qualifier;
use serde_json::{Value, json};

use super::tour::{Tour, name};
use crate::table::millis;

/// Jobs handed in.
const JOBS: usize = 200;

/// Hand-ins at the same time.
const AT_ONCE: usize = 16;

/// The one whose order is bad.
const BAD: usize = 117;

/// Longest until all have ended.
const LIMIT: Duration = Duration::from_secs(60);

fn order(number: usize) -> Value {
    let quantity = if number == BAD { 0 } else { number + 1 };
    json!({"id": format!("B-{number}"), "country": "FR", "lines": [{"sku": "pen", "quantity": quantity, "cents": 100}]})
}

/// Two hundred jobs, each durable when its id is there, all done.
pub async fn two_hundred(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        &format!("{JOBS} jobs"),
        "A call that may take its time: accepted when it is safely on disk, then run, retried and recorded.",
    );
    tour.stage.command("lyra invoke order-total --async -d '{\"id\":\"B-0\", …}'");
    let begin = tour.stage.now();
    let function = name("order-total")?;
    let submitted: Vec<(usize, JobId)> = stream::iter(0..JOBS)
        .map(|number| {
            let (client, function) = (tour.client.clone(), function.clone());
            async move {
                let event = order(number).to_string();
                let accepted = client.submit(&function, &Qualifier::Live, event, None).await?;
                anyhow::Ok((number, accepted.id.parse::<JobId>()?))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let accepted = tour.stage.now() - begin;
    tour.stage.count_calls(JOBS);
    tour.stage.answer(&format!("{} accepted in {}, each durable", submitted.len(), millis(accepted)));

    let results = submitted.iter().filter(|(number, _)| *number != BAD).map(|&(number, id)| {
        let client = tour.client.clone();
        async move {
            let result: Value = serde_json::from_slice(&client.wait_job_result(id, LIMIT).await?)?;
            let net = u64::try_from((number + 1) * 100)?;
            ensure!(result["net"] == net, "job {id} gave {result}");
            anyhow::Ok(())
        }
    });
    let futures: Vec<_> = results.collect();
    let right =
        stream::iter(futures).buffer_unordered(AT_ONCE).try_fold(0, |sum, ()| async move { Ok(sum + 1) }).await?;
    let drained = tour.stage.now() - begin;
    let listed =
        tour.client.jobs(&JobFilter { status: Some(JobStatus::Succeeded), ..JobFilter::default() }, JOBS).await?;
    ensure!(right == JOBS - 1 && listed.items.len() == JOBS - 1, "{right} right, {} succeeded", listed.items.len());
    tour.stage.command("lyra job ls --status succeeded -q | wc -l");
    tour.stage.answer(&listed.items.len().to_string());
    tour.stage.holds(&format!("{right} done {} after the first was handed in; each result is right", millis(drained)));
    let id_of = |wanted: usize| submitted.iter().find(|(number, _)| *number == wanted).map(|(_, id)| *id);
    (tour.done_job, tour.dead_job) = (id_of(0), id_of(BAD));
    tour.stage.end().await;
    Ok(())
}

/// The job whose tries are used up.
pub async fn dead_letter(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "The one that failed",
        "Its order is bad, so no try can mend it. It is kept, with its error, until somebody decides.",
    );
    let id = tour.dead_job.context("there is no such job")?;
    tour.stage.command(&format!("lyra job wait {id}"));
    let job = tour.client.wait_job(id, LIMIT).await?;
    if job.status != JobStatus::Dead {
        bail!("the job is {}, not dead", job.status);
    }
    ensure!(job.attempts == 2, "it was tried {} times, not 2", job.attempts);
    let error = job.error.as_ref().context("it has no error")?;
    ensure!(error.detail.contains("InvalidOrder"), "its error is {}", error.detail);
    tour.stage.answer(&format!("{} after {} tries: {}", job.status, job.attempts, error.detail));
    tour.stage.command("lyra dead-letter ls");
    let dead = tour.client.dead_letters(10).await?;
    ensure!(dead.items.len() == 1 && dead.items[0].id == id.to_string(), "{} jobs are dead", dead.items.len());
    let listed = &dead.items[0];
    tour.stage.answer(&format!(
        "{}  {}@{}  tries {}/{}",
        listed.id, listed.function, listed.version, listed.attempts, listed.max_attempts
    ));
    tour.stage.holds("retried, then kept; `lyra dead-letter redrive` puts it back in the queue");
    tour.stage.end().await;
    Ok(())
}
