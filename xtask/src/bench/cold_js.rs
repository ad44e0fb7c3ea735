//! `cold-js`: the first call of `js` versions that have no instance, after a restart (nothing in memory) and right
//! after their deploy. The peer has no such thing as a version: for it, a process is started.

use hyper::Method;

use super::client::Client;
use super::cold::{Call, against, first_calls, process_starts};
use super::lyra::{self, Data};
use super::report::Record;
use super::{Bench, workerd};

const NAME: &str = "cold-js";

fn call(path: String) -> Call<'static> {
    Call { method: Method::POST, path, body: lyra::EVENT }
}

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    lyra::deploy_js(&mut client, "warm", lyra::ADD, false).await?;
    let mut cold = Vec::new();
    for number in 0..bench.count {
        // Every function has code of its own: nothing that one loads serves another.
        let source = format!("const own = {number};\nexport default (event) => ({{ sum: event.a + event.b, own }});");
        let name = format!("cold-{number}");
        lyra::deploy_js(&mut client, &name, &source, false).await?;
        cold.push(call(lyra::invoke_path(&name)));
    }
    drop(client);
    let warm = call(lyra::invoke_path("warm"));
    let deployed = first_calls(Record::new(NAME, "lyra-after-deploy"), &server, &warm, &cold, false).await?;
    server.stop()?;
    let server = data.start(&bench.lyra)?;
    let restarted = first_calls(Record::new(NAME, "lyra"), &server, &warm, &cold, true).await?;
    server.stop()?;
    let process = process_starts(Record::new(NAME, "lyra-process"), &warm, || data.start(&bench.lyra)).await?;
    let ours = vec![restarted, deployed, process];
    let Some(program) = bench.tools.workerd() else { return Ok(ours) };
    let folder = tempfile::tempdir()?;
    let start = || workerd::start(&program, folder.path());
    let peer = process_starts(Record::new(NAME, "workerd"), &call("/".to_owned()), start).await?;
    let mut records = against(ours, &peer);
    records.push(peer);
    Ok(records)
}
