//! `deploy`: from the request to a stored, checked, compiled version, and from the same moment to the first answer
//! of the new code (the edit loop).

use std::time::Duration;

use super::client::{Answer, Client};
use super::lyra::{self, Data};
use super::report::{Record, median, micros, percentile};
use super::{Bench, wasmtime};

const NAME: &str = "deploy";

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    // In an empty data directory, the first deploy also waits for the base of all JavaScript functions to be compiled.
    let first = lyra::deploy_js(&mut client, "first", lyra::ADD, false).await?;
    let (mut deploys, mut edits) = (Vec::new(), Vec::new());
    for number in 0..bench.count {
        let source = format!("export default (event) => ({{ sum: event.a + event.b, edit: {number} }});");
        let deployed = lyra::deploy_js(&mut client, "edited", &source, false).await?;
        let called = lyra::invoke(&mut client, "edited").await?;
        let expected = format!("{{\"sum\":5,\"edit\":{number}}}");
        anyhow::ensure!(called.body == expected, "after edit {number}: {:?}", called.body);
        edits.push(deployed.took + called.took);
        deploys.push(deployed);
    }
    let mut records = vec![record("lyra-js-first", &[first]), record("lyra-js", &deploys), edit_record(&edits)];
    let wasm = wasmtime::component()?;
    let mut deploys = Vec::new();
    for number in 0..bench.count.min(50) {
        deploys.push(lyra::deploy_wasm(&mut client, &format!("wasm-{number}"), wasm.clone()).await?);
    }
    // The first one compiles; the others find the compiled code by its digest.
    let first = deploys.remove(0);
    records.push(record("lyra-wasm", &[first]));
    records.push(record("lyra-wasm-same-code", &deploys));
    let memory = server.memory()?;
    for record in &mut records {
        record.rss_mb = Some(memory.rss_mb);
    }
    Ok(records)
}

fn record(system: &str, deploys: &[Answer]) -> Record {
    let took = || deploys.iter().map(|deploy| micros(deploy.took));
    let mut record = Record::new(NAME, system).with("deploys", deploys.len());
    record.p50_us = Some(median(took()));
    record.p99_us = Some(percentile(took(), 0.99));
    record.rps = Some(deploys.len() as f64 * 1e6 / took().sum::<f64>());
    record
}

fn edit_record(edits: &[Duration]) -> Record {
    let mut record = Record::new(NAME, "lyra-js-edit-to-answer").with("edits", edits.len());
    record.p50_us = Some(median(edits.iter().copied().map(micros)));
    record.p99_us = Some(percentile(edits.iter().copied().map(micros), 0.99));
    record
}
