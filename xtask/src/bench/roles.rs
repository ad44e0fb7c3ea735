//! `roles`: what control, a worker and a gateway take as processes of their own: with a kept instance of each runtime while nobody
//! calls, and under a steady load of calls. Of a process itself, and with its instances.

use std::time::Duration;

use lyra_kit::Clock;

use super::Bench;
use super::client::Client;
use super::idle::REST;
use super::languages::{Ground, Language};
use super::load::{self, Arrivals};
use super::lyra::{self, Data};
use super::process::Server;
use super::report::Record;

const NAME: &str = "roles";
/// Calls a second to each of the functions.
const RATE: f64 = 100.0;
/// Connections of each load.
const CONNECTIONS: u32 = 8;
/// Least time over which processor time is taken, which is known to 10 ms.
const LEAST_SPAN: Duration = Duration::from_secs(10);
const FUNCTIONS: [&str; 4] = ["js", "python", "nodejs", "native"];

/// Measures the three processes.
///
/// # Errors
/// When one does not start, or a call fails.
pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let control = data.start_control(&bench.lyra)?;
    let worker = data.start_worker(&bench.lyra, "worker", &control)?;
    let gateway = data.start_gateway(&bench.lyra, &control)?;
    let mut client = Client::connect(gateway.address).await?;
    lyra::until_workers(&mut client, 1).await?;
    lyra::deploy_js(&mut client, FUNCTIONS[0], lyra::ADD, false).await?;
    for language in [Language::Python, Language::Node, Language::Native] {
        Ground::new(language)?.deploy(&bench.lyra, gateway.address, language.runtime()).await?;
    }
    for function in FUNCTIONS {
        lyra::invoke(&mut client, function).await?;
    }
    drop(client);
    let all = [("lyra-worker", &worker), ("lyra-control", &control), ("lyra-gateway", &gateway)];
    let span = Duration::from_secs(bench.seconds).max(LEAST_SPAN);
    Clock::system().sleep(REST).await;
    let began = used(&all)?;
    Clock::system().sleep(span).await;
    let mut records = report(&all, "idle", &began, span)?;
    let began = used(&all)?;
    let requests = FUNCTIONS.map(lyra::invoke_request);
    let arrivals = Arrivals::Open { connections: CONNECTIONS, rate: RATE };
    let address = gateway.address;
    let loads =
        requests.iter().map(|request| load::run(&bench.tools.oha, address, request, arrivals, span.as_secs(), 200));
    futures::future::try_join_all(loads).await?;
    let loaded = report(&all, "loaded", &began, span)?;
    records.extend(loaded.into_iter().map(|record| record.with_number("calls_per_s", RATE * FUNCTIONS.len() as f64)));
    for server in [gateway, worker, control] {
        server.stop()?;
    }
    Ok(records)
}

/// Processor time so far of each process itself, and with its children.
fn used(all: &[(&str, &Server)]) -> anyhow::Result<Vec<(Duration, Duration)>> {
    all.iter().map(|(_, server)| Ok((server.own_processor_time()?, server.processor_time()?))).collect()
}

fn report(
    all: &[(&str, &Server)],
    phase: &str,
    began: &[(Duration, Duration)],
    span: Duration,
) -> anyhow::Result<Vec<Record>> {
    let share = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / span.as_secs_f64();
    let now = used(all)?;
    let each = all.iter().zip(began.iter().zip(now)).map(|((name, server), ((own, tree), (own_now, tree_now)))| {
        let memory = server.own_memory()?;
        let mut record = Record::new(NAME, *name)
            .with("phase", phase)
            .with_number("cpu", share(own_now, *own))
            .with_number("pss_mb", memory.pss_mb)
            .with_number("cpu_with_instances", share(tree_now, *tree))
            .with_number("pss_with_instances_mb", server.memory()?.pss_mb);
        record.rss_mb = Some(memory.rss_mb);
        anyhow::Ok(record)
    });
    each.collect()
}
