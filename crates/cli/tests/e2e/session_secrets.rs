//! Secrets in sessions, by the command line: those of the function, those of the application, changed and missing; and nowhere to be found.
//! Needs python3.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::Lyra;
use serde_json::{Value, json};

use super::secrets::{places, set};
use super::start::server;

/// Longest wait for a change to get where it goes.
const LONG: Duration = Duration::from_secs(60);

/// Values that are nowhere else.
const PASSWORD: &str = "correct-horse-battery-staple";
const NEW_PASSWORD: &str = "another-horse-and-another-staple";
const MAP: &str = "here-be-dragons-and-worse";
const NEW_MAP: &str = "here-be-ponies-and-better";
const LAST_MAP: &str = "here-be-whales-and-waves";

/// Answers with its secrets turned around, and prints them as they are where it is asked to.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import http.server, json, os, sys
def text(path): return open(path).read()
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        map = text(os.path.join(os.environ["LYRA_SESSION_DIR"], "secrets/map"))
        password, file = os.environ["DB_PASSWORD"], text("/run/secrets/db")
        if self.path == "/print": print("the password is", password, "and the map", map, flush=True)
        if self.path == "/map": print("only the map is", map, flush=True)
        answer = json.dumps({"password": password[::-1], "file": file[::-1], "map": map[::-1]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

const JS: &str = "const turn = (text) => [...text].reverse().join('');
export default (event, context) => ({ password: turn(context.env.DB_PASSWORD), map: turn(event.files['secrets/map']) });
";

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

fn manifest(name: &str, function: &str, standing: u32) -> String {
    let spec = json!({"apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "main", "function": function, "ports": [{"containerPort": 8080}]}],
        "secrets": ["map"],
        "scalingPolicy": {"maximumInstance": 8, "scalingPolicyType": "idle_session_number",
            "idleSessionNumThreshold": {"low": standing, "high": standing}},
    }});
    spec.to_string()
}

async fn apply(lyra: &Lyra, manifest: &str) -> Result<String> {
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], manifest.as_bytes()).await?.ok()
}

async fn open(lyra: &Lyra, application: &str, name: &str) -> Result<()> {
    lyra.cli(["session", "open", application, "--name", name, "--wait", "60s"]).await?.ok().map(drop)
}

/// What a session answers.
async fn ask(lyra: &Lyra, session: &str) -> Result<Option<Value>> {
    let answer = lyra.http()?.get(format!("{}/s/default/{session}/", lyra.url())).send().await?;
    Ok(if answer.status() == 200 { Some(answer.json().await?) } else { None })
}

/// Has a session print its secrets.
async fn print(lyra: &Lyra, session: &str, what: &str) -> Result<()> {
    let answer = lyra.http()?.get(format!("{}/s/default/{session}/{what}", lyra.url())).send().await?;
    answer.error_for_status()?;
    Ok(())
}

/// Asks until the answer is this one.
async fn until(lyra: &Lyra, session: &str, expected: &Value) -> Result<()> {
    let asking = async {
        while ask(lyra, session).await?.as_ref() != Some(expected) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LONG, asking).await.with_context(|| format!("{session} never said {expected}"))?
}

#[tokio::test]
async fn secrets_reach_sessions_change_in_them_and_are_nowhere_else() -> Result<()> {
    let mut lyra = server().await?;
    set(&lyra, "db-password", PASSWORD).await?;
    let folder = lyra.scratch().join("keeper");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("bootstrap"), PROGRAM)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.join("bootstrap"), std::fs::Permissions::from_mode(0o755))?;
    let given = ["--secret", "db-password=DB_PASSWORD", "--secret", "db-password:db"];
    lyra.cli([&["deploy", "keeper", "--runtime", "http"][..], &given].concat()).await?.ok()?;

    // A secret that is missing: it is said, and waited for.
    apply(&lyra, &manifest("keeper", "keeper", 1)).await?;
    lyra.commands().until_shown(&["app", "get", "keeper"], "there is no secret map in tenant default").await?;
    let late = lyra.cli(["session", "open", "keeper", "--name", "late", "--wait", "1s"]).await?.expect(6)?;
    ensure!(late.stderr.contains("there is no secret map"), "{}", late.stderr);
    let (opened, put) = tokio::join!(open(&lyra, "keeper", "one"), set(&lyra, "map", MAP));
    opened?;
    put?;
    let said = |password: &str, map: &str| {
        let password = reversed(password);
        json!({"password": password, "file": password, "map": reversed(map)})
    };
    until(&lyra, "one", &said(PASSWORD, MAP)).await?;
    print(&lyra, "one", "print").await?;
    lyra.commands().until_shown(&["logs", "keeper"], "the password is *** and the map ***").await?;

    // A file changes under an open session; for a variable there are new instances, and the session keeps its own.
    set(&lyra, "map", NEW_MAP).await?;
    until(&lyra, "one", &said(PASSWORD, NEW_MAP)).await?;
    set(&lyra, "db-password", NEW_PASSWORD).await?;
    let renewed = async {
        loop {
            open(&lyra, "keeper", "two").await?;
            let answer = ask(&lyra, "two").await?;
            lyra.cli(["session", "close", "two"]).await?.ok()?;
            if answer == Some(said(NEW_PASSWORD, NEW_MAP)) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(LONG, renewed).await.context("instances with the old value are still given out")??;
    until(&lyra, "one", &said(PASSWORD, NEW_MAP)).await?;
    // The value that it has is not the newest any more.
    print(&lyra, "one", "print").await?;

    // What is deleted by mistake is not; and the session goes on over a crash, with what changes meanwhile.
    let refused = lyra.cli(["secret", "rm", "map"]).await?.expect(2)?;
    ensure!(refused.stderr.contains("application keeper is given secret map"), "{}", refused.stderr);
    let shown = lyra.cli(["secret", "get", "map"]).await?.ok()?;
    ensure!(shown.contains("keeper"), "{shown}");
    lyra.kill().await?;
    lyra.restart().await?;
    until(&lyra, "one", &said(PASSWORD, NEW_MAP)).await?;
    set(&lyra, "map", LAST_MAP).await?;
    until(&lyra, "one", &said(PASSWORD, LAST_MAP)).await?;
    print(&lyra, "one", "map").await?;
    lyra.commands().until_shown(&["logs", "keeper"], "only the map is ***").await?;

    let texts = [PASSWORD, NEW_PASSWORD, MAP, NEW_MAP, LAST_MAP];
    for command in [["app", "get", "keeper"], ["session", "get", "one"], ["logs", "keeper", "--limit=1000"]] {
        let output = lyra.cli([&command[..], &["-o", "json"]].concat()).await?.ok()?;
        ensure!(!texts.iter().any(|text| output.contains(text)), "{command:?}: {output}");
    }
    lyra.cli(["session", "close", "one"]).await?.ok()?;
    lyra.kill().await?;
    assert_eq!(places(&lyra.data_dir(), &texts), Vec::<String>::new());
    ensure!(!texts.iter().any(|text| lyra.log().contains(text)), "{}", lyra.log());
    Ok(())
}

#[tokio::test]
async fn a_handler_finds_secrets_of_its_session_in_its_events() -> Result<()> {
    let lyra = server().await?;
    set(&lyra, "db-password", PASSWORD).await?;
    set(&lyra, "map", MAP).await?;
    std::fs::write(lyra.scratch().join("turn.js"), JS)?;
    lyra.cli(["deploy", "turn.js", "--secret", "db-password=DB_PASSWORD"]).await?.ok()?;
    apply(&lyra, &manifest("turn", "turn", 0)).await?;
    open(&lyra, "turn", "one").await?;
    until(&lyra, "one", &json!({"password": reversed(PASSWORD), "map": reversed(MAP)})).await?;
    set(&lyra, "map", NEW_MAP).await?;
    until(&lyra, "one", &json!({"password": reversed(PASSWORD), "map": reversed(NEW_MAP)})).await?;
    Ok(())
}
