//! How fast jobs are accepted, leased and finished durably, by number of concurrent callers.
//!
//! `cargo run --release -p lyra-store --example jobs_bench [DIR|nats://HOST:PORT] [SECONDS]`; the directory must be on the disk to
//! be measured, the server must have no streams of the names `bench-…`.
#![expect(clippy::print_stdout, reason = "it prints its measurements")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::{Clock, Ids, Random};
use lyra_store::jobs::{LeaseRequest, MostQueued, NewJob, Outcome};
use lyra_store::{Access, Jobs, SqliteJobs, open_jobs};
use lyra_types::{FunctionName, TenantName};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let place = args.next().unwrap_or_else(|| ".".to_owned());
    let seconds: u64 = args.next().map_or(Ok(3), |text| text.parse())?;
    let dir = tempfile::tempdir_in(if place.contains("://") { "." } else { place.as_str() })?;
    println!("{:>8} {:>10} {:>10} {:>10}", "callers", "accept/s", "p50 us", "p99 us");
    for callers in [1, 8, 32, 64, 256] {
        let jobs: Arc<dyn Jobs> = if place.contains("://") {
            open_jobs(&format!("{place}?bucket=bench-{callers}"), &Access::default()).await?
        } else {
            let jobs = Arc::new(SqliteJobs::open(&dir.path().join(format!("jobs-{callers}.db")), None)?);
            accept(&(Arc::clone(&jobs) as Arc<dyn Jobs>), callers, Duration::from_secs(seconds)).await?;
            let stats = jobs.stats();
            println!("{:>19.1} jobs in a commit", stats.requests as f64 / stats.commits as f64);
            jobs
        };
        if place.contains("://") {
            accept(&jobs, callers, Duration::from_secs(seconds)).await?;
        }
        if callers == 64 {
            drain(&jobs).await?;
        }
    }
    if place.contains("://") {
        let start = Clock::system().instant();
        let jobs = open_jobs(&format!("{place}?bucket=bench-64"), &Access::default()).await?;
        let known = jobs.counts().await?.of(lyra_types::job::JobStatus::Succeeded) as f64;
        println!("    read {:>10.0} jobs/s when opened", known / start.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn accept(jobs: &Arc<dyn Jobs>, callers: usize, time: Duration) -> Result<(), Failure> {
    let clock = Clock::system();
    let ids = Ids::new(clock.clone(), Random::system());
    let (tenant, function) = (TenantName::default_tenant(), FunctionName::new("hello")?);
    let start = clock.instant();
    let accepted = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (jobs, clock, ids, accepted) = (Arc::clone(jobs), clock.clone(), ids.clone(), Arc::clone(&accepted));
            let (tenant, function) = (tenant.clone(), function.clone());
            lyra_kit::tasks::spawn("caller", async move {
                let mut latencies = Vec::new();
                while start.elapsed() < time {
                    let begun = clock.instant();
                    let job = NewJob {
                        id: ids.job(),
                        tenant: tenant.clone(),
                        function: function.clone(),
                        version: 1,
                        generation: 1,
                        max_attempts: 3,
                        event: Bytes::from_static(b"{\"hello\":\"world\",\"n\":1}"),
                        idempotency: None,
                        user: None,
                        most_queued: MostQueued::default(),
                        notice: None,
                        now: clock.now(),
                    };
                    jobs.accept(job).await?;
                    accepted.fetch_add(1, Ordering::Relaxed);
                    latencies.push(begun.elapsed());
                }
                Ok::<_, Failure>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    latencies.sort_unstable();
    let seconds = start.elapsed().as_secs_f64();
    let done = accepted.load(Ordering::Relaxed) as f64;
    let at = |share: usize| latencies.get(latencies.len() * share / 100).map_or(0, Duration::as_micros);
    println!("{callers:>8} {:>10.0} {:>10} {:>10}", done / seconds, at(50), at(99));
    Ok(())
}

/// Leases and finishes everything that was accepted, 64 at a time.
async fn drain(jobs: &Arc<dyn Jobs>) -> Result<(), Failure> {
    let clock = Clock::system();
    let ids = Ids::new(clock.clone(), Random::system());
    let start = clock.instant();
    let mut done = 0u64;
    loop {
        let request = LeaseRequest {
            owner: 1,
            now: clock.now(),
            ttl: Duration::from_secs(30),
            invocations: (0..64).map(|_| ids.invocation()).collect(),
            max_bytes: 64 << 20,
            per_function: 64,
            running: HashMap::new(),
            rooms: Vec::new(),
            after: None,
        };
        let leased = jobs.lease(request).await?.jobs;
        if leased.is_empty() {
            break;
        }
        done += leased.len() as u64;
        let ends = leased
            .iter()
            .map(|job| jobs.finish(job.lease(), clock.now(), Outcome::Succeeded(Bytes::from_static(b"{\"ok\":true}"))));
        futures::future::try_join_all(ends).await?;
    }
    println!("   drain {:>10.0} jobs/s leased and finished, {done} jobs", done as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
