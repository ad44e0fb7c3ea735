//! `lyra node --listen` where there is no gateway: health, readiness, metrics.

use anyhow::{Context, Result};
use lyra_testkit::{Cli, binary};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};

/// A process, with where it serves gRPC and HTTP.
struct Node {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    grpc: String,
    http: String,
}

async fn start(lyra: &Cli, flags: &[&str]) -> Result<Node> {
    let common = ["node", "--listen-grpc", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let mut command = lyra.command(common.iter().chain(flags));
    let mut child = command.stderr(std::process::Stdio::inherit()).spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
    let mut address = async || -> Result<String> {
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let (_, address) = line.trim().split_once(" ready on ").with_context(|| format!("not an address: {line:?}"))?;
        Ok(address.to_owned())
    };
    let (grpc, http) = (address().await?, address().await?);
    Ok(Node { child, _stdout: stdout, grpc, http })
}

async fn get(node: &Node, path: &str) -> Result<(u16, String)> {
    // The typed client installs the TLS provider that reqwest asks for.
    drop(lyra_client::Client::new(lyra_client::Config::default())?);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client.get(format!("{}{path}", node.http)).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

async fn until_ready(node: &Node, status: u16) -> Result<String> {
    let ready = async {
        loop {
            match get(node, "/readyz").await {
                Ok((is, text)) if is == status => return text,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ready).await.context("/readyz does not change")
}

#[tokio::test]
async fn control_and_workers_alone_tell_how_they_are() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lyra = Cli::new(binary()?).within(dir.path());
    let mut control = start(&lyra, &["--role", "control", "--data-dir", "c1"]).await?;
    assert_eq!(get(&control, "/healthz").await?, (200, "ok\n".to_owned()));
    assert_eq!(get(&control, "/readyz").await?, (200, "ready\n".to_owned()));
    assert!(get(&control, "/version").await?.1.contains("version"));
    let (status, text) = get(&control, "/v1/functions").await?;
    assert!(status == 404 && text.contains("runs no gateway"), "{text}");
    let worker = ["--role", "worker", "--data-dir", "w1", "--blobs", "c1/blobs", "--control", &control.grpc];
    let worker = start(&lyra, &worker).await?;
    until_ready(&worker, 200).await?;
    let metrics = get(&worker, "/metrics").await?.1;
    assert!(metrics.contains("lyra_http_requests_total"), "{metrics}");
    control.child.kill().await?;
    let why = until_ready(&worker, 503).await?;
    assert!(why.contains("no control process has let the worker join"), "{why}");
    assert_eq!(get(&worker, "/healthz").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn beyond_loopback_it_takes_tokens() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lyra = Cli::new(binary()?).within(dir.path());
    let open =
        ["node", "--role", "control", "--data-dir", "c1", "--listen-grpc", "127.0.0.1:0", "--listen", "0.0.0.0:0"];
    let refused = lyra.run(open).await?.expect(2)?;
    assert!(
        refused.stderr.contains("no tokens are set") && refused.stderr.contains("--token-file"),
        "{}",
        refused.stderr
    );
    Ok(())
}
