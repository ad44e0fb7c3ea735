//! Step: functions in Python and Node.js, as sandboxed processes, where this machine has the interpreters.

use anyhow::{Context, Result, ensure};
use lyra_client::Precondition;
use lyra_types::api::{CodeInput, DeployRequest};
use serde_json::{Value, json};

use super::example;
use super::tour::{Tour, name};
use crate::table::millis;

/// A function that tells what it sees.
struct Inside {
    language: &'static str,
    runtime: &'static str,
    name: &'static str,
    command: &'static str,
    source: &'static str,
    handler: &'static str,
}

const INSIDE: [Inside; 2] = [
    Inside {
        language: "Python",
        runtime: "python",
        name: "python-inside",
        command: "lyra deploy examples/python-inside",
        source: example::PYTHON_INSIDE,
        handler: "main.handler",
    },
    Inside {
        language: "Node.js",
        runtime: "nodejs",
        name: "node-inside",
        command: "lyra deploy examples/node-inside --runtime nodejs",
        source: example::NODE_INSIDE,
        handler: "index.handler",
    },
];

/// Calls of each, one after the other.
const CALLS: usize = 20;

/// Real interpreters, that see next to nothing of the machine.
pub async fn sandboxed(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "Python and Node.js, as sandboxed processes",
        "The machine's own interpreters, started ahead in sandboxes without network, users or files of this machine.",
    );
    let mut shown = Vec::new();
    for inside in &INSIDE {
        if one(tour, inside).await? {
            shown.push(inside.language);
        }
    }
    match shown[..] {
        [] => tour.stage.holds("left out: `lyra up` goes on without what is not there, and says so at deploy"),
        _ => tour.stage.holds("no process but their own, no network but their own loopback, and only /tmp to write to"),
    }
    tour.stage.end().await;
    Ok(())
}

/// Shows one language; false: this machine can't run it, and that was said.
async fn one(tour: &mut Tour<'_>, inside: &Inside) -> Result<bool> {
    let request = DeployRequest {
        runtime: inside.runtime.to_owned(),
        handler: Some(inside.handler.to_owned()),
        code: CodeInput { source: Some(inside.source.to_owned()), ..CodeInput::default() },
        ..DeployRequest::default()
    };
    tour.stage.command(inside.command);
    let begin = tour.stage.now();
    let outcome = tour.client.deploy(&name(inside.name)?, &request, Precondition::None).await;
    let took = tour.stage.now() - begin;
    if let Err(error) = &outcome
        && let Some(refused) = error.api().filter(|error| error.errors.iter().any(|field| field.field == "runtime"))
    {
        tour.stage.answer(&format!("left out, since {}", refused.detail));
        return Ok(false);
    }
    outcome.with_context(|| format!("deploying {}", inside.name))?;
    tour.stage.answer(&format!("deployed {} ({}) in {}", inside.name, inside.runtime, millis(took)));
    let seen = json!({"processes": 2, "interfaces": ["lo"], "writable": ["/tmp"]});
    let first = tour.invoke_and_show(inside.name, "{}", &seen).await?;
    ensure!(first.call.start.as_deref() == Some("cold"), "the first call's start was {:?}", first.call.start);
    let (mut fastest, mut warm) = (None, 0);
    for _ in 0..CALLS {
        let call = tour.invoke(inside.name, "{}").await?;
        let result: Value = serde_json::from_slice(&call.body)?;
        ensure!(result == seen, "{} gave {result}", inside.name);
        warm += usize::from(call.call.start.as_deref() == Some("warm"));
        fastest = fastest.into_iter().chain(call.call.phases.map(|phases| phases.total())).min();
    }
    let fastest = fastest.context("no answer has times")?;
    tour.stage.answer(&format!("{CALLS} more: {warm} warm, the fastest in {}", millis(fastest)));
    Ok(true)
}
