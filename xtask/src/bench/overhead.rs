//! `overhead`: what the platform adds to a warm call, from the gateway to the handler and back, over a bare HTTP
//! server that sends the same bytes, in the same rounds.

use std::process::Command;

use super::Bench;
use super::client::Client;
use super::lyra::{self, Data};
use super::process::{Server, free_address};
use super::report::Record;
use super::rounds::{Contestant, compare};

const NAME: &str = "overhead";

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    lyra::deploy_js(&mut client, "add", lyra::ADD, false).await?;
    lyra::deploy_js(&mut client, "add-reuse", lyra::ADD, true).await?;
    let folder = tempfile::tempdir()?;
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-server", "--listen", &address.to_string()]);
    let bare = Server::start_and_connect(command, address, &folder.path().join("bare.log"))?;
    let request = lyra::invoke_request;
    let all = [
        Contestant { system: "lyra", server: &server, request: request("add") },
        Contestant { system: "lyra-reuse", server: &server, request: request("add-reuse") },
        Contestant { system: "bare-hyper", server: &bare, request: request("add") },
    ];
    let mut records = compare(bench, NAME, &all).await?;
    add_differences(&mut records);
    Ok(records)
}

/// Writes how much longer each of Lyra's answers took than the bare server's under the same load.
fn add_differences(records: &mut [Record]) {
    for chunk in records.chunks_mut(3) {
        let [ours @ .., bare] = chunk else { continue };
        for record in ours {
            let mut take = record.clone();
            if let Some((ours, theirs)) = record.p50_us.zip(bare.p50_us) {
                take = take.with_number("added_p50_us", ours - theirs);
            }
            if let Some((ours, theirs)) = record.p99_us.zip(bare.p99_us) {
                take = take.with_number("added_p99_us", ours - theirs);
            }
            *record = take;
        }
    }
}
