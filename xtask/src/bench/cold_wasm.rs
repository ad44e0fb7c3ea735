//! `cold-wasm`: the first call of `wasm` versions that have no instance, after a restart and right after their
//! deploy, beside starting `wasmtime serve` on the same component, compiled beforehand.

use hyper::Method;

use super::client::Client;
use super::cold::{Call, against, first_calls, process_starts};
use super::lyra::{self, Data};
use super::report::Record;
use super::{Bench, wasmtime};

const NAME: &str = "cold-wasm";

fn call(path: String) -> Call<'static> {
    Call { method: Method::GET, path, body: "" }
}

/// `wasm` with a custom section of its own, so that it is other code with the same behaviour.
fn distinct(wasm: &[u8], number: usize) -> Vec<u8> {
    let mut distinct = wasm.to_vec();
    let content = format!("{number:06}");
    // Section id 0, its size, the length of its name, the name "bench", the content. All sizes are below 128,
    // so one byte of LEB128 each.
    let name = b"bench";
    let size = 1 + name.len() + content.len();
    distinct.extend([0, size as u8, name.len() as u8]);
    distinct.extend(name);
    distinct.extend(content.as_bytes());
    distinct
}

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let wasm = wasmtime::component()?;
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    lyra::deploy_wasm(&mut client, "warm", wasm.clone()).await?;
    let mut cold = Vec::new();
    for number in 0..bench.count {
        let name = format!("cold-{number}");
        lyra::deploy_wasm(&mut client, &name, distinct(&wasm, number)).await?;
        cold.push(call(lyra::http_request(&name).path));
    }
    drop(client);
    let warm = call(lyra::http_request("warm").path);
    let deployed = first_calls(Record::new(NAME, "lyra-after-deploy"), &server, &warm, &cold, false).await?;
    server.stop()?;
    let server = data.start(&bench.lyra)?;
    let restarted = first_calls(Record::new(NAME, "lyra"), &server, &warm, &cold, true).await?;
    server.stop()?;
    let process = process_starts(Record::new(NAME, "lyra-process"), &warm, || data.start(&bench.lyra)).await?;
    let ours = vec![restarted, deployed, process];
    let Some(program) = bench.tools.wasmtime() else { return Ok(ours) };
    let folder = tempfile::tempdir()?;
    let compiled = wasmtime::compile(&program, &wasm, folder.path())?;
    let start = || wasmtime::start(&program, &compiled, folder.path());
    let peer = process_starts(Record::new(NAME, "wasmtime-serve"), &call("/".to_owned()), start).await?;
    let mut records = against(ours, &peer);
    records.push(peer);
    Ok(records)
}
