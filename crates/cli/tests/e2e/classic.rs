//! The classic routes against a real server, by curl, as their clients use them.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use lyra_testkit::Lyra;
use serde_json::{Value, json};
use tokio::process::Command;

use super::start::server;

/// The reference session: a user, a function, two runs, polling, the result, removal.
pub const SESSION: &str = r#"
set -eu
curl -s -X POST $URL/u/user1; echo
curl -s $URL/u/user1/fn; echo
curl -s -X POST -d "function add(a,b){return a+b;}" $URL/u/user1/fn/add; echo
curl -s $URL/u/user1/fn; echo
curl -s -X POST -d "[4,6]" $URL/u/user1/fn/add/run | grep -Eq '^\{"error":false,"res":"[0-9a-f]{24}"\}$'
JOB_ID=$(curl -s -X POST -d "[4,5]" $URL/u/user1/fn/add/run | python3 -c "import sys, json; print(json.load(sys.stdin)['res'])")
STATUS=0
while [ "$STATUS" = "0" ]; do
  STATUS=$(curl -s $URL/j/$JOB_ID | python3 -c "import sys, json; print(json.load(sys.stdin)['res'])")
done
curl -s $URL/j/$JOB_ID; echo
curl -s $URL/j/$JOB_ID/res; echo
curl -s -X DELETE $URL/j/$JOB_ID; echo
curl -s -X DELETE $URL/j/$JOB_ID; echo
curl -s $URL/j/$JOB_ID | sed "s/$JOB_ID/ID/"; echo
"#;

/// What it prints.
pub const SAID: &str = r#"{"error":false,"res":1}
{"error":false,"res":{}}
{"error":false,"res":1}
{"error":false,"res":{"add":"function add(a,b){return a+b;}"}}
{"error":false,"res":1}
{"error":false,"res":"9"}
{"error":false,"res":1}
{"error":false,"res":0}
{"error":true,"res":"[ERR] Job <ID> not found."}
"#;

#[tokio::test]
async fn the_reference_session_works_as_it_always_did() -> Result<()> {
    let lyra = server().await?;
    let output = Command::new("bash")
        .args(["-c", SESSION])
        .env("URL", lyra.url())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("bash")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), SAID);
    Ok(())
}

/// A client of one server.
struct Classic {
    lyra: Lyra,
    http: reqwest::Client,
}

impl Classic {
    async fn start() -> Result<Classic> {
        let lyra = server().await?;
        let http = lyra.http()?;
        Ok(Classic { lyra, http })
    }

    async fn send(&self, method: &str, path: &str, body: Option<&str>) -> Result<(u16, Value)> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let request = self.http.request(method, format!("{}{path}", self.lyra.url()));
        let request = match body {
            // An empty body is one only where its length is said, as curl does.
            Some("") => request.header("content-length", "0"),
            Some(body) => request.body(body.to_owned()),
            None => request,
        };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let kind = answer.headers()["content-type"].to_str()?.to_owned();
        assert_eq!(kind, "application/json; charset=utf-8", "{path}");
        Ok((status, answer.json().await?))
    }

    /// What a request that the classic system had an answer for says.
    async fn said(&self, method: &str, path: &str, body: Option<&str>) -> Result<(bool, Value)> {
        let (status, mut answer) = self.send(method, path, body).await?;
        ensure!(status == 200, "{method} {path}: {status} {answer}");
        Ok((answer["error"] == json!(true), answer["res"].take()))
    }

    async fn put(&self, source: &str) -> Result<()> {
        let said = self.said("POST", "/u/ada/fn/f", Some(source)).await?;
        ensure!(said == (false, json!(1)), "{source}: {said:?}");
        Ok(())
    }

    /// What a function that was put comes to.
    async fn run(&self, arguments: &str) -> Result<String> {
        let (status, answer) = self.send("POST", "/u/ada/fn/f/run?wait=60", Some(arguments)).await?;
        ensure!(status == 200 && answer["status"] == json!(1), "{arguments}: {status} {answer}");
        Ok(answer["result"].as_str().context("a result is a text")?.to_owned())
    }

    async fn outcome(&self, source: &str) -> Result<String> {
        self.put(source).await?;
        self.run("[]").await
    }
}

#[tokio::test]
async fn results_leave_as_the_texts_that_they_always_were() -> Result<()> {
    let classic = Classic::start().await?;
    classic.said("POST", "/u/ada", None).await?;
    for (source, text) in [
        ("() => 11", "11"),
        ("() => 'x1'", "x1"),
        ("() => true", "true"),
        ("() => {}", "undefined"),
        ("() => NaN", "NaN"),
        ("() => 0.1+0.2", "0.30000000000000004"),
        ("() => 10n", "10"),
        ("() => null", ""),
        ("() => ''", ""),
        ("() => ({a:1})", "{\"a\":1}"),
        ("() => [1,[2,3]]", "[1,[2,3]]"),
        ("() => new Uint8Array([104,105])", "hi"),
        ("() => Symbol('s')", "Symbol(s)"),
        ("() => Object.create(null)", "{}"),
        ("() => new Error('boom')", "Error: boom"),
        ("() => { throw new Error('boom') }", "Error: boom"),
        ("async () => { throw new TypeError('late') }", "TypeError: late"),
        ("() => { throw 'str' }", "str"),
        ("() => { throw null }", ""),
        ("() => ({ then(done) { done('thenable') } })", "thenable"),
        ("() => { const o = { n: 1n }; return o }", "[object Object]"),
        ("function*(){}", "[object Generator]"),
        ("() => new Map()", "[object Map]"),
        ("() => (function () { return typeof this })()", "object"),
        ("42", "TypeError: fn is not a function"),
        ("class A {}", "TypeError: Class constructor A cannot be invoked without 'new'"),
        ("missing", "ReferenceError: missing is not defined"),
        ("// first\nfunction (a) { return b() } // last\nfunction b() { return 'helped' }", "helped"),
        ("() => c\nconst c = 7;", "7"),
        ("async (ms) => { await new Promise(r => setTimeout(r, 5)); return 'later' };", "later"),
    ] {
        assert_eq!(classic.outcome(source).await?, text, "{source}");
    }
    assert!(classic.outcome("() => new Date(0)").await?.starts_with("Thu Jan 01 1970"));
    classic.put("function () { return [...arguments].map(x => x instanceof Array).join() }").await?;
    assert_eq!(classic.run("[1,[2],{\"a.b\":{\"$c\":3}}]").await?, "false,true,false");
    classic.put("(a, b) => `${a},${b}`").await?;
    assert_eq!(classic.run("[1]").await?, "1,undefined");
    let said = classic.said("POST", "/u/ada/fn/f?result=string", Some("() => ({a:1})")).await?;
    assert_eq!((said, classic.run("[]").await?), ((false, json!(1)), "[object Object]".to_owned()));
    let said = classic.said("POST", "/u/ada/fn/f?timeout_ms=200", Some("() => { for (;;); }")).await?;
    assert_eq!(said, (false, json!(1)));
    assert_eq!(classic.run("[]").await?, "Error: Script execution timed out after 200ms");
    Ok(())
}

#[tokio::test]
async fn every_route_says_what_is_wrong_in_the_words_that_clients_know() -> Result<()> {
    let classic = Classic::start().await?;
    let wrong = |text: &str| (true, json!(text));
    let no_user = wrong("[ERR] User <eve> does not exist.");
    for (method, path, body) in [
        ("GET", "/u/eve/time", None),
        ("GET", "/u/eve/fn", None),
        ("GET", "/u/eve/fn/f", None),
        ("POST", "/u/eve/fn/f", Some("() => 1")),
        ("DELETE", "/u/eve/fn/f", None),
        ("POST", "/u/eve/fn/f/run", Some("[]")),
    ] {
        assert_eq!(classic.said(method, path, body).await?, no_user, "{method} {path}");
    }
    let one = (false, json!(1));
    assert_eq!(classic.said("DELETE", "/u/eve", None).await?, one, "also where there is none");
    assert_eq!(classic.said("POST", "/U/Eve_1/", None).await?, one);
    assert_eq!(classic.said("GET", "/u/Eve_1/Time", None).await?, (false, json!(0)));
    assert!(classic.said("GET", "/u/eve_1/fn", None).await?.0, "names have a case");
    let no_function = wrong("[ERR] User function <f> does not exist.");
    assert_eq!(classic.said("GET", "/u/Eve_1/fn/f", None).await?, no_function);
    assert_eq!(classic.said("POST", "/u/Eve_1/fn/f/run", Some("[]")).await?, no_function);
    assert_eq!(classic.said("DELETE", "/u/Eve_1/fn/f", None).await?, one);
    assert_eq!(classic.said("POST", "/u/Eve_1/fn/f", Some("() => 1")).await?, one);
    let shown = json!({"f_name": "f", "name": "f", "src": "() => 1"});
    assert_eq!(classic.said("GET", "/u/Eve_1/fn/f", None).await?, (false, shown));
    for (body, why) in [("", "()"), ("{", "({)"), ("[1,]", "([1,])")] {
        let text = format!("[ERR] Invalid argv {why} - invalid JSON");
        assert_eq!(classic.said("POST", "/u/Eve_1/fn/f/run", Some(body)).await?, wrong(&text));
    }
    let none = classic.lyra.http()?.post(format!("{}/u/Eve_1/fn/f/run", classic.lyra.url()));
    let none: Value = none.send().await?.json().await?;
    assert_eq!(none["res"].as_str().unwrap_or_default().split(" - ").nth(1), Some("invalid JSON"), "{none}");
    let text = "[ERR] Invalid argv ({\"a\":1}) - not an array";
    assert_eq!(classic.said("POST", "/u/Eve_1/fn/f/run", Some("{\"a\":1}")).await?, wrong(text));
    for (method, rest) in [("GET", ""), ("GET", "/res"), ("DELETE", "")] {
        let said = classic.said(method, &format!("/j/xyz{rest}"), None).await?;
        assert_eq!(said, wrong("[ERR] Invalid job_id (xyz)"), "{method} {rest}");
    }
    for id in ["5ff867daccccb5e5167f5a0f", "twelve_bytes"] {
        let unknown = wrong(&format!("[ERR] Job <{id}> not found."));
        assert_eq!(classic.said("GET", &format!("/j/{id}"), None).await?, unknown);
        assert_eq!(classic.said("GET", &format!("/j/{id}/res"), None).await?, unknown);
        assert_eq!(classic.said("DELETE", &format!("/j/{id}"), None).await?, (false, json!(0)));
    }
    for (source, at) in [("function (", "SyntaxError"), ("", "empty"), ("const x=1; function a(){}", "SyntaxError")] {
        let (error, res) = classic.said("POST", "/u/Eve_1/fn/g", Some(source)).await?;
        assert!(error && res.as_str().is_some_and(|res| res.contains(at)), "{source}: {res}");
    }
    let (error, res) = classic.said("POST", "/u/Eve_1/fn/a.b", Some("() => 1")).await?;
    assert!(error && res.as_str().is_some_and(|res| res.contains("letters, digits")), "{res}");
    Ok(())
}

#[tokio::test]
async fn what_the_classic_system_had_no_words_for_has_a_status_and_the_envelope() -> Result<()> {
    let classic = Classic::start().await?;
    classic.said("POST", "/u/ada", None).await?;
    for (method, path) in [("GET", "/u/ada"), ("PUT", "/u/ada"), ("GET", "/u"), ("GET", "/j/x/y"), ("POST", "/j/x")] {
        let (status, answer) = classic.send(method, path, None).await?;
        assert_eq!((status, &answer["error"]), (404, &json!(true)), "{method} {path}");
    }
    let large = format!("() => '{}'", "x".repeat(100 << 10));
    assert_eq!(classic.send("POST", "/u/ada/fn/f", Some(&large)).await?.0, 413);
    assert_eq!(classic.send("GET", "/u/%ff/fn", None).await?.0, 400);
    let request = classic.http.post(format!("{}/u/ada/fn/f", classic.lyra.url())).body("() => 1");
    let answer = request.header("content-type", "text/plain; charset=nope").send().await?;
    assert_eq!(answer.status().as_u16(), 415);
    let head = classic.http.head(format!("{}/u/ada/fn", classic.lyra.url())).send().await?;
    assert_eq!((head.status().as_u16(), head.bytes().await?.len()), (200, 0));
    Ok(())
}

#[tokio::test]
async fn users_functions_and_jobs_survive_a_kill_and_a_job_keeps_its_version() -> Result<()> {
    let mut classic = Classic::start().await?;
    classic.said("POST", "/u/ada", None).await?;
    classic.put("(n) => 'first ' + n").await?;
    let (_, id) = classic.said("POST", "/u/ada/fn/f/run?wait=60", Some("[1]")).await?;
    let id = id.as_str().context("an id")?.to_owned();
    classic.put("async () => { await new Promise(r => setTimeout(r, 1500)); return 'old' }").await?;
    let (_, slow) = classic.said("POST", "/u/ada/fn/f/run", Some("[]")).await?;
    let slow = slow.as_str().context("an id")?.to_owned();
    assert_eq!(classic.said("DELETE", "/u/ada/fn/f", None).await?, (false, json!(1)));
    assert_eq!(classic.said("GET", "/u/ada/fn", None).await?, (false, json!({})));
    classic.lyra.kill().await?;
    classic.lyra.restart().await?;
    assert_eq!(classic.said("GET", &format!("/j/{slow}/res?wait=60"), None).await?, (false, json!("old")));
    assert_eq!(classic.said("GET", &format!("/j/{id}/res"), None).await?, (false, json!("first 1")));
    assert_eq!(classic.said("GET", "/u/ada/fn", None).await?, (false, json!({})));
    classic.put("() => 'new'").await?;
    assert_eq!(classic.run("[]").await?, "new");
    let (_, time) = classic.said("GET", "/u/ada/time", None).await?;
    assert!(time.as_u64().is_some_and(|ms| (1_500..60_000).contains(&ms)), "{time}");
    assert_eq!(classic.said("POST", "/u/ada", None).await?, (false, json!(1)), "a reset");
    assert_eq!(classic.said("GET", "/u/ada/time", None).await?, (false, json!(0)));
    assert_eq!(classic.said("GET", "/u/ada/fn", None).await?, (false, json!({})));
    assert_eq!(classic.said("GET", &format!("/j/{id}"), None).await?, (false, json!(1)), "jobs are kept");
    Ok(())
}

#[tokio::test]
async fn a_running_job_is_stopped_when_it_is_removed() -> Result<()> {
    let classic = Classic::start().await?;
    classic.said("POST", "/u/ada", None).await?;
    classic.put("() => new Promise(r => setTimeout(r, 50000))").await?;
    let (_, id) = classic.said("POST", "/u/ada/fn/f/run?wait=0.3", Some("[]")).await?;
    let id = id.as_str().context("an id")?.to_owned();
    assert_eq!(classic.said("GET", &format!("/j/{id}/res"), None).await?, (false, Value::Null));
    assert_eq!(classic.said("DELETE", &format!("/j/{id}"), None).await?, (false, json!(1)));
    assert_eq!(classic.said("DELETE", &format!("/j/{id}"), None).await?, (false, json!(0)));
    Ok(())
}
