//! Step: a WebAssembly component that speaks HTTP itself.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::stream;
use http::Method;
use lyra_client::Triggered;
use lyra_types::api::{CodeInput, DeployRequest};
use tokio::sync::mpsc;

use super::example;
use super::tour::{Tour, name};

/// A component over its URL, streaming both ways.
pub async fn component(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "WebAssembly that speaks HTTP",
        "A component of the standard world wasi:http/proxy, made from Rust; it runs on other hosts as it is.",
    );
    let request = DeployRequest {
        runtime: "wasm".to_owned(),
        code: CodeInput { wasm: Some(BASE64_STANDARD.encode(example::WASM_HTTP)), ..CodeInput::default() },
        ..DeployRequest::default()
    };
    let command = "lyra deploy examples/wasm-http-hello/hello.wasm --name web";
    tour.deploy(command, "web", request, 1).await?;

    let function = name("web")?;
    let url = tour.client.trigger_url(&function);
    tour.stage.command(&format!("curl {url}hello/Ada"));
    tour.stage.count_calls(1);
    let answer = tour.client.trigger(&function, Method::GET, "/hello/Ada", stream::empty()).await?;
    let (status, call) = (answer.status, answer.call.clone());
    let text = answer.text().await?;
    tour.stage.answer(&text);
    tour.stage.times(&call);
    ensure!(status.as_u16() == 200 && text == "Hello, Ada!\n", "status {status} with {text:?}");

    tour.stage.command(&format!("curl -T- {url}echo"));
    let echoed = echo(tour).await?;
    tour.stage.answer(&echoed.join("\n"));
    tour.stage.holds("each line came back before the next was sent: bodies stream both ways");
    tour.stage.end().await;
    Ok(())
}

/// Sends a body piece by piece, each only after the one before has come back.
async fn echo(tour: &mut Tour<'_>) -> Result<Vec<String>> {
    let (send, receive) = mpsc::channel::<Bytes>(1);
    let body = stream::unfold(receive, |mut receive| async { receive.recv().await.map(|piece| (Ok(piece), receive)) });
    tour.stage.count_calls(1);
    send.send(Bytes::from_static(b"first line\n")).await?;
    let mut answer = tour.client.trigger(&name("web")?, Method::POST, "/echo", body).await?;
    ensure!(answer.status.as_u16() == 200, "status {}", answer.status);
    let mut echoed = vec![read(&mut answer, 11).await?];
    send.send(Bytes::from_static(b"second line\n")).await?;
    echoed.push(read(&mut answer, 12).await?);
    drop(send);
    ensure!(answer.chunk().await?.is_none(), "the answer goes on after its request has ended");
    ensure!(echoed == ["first line\n", "second line\n"], "{echoed:?} came back");
    Ok(echoed.iter().map(|line| line.trim_end().to_owned()).collect())
}

async fn read(answer: &mut Triggered, bytes: usize) -> Result<String> {
    let mut read = Vec::new();
    while read.len() < bytes {
        read.extend_from_slice(&answer.chunk().await?.context("the answer ended too soon")?);
    }
    Ok(String::from_utf8(read)?)
}
