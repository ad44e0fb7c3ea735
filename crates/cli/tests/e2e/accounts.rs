//! Tenants, users, tokens: by the command line, against real servers.

use std::fs;

use anyhow::Result;
use lyra_testkit::{Cli, Cluster, Lyra, Options};
use serde_json::Value;

use super::start::{BINARY, ECHO};

const OPERATOR: &str = "an-operators-token-of-some-length";

/// A server that asks for tokens.
async fn guarded() -> Result<(Lyra, tempfile::TempDir)> {
    guarded_with("").await
}

async fn guarded_with(settings: &str) -> Result<(Lyra, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let (tokens, config) = (dir.path().join("tokens"), dir.path().join("lyra.toml"));
    fs::write(&tokens, format!("{OPERATOR}\n"))?;
    fs::write(&config, settings)?;
    let args = ["--token-file".into(), tokens.display().to_string(), "--config".into(), config.display().to_string()];
    let args = args.to_vec();
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
    // What was made is named.
    let id = old["id"].as_str().unwrap();
    for made in ["tenants/acme ", "tenants/acme/users/bob ", &format!("tokens/{id} ")] {
        assert!(log.contains(&format!("POST /v1/{made}")), "{made}: {log}");
    }
    let stranger = with(&lyra, "").run(["fn", "ls"]).await?.expect(4)?;
    assert!(stranger.stderr.contains("LYRA_TOKEN"), "{}", stranger.stderr);
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

/// A classic request: its status and its answer.
async fn classic(lyra: &Lyra, token: &str, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let method = reqwest::Method::from_bytes(method.as_bytes())?;
    let request = lyra.http()?.request(method, format!("{}{path}", lyra.url())).body(body.to_owned());
    let request = if token.is_empty() { request } else { request.bearer_auth(token) };
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

#[tokio::test]
async fn a_classic_user_has_a_token_and_is_reset_by_its_owner_and_operators_only() -> Result<()> {
    let (lyra, _dir) = guarded().await?;
    let made = async |token: &str, user: &str| -> Result<String> {
        let (status, answer) = classic(&lyra, token, "POST", &format!("/u/{user}"), "").await?;
        assert_eq!((status, &answer["error"], &answer["res"]), (200, &false.into(), &1.into()), "{answer}");
        Ok(answer["token"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(classic(&lyra, "", "POST", "/u/ada", "").await?.0, 401, "no strangers");
    let (ada, bob) = (made(OPERATOR, "ada").await?, made(OPERATOR, "Bob_1").await?);
    assert!(ada.starts_with("lyra_") && bob.starts_with("lyra_") && ada != bob, "{ada} {bob}");
    let put = classic(&lyra, &ada, "POST", "/u/ada/fn/add", "(a, b) => a + b").await?;
    assert_eq!((put.0, &put.1["error"]), (200, &false.into()));
    let ran = classic(&lyra, &ada, "POST", "/u/ada/fn/add/run?wait=60", "[1,2]").await?.1;
    assert_eq!(ran["result"], "3");
    let job = format!("/j/{}", ran["res"].as_str().unwrap_or_default());
    assert_eq!(classic(&lyra, &ada, "GET", &job, "").await?.1["res"], 1);
    // Somebody else, or nobody.
    for (token, status) in [(&bob[..], 403), ("", 401)] {
        for (method, path) in [("POST", "/u/ada"), ("DELETE", "/u/ada"), ("GET", "/u/ada/fn"), ("POST", "/u/carl")] {
            let (answered, answer) = classic(&lyra, token, method, path, "").await?;
            assert_eq!((answered, &answer["error"]), (status, &true.into()), "{method} {path}: {answer}");
        }
    }
    assert_eq!(classic(&lyra, &bob, "GET", &job, "").await?.1["error"], true);
    // The owner resets; the token stays, and no other is made.
    assert_eq!(made(&ada, "ada").await?, "");
    assert_eq!(classic(&lyra, &ada, "GET", "/u/ada/fn", "").await?.1["res"], serde_json::json!({}));
    let log = with(&lyra, OPERATOR).run(["audit", "ls", "--tenant", "ada"]).await?.ok()?;
    assert!(log.contains("POST /u/ada") && log.contains("POST /u/ada/fn/add"), "{log}");
    assert!(!lyra.log().contains(&ada), "the token is in the log");
    Ok(())
}

#[tokio::test]
async fn strangers_sign_up_on_the_classic_route_where_that_is_set() -> Result<()> {
    let (lyra, _dir) = guarded_with("[gateway]\nclassic_sign_up = true\n").await?;
    let (status, answer) = classic(&lyra, "", "POST", "/u/ada", "").await?;
    assert_eq!((status, &answer["res"]), (200, &1.into()), "{answer}");
    let ada = answer["token"].as_str().unwrap_or_default();
    assert_eq!(classic(&lyra, ada, "GET", "/u/ada/fn", "").await?.0, 200);
    // Whose it is, nobody else takes; the default tenant is everybody's and nobody's.
    for user in ["ada", "default"] {
        assert_eq!(classic(&lyra, "", "POST", &format!("/u/{user}"), "").await?.0, 401, "{user}");
    }
    assert_eq!(classic(&lyra, "", "DELETE", "/u/ada", "").await?.0, 401);
    assert_eq!(classic(&lyra, "", "POST", "/u/a.b", "").await?.1["error"], true);
    Ok(())
}

#[tokio::test]
async fn who_makes_many_users_from_one_address_has_to_wait() -> Result<()> {
    let (lyra, _dir) = guarded_with("[gateway]\nclassic_sign_up = true\nclassic_sign_ups = 2\n").await?;
    for (user, status) in [("ada", 200), ("ada", 401), ("bob", 429), ("cid", 429)] {
        let (is, answer) = classic(&lyra, "", "POST", &format!("/u/{user}"), "").await?;
        assert_eq!(is, status, "{user}: {answer}");
    }
    // Operators make as many as they like.
    for user in ["bob", "cid", "dan"] {
        assert_eq!(classic(&lyra, OPERATOR, "POST", &format!("/u/{user}"), "").await?.0, 200, "{user}");
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
