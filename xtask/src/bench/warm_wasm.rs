//! `warm-wasm`: a `wasi:http` component, a fresh instance for each call, beside `wasmtime serve` with the same file.

use hyper::Method;

use super::client::Client;
use super::lyra::{self, Data};
use super::report::Record;
use super::rounds::{Contestant, compare};
use super::{Bench, wasmtime};

pub const NAME: &str = "warm-wasm";

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let wasm = wasmtime::component()?;
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    lyra::deploy_wasm(&mut client, "hello", wasm.clone()).await?;
    let request = lyra::http_request("hello");
    let ours = client.send(Method::GET, &request.path, "").await?.ok()?;
    let folder = tempfile::tempdir()?;
    let mut all = vec![Contestant { system: "lyra", server: &server, request }];
    let mut peer = None;
    if let Some(program) = bench.tools.wasmtime() {
        let compiled = wasmtime::compile(&program, &wasm, folder.path())?;
        peer = Some(wasmtime::start(&program, &compiled, folder.path())?);
    }
    if let Some(peer) = &peer {
        let mut client = Client::connect(peer.address).await?;
        let theirs = client.send(Method::GET, "/", "").await?.ok()?;
        anyhow::ensure!(ours.body == theirs.body, "answers differ: {:?}, {:?}", ours.body, theirs.body);
        all.push(Contestant { system: "wasmtime-serve", server: peer, request: wasmtime::request() });
    }
    compare(bench, NAME, &all).await
}
