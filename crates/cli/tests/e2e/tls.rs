//! `lyra tls`, and roles that speak by mutual TLS.

use std::path::Path;

use anyhow::Result;
use lyra_testkit::{Cli, Cluster, binary};
use serde_json::Value;

const ECHO: &str = "export default (event) => { console.log('called'); return event }";

async fn deploy(cluster: &Cluster) -> Result<()> {
    std::fs::write(cluster.scratch().join("echo.js"), ECHO)?;
    cluster.commands().run(["deploy", "echo.js"]).await?.ok()?;
    Ok(())
}

/// Commands in a directory of their own.
fn alone() -> Result<(tempfile::TempDir, Cli)> {
    let dir = tempfile::tempdir()?;
    let lyra = Cli::new(binary()?).within(dir.path());
    Ok((dir, lyra))
}

#[tokio::test]
async fn a_site_with_certificates_does_what_one_without_does() -> Result<()> {
    let mut cluster = Cluster::start_with_tls(2, &[]).await?;
    deploy(&cluster).await?;
    let lyra = cluster.commands();
    assert_eq!(lyra.run(["invoke", "echo", "-d", "{\"a\":1}"]).await?.ok()?, "{\"a\":1}\n");
    for worker in ["w1", "w2"] {
        assert_eq!(lyra.run(["worker", "invoke", worker, "echo", "-d", "1"]).await?.ok()?, "1\n");
    }
    let id = lyra.run(["invoke", "echo", "--async", "-d", "5"]).await?.ok()?.trim().to_owned();
    lyra.run(["job", "wait", &id]).await?.ok()?;
    assert_eq!(lyra.run(["job", "result", &id]).await?.ok()?, "5\n");
    cluster.until_shown(&["logs", "echo"], "called").await?;
    cluster.add_worker("w3", &[]).await?;
    cluster.until_ready(3).await?;
    cluster.kill("c1").await?;
    assert_eq!(lyra.run(["invoke", "echo", "-d", "2"]).await?.ok()?, "2\n");
    cluster.restart("c1").await?;
    cluster.until_shown(&["fn", "ls"], "echo").await?;
    cluster.until_ready(3).await?;
    assert_eq!(cluster.terminate("w1").await?.code(), Some(0));
    cluster.restart("w1").await?;
    cluster.until_ready(3).await
}

#[tokio::test]
async fn nobody_takes_the_place_of_another() -> Result<()> {
    let mut cluster = Cluster::start_with_tls(1, &[]).await?;
    let certificate = |dir: &Path| dir.display().to_string();
    let of_w1 = certificate(&cluster.scratch().join("tls/w1"));
    let refused = cluster.add_worker("w3", &["--tls-dir", &of_w1]).await.unwrap_err().to_string();
    assert!(refused.contains("is that of w1 (worker); this worker is called w3"), "{refused}");
    let of_g1 = certificate(&cluster.scratch().join("tls/g1"));
    let refused = cluster.add_worker("g1w", &["--tls-dir", &of_g1]).await.unwrap_err().to_string();
    assert!(refused.contains("is that of g1 (gateway), which may not be a worker"), "{refused}");
    // One of another site can't know, and is told.
    let strange = cluster.scratch().join("strange");
    let init = ["tls", "init", "--tls-dir", "strange", "w4:worker"];
    cluster.commands().run(init).await?.ok()?;
    cluster.add_worker("w4", &["--tls-dir", &certificate(&strange.join("w4"))]).await?;
    cluster.until_logged("w4", "its certificate is not signed by an authority in ca.pem").await?;
    assert_eq!(cluster.commands().run(["worker", "ls", "-q"]).await?.ok()?, "w1\n");
    Ok(())
}

#[tokio::test]
async fn plain_text_and_tls_do_not_mix_and_both_are_told() -> Result<()> {
    let mut cluster = Cluster::start_with_tls(0, &[]).await?;
    cluster.add_plain_worker("w1").await?;
    cluster.until_logged("w1", "this address takes TLS only").await?;
    cluster.until_logged("c1", "it speaks plain text").await?;
    let mut cluster = Cluster::start(0, &[]).await?;
    let init = ["tls", "init", "--tls-dir", "tls", "w1:worker"];
    cluster.commands().run(init).await?.ok()?;
    let dir = cluster.scratch().join("tls/w1").display().to_string();
    cluster.add_worker("w1", &["--tls-dir", &dir]).await?;
    cluster.until_logged("w1", "it speaks plain text").await
}

#[tokio::test]
async fn plain_text_stays_on_this_host() -> Result<()> {
    let (_dir, lyra) = alone()?;
    for flags in
        [["--role", "control", "--listen-grpc", "0.0.0.0:0"], ["--role", "gateway", "--control", "c1.example:7070"]]
    {
        let refused = lyra.run(["node", "--data-dir", "d"].iter().chain(&flags)).await?.expect(2)?;
        assert!(refused.stderr.contains("lyra tls init") && refused.stderr.contains("--tls-dir"), "{}", refused.stderr);
    }
    let missing = lyra.run(["node", "--role", "control", "--data-dir", "d", "--tls-dir", "none"]).await?.expect(3)?;
    assert!(missing.stderr.contains("none/ca.pem is missing"), "{}", missing.stderr);
    lyra.run(["tls", "init", "--tls-dir", "tls"]).await?.ok()?;
    let everywhere = ["node", "--role", "worker", "--data-dir", "d", "--tls-dir", "tls", "--control", "127.0.0.1:1"];
    let refused = lyra.run(everywhere.iter().chain(&["--listen-grpc", "0.0.0.0:0"])).await?.expect(2)?;
    assert!(refused.stderr.contains("advertise"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test]
async fn certificates_are_made_once_shown_and_renewed() -> Result<()> {
    let (dir, lyra) = alone()?;
    let init = ["tls", "init", "--tls-dir", "tls", "c1:control,gateway", "w1:worker"];
    let made = lyra.run(init).await?.ok()?;
    assert!(made.contains("made tls/c1 for c1 (control, gateway)"), "{made}");
    let authority = std::fs::read(dir.path().join("tls/ca.pem"))?;
    let before = std::fs::read(dir.path().join("tls/w1/cert.pem"))?;
    let kept = lyra.run(["tls", "init", "--dir", "tls", "w1:worker", "w2:worker"]).await?.ok()?;
    assert!(kept.contains("kept tls/w1") && kept.contains("made tls/w2"), "{kept}");
    assert_eq!(std::fs::read(dir.path().join("tls/w1/cert.pem"))?, before);
    let conflict = lyra.run(["tls", "init", "--tls-dir", "tls", "w3:worker", "w1:control"]).await?.expect(2)?;
    assert!(conflict.stderr.contains("w1 (worker)") && conflict.stderr.contains("--renew"), "{}", conflict.stderr);
    assert!(!dir.path().join("tls/w3").exists(), "nothing half done");
    lyra.run(["tls", "init", "--tls-dir", "tls", "--renew", "--days", "7", "w1:worker"]).await?.ok()?;
    assert_ne!(std::fs::read(dir.path().join("tls/w1/cert.pem"))?, before);
    assert_eq!(std::fs::read(dir.path().join("tls/w1/ca.pem"))?, authority);
    let shown = lyra.run(["tls", "show", "tls"]).await?;
    assert!(shown.stderr.contains("tls/w1/cert.pem ends on"), "{}", shown.stderr);
    assert!(shown.ok()?.contains("ends soon"));
    let shown: Value = serde_json::from_str(&lyra.run(["tls", "show", "tls/c1", "-o", "json"]).await?.ok()?)?;
    assert_eq!(shown[0]["names"], serde_json::json!(["c1"]));
    assert_eq!(shown[0]["roles"], serde_json::json!(["control", "gateway"]));
    assert_eq!((shown[0]["days_left"].as_i64(), &shown[0]["problem"]), (Some(364), &Value::Null));
    std::fs::copy(dir.path().join("tls/w2/key.pem"), dir.path().join("tls/c1/key.pem"))?;
    let wrong = lyra.run(["tls", "show", "tls/c1"]).await?.expect(2)?;
    assert!(wrong.stderr.contains("key of another certificate"), "{}", wrong.stderr);
    Ok(())
}

#[tokio::test]
async fn wrong_input_is_refused_with_what_to_do() -> Result<()> {
    let (dir, lyra) = alone()?;
    for (arguments, code, says) in [
        (&["tls", "init", "w1:worker"][..], 2, "--tls-dir"),
        (&["tls", "init", "--tls-dir", "t", "w1"], 2, "names no role"),
        (&["tls", "init", "--tls-dir", "t", "w1:logs"], 2, "the roles are control, worker, gateway, scaler, workflow"),
        (&["tls", "init", "--tls-dir", "t", "../x:worker"], 2, "is no name of a node"),
        (&["tls", "init", "--tls-dir", "t", "a:worker", "a:control"], 2, "named twice"),
        (&["tls", "init", "--tls-dir", "t", "--days", "0", "a:worker"], 2, "--days"),
        (&["tls", "show", "t"], 3, "can't be read"),
        (&["tls", "show", "."], 3, "lyra tls init"),
    ] {
        let refused = lyra.run(arguments).await?.expect(code)?;
        assert!(refused.stderr.contains(says), "{arguments:?}: {}", refused.stderr);
    }
    assert!(!dir.path().join("t").exists());
    lyra.run(["tls", "init", "--tls-dir", "t", "a:worker"]).await?.ok()?;
    std::fs::remove_file(dir.path().join("t/ca-key.pem"))?;
    let no_key = lyra.run(["tls", "init", "--tls-dir", "t", "b:worker"]).await?.expect(3)?;
    assert!(no_key.stderr.contains("ca-key.pem is missing"), "{}", no_key.stderr);
    Ok(())
}
