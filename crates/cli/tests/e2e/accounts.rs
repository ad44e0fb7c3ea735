//! Tenants, users, tokens: by the command line, against real servers.

use std::fs;

use anyhow::Result;
use lyra_testkit::{Cli, Cluster, Lyra, Options};
use serde_json::Value;

use super::start::{BINARY, ECHO};

const OPERATOR: &str = "an-operators-token-of-some-length";

/// A server that asks for tokens.
async fn guarded() -> Result<(Lyra, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, format!("{OPERATOR}\n"))?;
    let args = vec!["--token-file".to_owned(), tokens.display().to_string()];
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), args, ..Options::default() }).await?;
    fs::write(lyra.scratch().join("echo.js"), ECHO)?;
    Ok((lyra, dir))
}

fn with(lyra: &Lyra, token: &str) -> Cli {
    lyra.commands().env("LYRA_TOKEN", token)
}

async fn make(cli: &Cli, args: &[&str]) -> Result<String> {
    let printed = cli.run([&["token", "create"], args, &["-q"]].concat()).await?.ok()?;
    Ok(printed.trim().to_owned())
}

#[tokio::test]
async fn a_tenants_people_do_what_their_roles_allow_in_their_tenant_only() -> Result<()> {
    let (mut lyra, _dir) = guarded().await?;
    let root = with(&lyra, OPERATOR);
    for tenant in ["acme", "rival"] {
        root.run(["tenant", "create", tenant]).await?.ok()?;
    }
    root.run(["tenant", "create", "acme"]).await?.expect(2)?;
    let password = "correct horse battery staple";
    let created = root
        .run_with_input(
            ["user", "create", "ada", "--role", "owner", "--with-password", "--tenant", "acme"],
            format!("{password}\n").as_bytes(),
        )
        .await?;
    created.ok()?;
    with(&lyra, "").run_with_input(["login", "ada", "--tenant", "acme"], b"wrong password").await?.expect(4)?;
    let token =
        with(&lyra, "").run_with_input(["login", "ada", "--tenant", "acme", "-q"], password.as_bytes()).await?.ok()?;
    let ada = with(&lyra, token.trim());
    let who: Value = ada.run(["whoami", "-o", "json"]).await?.json()?;
    assert_eq!((&who["name"], &who["by"]), (&"acme/ada".into(), &"login".into()));

    // The owner's tenant is meant without being named.
    ada.run(["deploy", "echo.js"]).await?.ok()?;
    ada.run(["user", "create", "bob", "--role", "invoker"]).await?.ok()?;
    let bob = with(&lyra, &make(&ada, &["bob", "--user", "bob"]).await?);
    let viewer = with(&lyra, &make(&ada, &["dashboard", "--no-user", "--scope", "read"]).await?);
    let rival = with(
        &lyra,
        &make(&root, &["ci", "--no-user", "--scope", "deploy,invoke,read,admin", "--tenant", "rival"]).await?,
    );
    assert_eq!(bob.run(["invoke", "echo", "-d", "[1]"]).await?.ok()?.trim(), "[1]");
    bob.run(["fn", "ls"]).await?.expect(4)?;
    assert!(viewer.run(["fn", "ls"]).await?.ok()?.contains("echo"));
    viewer.run(["invoke", "echo", "-d", "1"]).await?.expect(4)?;
    viewer.run(["fn", "rm", "echo"]).await?.expect(4)?;
    assert!(!rival.run(["fn", "ls"]).await?.ok()?.contains("echo"));
    for args in [
        &["fn", "ls"][..],
        &["invoke", "echo", "-d", "1"],
        &["user", "ls"],
        &["token", "ls"],
        &["audit", "ls"],
        &["app", "ls"],
    ] {
        rival.run([args, &["--tenant", "acme"]].concat()).await?.expect(4)?;
    }
    for args in [&["worker", "ls"][..], &["tenant", "create", "mine"], &["tenant", "rm", "acme"], &["control", "ls"]] {
        ada.run(args).await?.expect(4)?;
    }
    assert_eq!(ada.run(["app", "ls", "-o", "json"]).await?.json()?["items"], serde_json::json!([]));
    viewer.run(["app", "ls"]).await?.ok()?;

    // All of it is there after a crash, and what was revoked is not.
    let revoked = make(&ada, &["old", "--no-user", "--scope", "read", "--expires", "1h"]).await?;
    let listed = ada.run(["token", "ls", "-o", "json"]).await?.json()?;
    let old = listed["items"].as_array().unwrap().iter().find(|token| token["name"] == "old").unwrap();
    ada.run(["token", "rm", old["id"].as_str().unwrap()]).await?.ok()?;
    with(&lyra, &revoked).run(["fn", "ls"]).await?.expect(4)?;
    lyra.kill().await?;
    lyra.restart().await?;
    let (ada, root) = (with(&lyra, token.trim()), with(&lyra, OPERATOR));
    with(&lyra, &revoked).run(["fn", "ls"]).await?.expect(4)?;
    assert!(ada.run(["user", "ls"]).await?.ok()?.contains("bob"));
    let log = ada.run(["audit", "ls"]).await?.ok()?;
    assert!(
        log.contains("acme/ada") && log.contains("PUT /v1/functions/echo") && log.contains("unauthenticated"),
        "{log}"
    );
    ada.run(["user", "rm", "bob"]).await?.ok()?;
    assert!(!ada.run(["token", "ls"]).await?.ok()?.contains("bob"));

    root.run(["tenant", "rm", "acme"]).await?.expect(2)?;
    root.run(["tenant", "rm", "acme", "--force"]).await?.ok()?;
    ada.run(["fn", "ls"]).await?.expect(4)?;
    root.run(["tenant", "create", "acme"]).await?.ok()?;
    assert_eq!(root.run(["fn", "ls", "--tenant", "acme", "-o", "json"]).await?.json()?["items"], serde_json::json!([]));
    for secret in [password, token.trim(), &revoked, OPERATOR] {
        assert!(!lyra.log().contains(secret), "a secret is in the log");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_known_and_revoked_at_every_gateway_and_goes_on_without_control() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    cluster.add_gateway("g2", &["c1"]).await?;
    fs::write(cluster.scratch().join("echo.js"), ECHO)?;
    let root = cluster.commands();
    root.run(["tenant", "create", "acme"]).await?.ok()?;
    root.run(["deploy", "echo.js", "--tenant", "acme"]).await?.ok()?;
    let keep = make(&root, &["keep", "--no-user", "--scope", "invoke,read", "--tenant", "acme"]).await?;
    let lose = make(&root, &["lose", "--no-user", "--scope", "invoke,read", "--tenant", "acme"]).await?;
    let at = |gateway: &str, token: &str| cluster.commands_at(gateway).env("LYRA_TOKEN", token);
    for gateway in ["g1", "g2"] {
        at(gateway, &lose).until_shown(&["fn", "ls"], "echo").await?;
        assert_eq!(at(gateway, &keep).run(["invoke", "echo", "-d", "7"]).await?.ok()?.trim(), "7");
    }
    let listed = root.run(["token", "ls", "--tenant", "acme", "-o", "json"]).await?.json()?;
    let id = listed["items"].as_array().unwrap().iter().find(|token| token["name"] == "lose").unwrap()["id"].clone();
    cluster.commands_at("g2").run(["token", "rm", id.as_str().unwrap()]).await?.ok()?;
    at("g2", &lose).run(["fn", "ls"]).await?.expect(4)?;
    while at("g1", &lose).run(["invoke", "echo", "-d", "7"]).await?.code == 0 {}
    at("g1", &lose).run(["invoke", "echo", "-d", "7"]).await?.expect(4)?;

    cluster.kill("c1").await?;
    for gateway in ["g1", "g2"] {
        let cli = cluster.commands_at(gateway).env("LYRA_TOKEN", &keep);
        assert_eq!(cli.run(["invoke", "echo", "-d", "8"]).await?.ok()?.trim(), "8");
        let cli = cluster.commands_at(gateway).env("LYRA_TOKEN", &lose);
        cli.run(["invoke", "echo", "-d", "8"]).await?.expect(4)?;
    }
    Ok(())
}
