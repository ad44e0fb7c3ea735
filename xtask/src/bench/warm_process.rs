//! `warm-python`, `warm-node` and `warm-native`: kept instances of a function that runs as a process, called again and
//! again through the platform, beside a bare HTTP server with the same handler (for `native`: one that sends fixed bytes).

use anyhow::Context;

use super::Bench;
use super::client::Client;
use super::languages::{Ground, Language};
use super::load::Request;
use super::lyra::{self, Data};
use super::report::Record;
use super::rounds::{Contestant, compare_at};

/// Connections of the closed loops.
const CONNECTIONS: [u32; 3] = [1, 8, 32];

/// Measures Lyra and the bare server.
///
/// # Errors
/// When one of them does not start, or answers wrongly.
pub async fn run(bench: &Bench, name: &'static str, language: Language) -> anyhow::Result<Vec<Record>> {
    let ground = Ground::new(language)?;
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    ground.deploy(&bench.lyra, server.address, "add").await?;
    let answer = lyra::invoke(&mut Client::connect(server.address).await?, "add").await?;
    anyhow::ensure!(answer.body == lyra::SUM, "the function answers {:?}", answer.body);
    let peer = ground.serve()?;
    let request = Request { method: "POST", path: "/".to_owned(), body: Some(lyra::EVENT.to_owned()) };
    let mut client = Client::connect(peer.address).await?;
    let answer = client.send(hyper::Method::POST, "/", lyra::EVENT).await?.ok().context(language.bare_server())?;
    anyhow::ensure!(answer.body == lyra::SUM, "{} answers {:?}", language.bare_server(), answer.body);
    drop(client);
    let all = [
        Contestant { system: "lyra", server: &server, request: lyra::invoke_request("add") },
        Contestant { system: language.bare_server(), server: &peer, request },
    ];
    compare_at(bench, name, &CONNECTIONS, &all).await
}
