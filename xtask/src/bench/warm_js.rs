//! `warm-js`: a `js` function called again and again, a fresh instance for each call (and, for comparison, a kept
//! one), beside `workerd`'s one warm isolate.

use anyhow::Context;

use super::client::Client;
use super::lyra::{self, Data};
use super::report::Record;
use super::rounds::{Contestant, compare};
use super::{Bench, workerd};

pub const NAME: &str = "warm-js";

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    for (name, reuse) in [("add", false), ("add-reuse", true)] {
        lyra::deploy_js(&mut client, name, lyra::ADD, reuse).await?;
        let answer = lyra::invoke(&mut client, name).await?;
        anyhow::ensure!(answer.body == lyra::SUM, "{name} answers {:?}", answer.body);
    }
    let folder = tempfile::tempdir()?;
    let peer = bench.tools.workerd().map(|program| workerd::start(&program, folder.path())).transpose()?;
    let mut all = vec![
        Contestant { system: "lyra", server: &server, request: lyra::invoke_request("add") },
        Contestant { system: "lyra-reuse", server: &server, request: lyra::invoke_request("add-reuse") },
    ];
    if let Some(peer) = &peer {
        let mut client = Client::connect(peer.address).await?;
        let answer = client.send(hyper::Method::POST, "/", lyra::EVENT).await?.ok().context("workerd")?;
        anyhow::ensure!(answer.body == lyra::SUM, "workerd answers {:?}", answer.body);
        all.push(Contestant { system: "workerd", server: peer, request: workerd::request() });
    }
    compare(bench, NAME, &all).await
}
