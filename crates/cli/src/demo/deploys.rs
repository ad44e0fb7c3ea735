//! Steps: deploying and calling functions.

use anyhow::{Context, Result, bail, ensure};
use lyra_client::Precondition;
use lyra_types::Code;
use serde_json::json;

use super::example;
use super::numbers::Latencies;
use super::tour::{Tour, js, name};
use crate::excerpt::excerpt;
use crate::table::millis;

/// Calls, one after the other, that are measured.
const CALLS: usize = 300;

/// A function, from a file to its first answer.
pub async fn first_function(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "Deploy a function, and call it",
        "The code is checked and compiled at deploy time; each call gets a fresh sandbox of its own.",
    );
    tour.deploy("lyra deploy examples/js-hello --name hello", "hello", js(example::HELLO), 1).await?;
    let first = tour.invoke_and_show("hello", r#"{"name":"Ada"}"#, &json!({"message": "Hello, Ada!"})).await?;
    ensure!(first.call.version == Some(1), "the answer is of version {:?}", first.call.version);
    ensure!(first.call.phases.is_some(), "the answer has no times");
    tour.stage.holds("answered by version 1; the times say where the time went");
    tour.stage.end().await;
    Ok(())
}

/// How fast a call is when nothing is to be loaded.
pub async fn warm_calls(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        &format!("Call it {CALLS} times more"),
        "Every call still runs in a sandbox made for it alone: no state passes from one call to the next.",
    );
    tour.stage.command("lyra invoke hello -d '{\"name\":\"Grace\"}'");
    let (mut taken, mut inside, mut fresh) = (Vec::new(), Vec::new(), 0);
    for _ in 0..CALLS {
        let begin = tour.stage.now();
        let invocation = tour.invoke("hello", r#"{"name":"Grace"}"#).await?;
        taken.push(tour.stage.now() - begin);
        inside.extend(invocation.call.phases.map(|phases| phases.total()));
        fresh += usize::from(invocation.call.instance.as_deref() == Some("fresh"));
    }
    ensure!(fresh == CALLS, "{fresh} of {CALLS} calls had a fresh instance");
    ensure!(inside.len() == CALLS, "an answer has no times");
    tour.stage.answer(&format!("over HTTP, there and back:  {}", Latencies::new(taken).summary()));
    tour.stage.answer(&format!("queue, start and handler:   {}", Latencies::new(inside).summary()));
    tour.stage.holds(&format!("{CALLS} calls, {CALLS} fresh sandboxes"));
    tour.stage.end().await;
    Ok(())
}

/// A function's own errors reach its caller.
pub async fn own_errors(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage
        .step("A function that says no", "What a function throws reaches its caller with name, message and stack.");
    let command = "lyra deploy examples/js-order-total --name order-total --max-attempts 2";
    let request = lyra_types::api::DeployRequest { max_attempts: Some(2), ..js(example::ORDER_TOTAL) };
    tour.deploy(command, "order-total", request, 1).await?;
    let order = r#"{"id":"A-1","country":"DE","lines":[{"sku":"pen","quantity":3,"cents":120}]}"#;
    let total = json!({"id": "A-1", "net": 360, "vat": 68, "total": 428});
    let call = tour.invoke_and_show("order-total", order, &total).await?.call;
    tour.order_call = Some(call.invocation.context("the answer has no invocation id")?.parse()?);
    let bad = r#"{"id":"A-2","country":"DE","lines":[{"sku":"ink","quantity":0,"cents":900}]}"#;
    let error = tour.fail_and_show("order-total", bad, Code::FunctionError).await?;
    let thrown = error.thrown.context("the error does not say what was thrown")?;
    ensure!(thrown.name == "InvalidOrder", "the function threw {}", thrown.name);
    tour.stage.holds("its own kind of error, InvalidOrder; the command ends with exit code 1");
    tour.stage.end().await;
    Ok(())
}

/// Timers and parallel work inside of one call.
pub async fn timers(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "Async code and timers",
        "Nine items of 20 ms each, three at a time. While a function waits, it holds no thread.",
    );
    tour.deploy("lyra deploy examples/js-batch --name batch", "batch", js(example::BATCH), 1).await?;
    let items = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let expected = json!({"results": items.map(str::to_uppercase), "lanes": 3});
    let event = r#"{"items":["a","b","c","d","e","f","g","h","i"],"atOnce":3}"#;
    let call = tour.invoke_and_show("batch", event, &expected).await?.call;
    let exec = call.phases.context("the answer has no times")?.exec;
    // Only a lower bound can be promised on a machine that others use too.
    ensure!(exec.as_millis() >= 55, "three rounds of 20 ms took {}", millis(exec));
    tour.stage.holds(&format!("{} in the handler, where one after the other would take 180 ms", millis(exec)));
    tour.stage.end().await;
    Ok(())
}

/// Code that can't be loaded is refused, with the place.
pub async fn refused_code(tour: &mut Tour<'_>) -> Result<()> {
    const BROKEN: &str = "export default function hello(event) {\n  return { message: `Hello, ${event.name}` ;\n}\n";
    tour.stage.step("A typing error", "Bad code is refused at deploy time, with its place. What runs goes on running.");
    tour.stage.command("lyra deploy hello.js");
    let outcome = tour.client.deploy(&name("hello")?, &js(BROKEN), Precondition::None).await;
    let error = match outcome {
        Ok(deployed) => bail!("the code was taken as version {}", deployed.function.version),
        Err(error) => error.api().cloned().with_context(|| format!("deploying: {error}"))?,
    };
    ensure!(error.code == Code::InvalidCode, "refused with {}: {}", error.code, error.detail);
    let field = error.errors.first().context("the error names no place")?;
    let line = field.line.context("the error names no line")?;
    ensure!(line == 2 || line == 3, "the fault is in line 2, the error says {line}");
    let paint = tour.stage.paint();
    tour.stage.painted(&format!("{} {}", paint.red("error:"), error.detail));
    tour.stage.painted(&excerpt("hello.js", BROKEN, line, field.column, &field.reason, paint));
    let function = tour.client.function(&name("hello")?).await?;
    ensure!(function.version == 1, "a refused deploy left version {}", function.version);
    tour.stage.holds("nothing was stored: hello is at version 1 still");
    tour.stage.end().await;
    Ok(())
}
