//! Functions that run as processes, from the command line to the sandbox and back. Needs python3 and node.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result};
use lyra_testkit::{Lyra, Options};
use serde_json::json;

use super::start::{BINARY, repository, server};

fn example(name: &str) -> String {
    repository().join("examples").join(name).display().to_string()
}

#[tokio::test]
async fn a_python_directory_is_deployed_and_invoked() -> Result<()> {
    let lyra = server().await?;
    let output = lyra.cli(["deploy", &example("python-hello")]).await?.ok()?;
    assert!(output.starts_with("deployed python-hello version 1 (python, live) in "), "{output}");
    let result = lyra.cli(["invoke", "python-hello", "-d", "{\"name\":\"Ada\"}"]).await?.json()?;
    assert_eq!(result, json!({ "message": "Hello, Ada!", "function": "python-hello" }));
    Ok(())
}

#[tokio::test]
async fn a_source_file_keeps_its_instance_and_its_errors_have_a_place() -> Result<()> {
    let lyra = server().await?;
    let file = lyra.scratch().join("count.py");
    std::fs::write(&file, "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return n\n")?;
    lyra.cli(["deploy", "count.py", "--memory", "2048", "--cpus", "0.5", "--network", "none"]).await?.ok()?;
    for expected in ["1", "2"] {
        assert_eq!(lyra.cli(["invoke", "count", "-d", "null"]).await?.ok()?.trim(), expected);
    }
    std::fs::write(&file, "def handler(event, context):\n    raise LookupError('not there')\n")?;
    lyra.cli(["deploy", "count.py"]).await?.ok()?;
    let failed = lyra.cli(["invoke", "count", "-d", "null"]).await?;
    assert_eq!(failed.code, 1);
    assert!(
        failed.stderr.contains("LookupError: not there") && failed.stderr.contains("main.py\", line 2"),
        "{}",
        failed.stderr
    );
    std::fs::write(&file, "def handler(event, context):\n    return (1 +\n")?;
    let refused = lyra.cli(["deploy", "count.py"]).await?;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("SyntaxError") && refused.stderr.contains("2 |"), "{}", refused.stderr);
    Ok(())
}

/// What Lyra sets for its own memory does not hold for the programs that it runs.
#[tokio::test]
async fn programs_take_huge_pages_as_the_machine_says() -> Result<()> {
    let lyra = server().await?;
    let python = "def handler(event, context):\n    return open('/proc/self/status').read()\n";
    std::fs::write(lyra.scratch().join("pages.py"), python)?;
    lyra.cli(["deploy", "pages.py"]).await?.ok()?;
    let status = lyra.cli(["invoke", "pages", "-d", "null"]).await?.json()?;
    anyhow::ensure!(status.as_str().is_some_and(|status| status.contains("THP_enabled:\t1")), "{status}");
    let told = r#""\"$(grep THP_enabled /proc/self/status | tr '\t' ' ')\"""#;
    let source = BOOTSTRAP.replace(r#""{\"echo\":$event}""#, told);
    let body = json!({ "runtime": "native", "code": { "source": source } });
    let url = format!("{}/v1/functions/pages", lyra.url());
    let put = lyra.http()?.put(&url).header("content-type", "application/json").body(body.to_string());
    anyhow::ensure!(put.send().await?.status().is_success(), "{source}");
    let line = lyra.cli(["invoke", "pages", "-d", "null"]).await?.json()?;
    assert_eq!(line, json!("THP_enabled: 1"));
    Ok(())
}

const BOOTSTRAP: &str = include_str!("../../../../examples/native-hello/bootstrap");

#[tokio::test]
async fn a_script_alone_is_a_native_function() -> Result<()> {
    let lyra = server().await?;
    let (http, url) = (lyra.http()?, format!("{}/v1/functions/script", lyra.url()));
    let put = |source: &str| {
        let body = json!({ "runtime": "native", "code": { "source": source } });
        http.put(&url).header("content-type", "application/json").body(body.to_string()).send()
    };
    assert_eq!(put(BOOTSTRAP).await?.status().as_u16(), 201);
    let result = lyra.cli(["invoke", "script", "-d", "[1]"]).await?.json()?;
    assert_eq!(result, json!({ "echo": [1] }));
    let refused = put("echo hello").await?;
    assert_eq!(refused.status().as_u16(), 422);
    let problem: serde_json::Value = refused.json().await?;
    assert_eq!(problem["errors"][0]["field"], "code.source");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("#!/bin/sh")), "{problem}");
    Ok(())
}

#[tokio::test]
async fn node_native_and_http_examples_run() -> Result<()> {
    let lyra = server().await?;
    lyra.cli(["deploy", &example("node-hello"), "--runtime", "nodejs"]).await?.ok()?;
    let result = lyra.cli(["invoke", "node-hello", "-d", "{\"name\":\"Ada\"}"]).await?.json()?;
    assert_eq!(result, json!({ "message": "Hello, Ada!", "function": "node-hello" }));
    lyra.cli(["deploy", &example("native-hello")]).await?.ok()?;
    let result = lyra.cli(["invoke", "native-hello", "-d", "[1]"]).await?.json()?;
    assert_eq!(result, json!({ "echo": [1] }));
    lyra.cli(["deploy", &example("http-hello"), "--runtime", "http"]).await?.ok()?;
    let answer = lyra.http()?.get(format!("{}/fn/default/http-hello/Ada", lyra.url())).send().await?;
    assert_eq!((answer.status().as_u16(), answer.text().await?.as_str()), (200, "Hello, Ada!\n"));
    Ok(())
}

/// A directory `pkg` in the server's scratch with these files in place of those before, and `pkg.zip` with the same.
fn package(lyra: &Lyra, files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let dir = lyra.scratch().join("pkg");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir(&dir)?;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        std::fs::write(dir.join(name), text)?;
        archive.start_file(*name, zip::write::SimpleFileOptions::default())?;
        archive.write_all(text.as_bytes())?;
    }
    let bytes = archive.finish()?.into_inner();
    std::fs::write(lyra.scratch().join("pkg.zip"), &bytes)?;
    Ok(bytes)
}

#[tokio::test]
async fn the_runtime_of_a_directory_and_of_an_archive_follows_from_what_is_in_them() -> Result<()> {
    let lyra = server().await?;
    let http = lyra.http()?;
    let (node, helper) =
        ("const help = require('./helper')\nexports.handler = async () => help()", "module.exports = () => 7");
    for (files, runtime, result) in [
        (&[("index.js", node), ("helper.js", helper)][..], "nodejs", "7"),
        (&[("index.js", node), ("helper.js", helper), ("package.json", "{}")], "nodejs", "7"),
        (&[("main.py", "def handler(event, context):\n    return 7\n"), ("helper.py", "")], "python", "7"),
        (&[("bootstrap", BOOTSTRAP)], "native", "{\"echo\":null}"),
        (&[("index.js", "export default () => 7")], "js", "7"),
    ] {
        let bytes = package(&lyra, files)?;
        let raw = http.put(format!("{}/v1/functions/raw-{runtime}/code", lyra.url()));
        let raw = raw.header("content-type", "application/zip").body(bytes).send().await?;
        let raw: serde_json::Value = raw.json().await?;
        assert_eq!(raw["runtime"], runtime, "{raw}");
        for path in ["pkg", "pkg.zip"] {
            let deployed = lyra.cli(["deploy", path]).await?.expect(0)?;
            assert!(deployed.stdout.contains(&format!("({runtime}, live)")), "{}", deployed.stdout);
            let says = deployed.stderr.contains("deployed whole, for nodejs");
            assert_eq!(says, path == "pkg" && runtime == "nodejs", "{path}: {}", deployed.stderr);
        }
        for name in ["pkg".to_owned(), format!("raw-{runtime}")] {
            assert_eq!(lyra.cli(["invoke", &name, "-d", "null"]).await?.ok()?.trim(), result, "{name}, {runtime}");
        }
    }
    let bytes = package(&lyra, &[("main.py", ""), ("bootstrap", BOOTSTRAP)])?;
    for path in ["pkg", "pkg.zip"] {
        let unclear = lyra.cli(["deploy", path]).await?.expect(2)?;
        assert!(unclear.stderr.contains("python (main.py) or native (bootstrap)"), "{}", unclear.stderr);
        assert!(unclear.stderr.contains("--runtime"), "{}", unclear.stderr);
    }
    let unclear = http.put(format!("{}/v1/functions/unclear/code", lyra.url()));
    let unclear = unclear.header("content-type", "application/zip").body(bytes).send().await?;
    assert_eq!(unclear.status().as_u16(), 422);
    let problem: serde_json::Value = unclear.json().await?;
    assert_eq!((&problem["code"], &problem["errors"][0]["field"]), (&json!("invalid_field"), &json!("runtime")));
    Ok(())
}

/// All processes that descend from one, by number and time of start, so that a number given out again is not taken for it.
fn descendants(pid: u32) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut next = vec![pid.to_string()];
    while let Some(pid) = next.pop() {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            next.extend(children.split_whitespace().map(str::to_owned));
        }
        found.extend(begin(&pid).map(|begin| (pid, begin)));
    }
    found
}

/// When a process began, if it is there.
fn begin(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Waits until a function has written a line for each of `calls`.
async fn begun(lyra: &Lyra, function: &str, calls: usize) -> Result<()> {
    while lyra.cli(["logs", function, "-q"]).await?.ok()?.matches("begun").count() < calls {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn after_a_kill_no_process_is_left_and_every_job_ends_once() -> Result<()> {
    let mut lyra = server().await?;
    let scratch = lyra.scratch();
    let python = "import time\ndef handler(event, context):\n    print('begun', flush=True)\n    time.sleep(event)\n    return event\n";
    std::fs::write(scratch.join("sleeper.py"), python)?;
    let node = "exports.handler = async (event) => { console.log('begun'); await new Promise((done) => setTimeout(done, event * 1000)); return event };";
    std::fs::write(scratch.join("napper.js"), node)?;
    lyra.cli(["deploy", "sleeper.py"]).await?.ok()?;
    lyra.cli(["deploy", "napper.js", "--runtime", "nodejs"]).await?.ok()?;
    let mut jobs = Vec::new();
    for function in ["sleeper", "napper"] {
        for _ in 0..3 {
            let id = lyra.cli(["invoke", function, "-d", "2.5", "--async"]).await?.ok()?;
            jobs.push(id.trim().to_owned());
        }
        begun(&lyra, function, 3).await?;
    }
    let before = descendants(lyra.pid().context("it runs")?);
    // Lyra, its launcher, an interpreter to be forked, six instances with a first process each.
    assert!(before.len() >= 3 + 2 * 6, "{before:?}");
    lyra.kill().await?;
    lyra.restart().await?;
    let is_left = |(pid, since): &&(String, String)| begin(pid).as_ref() == Some(since);
    let name = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    loop {
        let left: Vec<_> = before.iter().filter(is_left).map(|(pid, _)| name(pid)).collect();
        if left.is_empty() {
            break;
        }
        // The former launcher lets the next one begin with its very last act; the rest went before.
        assert!(left.iter().all(|name| name.starts_with("lyra-launcher") || name.is_empty()), "left: {left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for id in &jobs {
        lyra.cli(["job", "wait", id, "--timeout", "60s"]).await?.ok()?;
        let job = lyra.cli(["job", "get", id, "-o", "json"]).await?.json()?;
        assert_eq!(job["status"], "succeeded", "{job}");
        assert!(job["attempts"].as_u64().is_some_and(|attempts| (1..=2).contains(&attempts)), "{job}");
        assert_eq!(lyra.cli(["job", "result", id]).await?.ok()?, "2.5\n");
    }
    let all = lyra.cli(["job", "ls", "-o", "json"]).await?.json()?;
    assert_eq!(all["items"].as_array().context("a list")?.len(), jobs.len(), "each is there once: {all}");
    Ok(())
}

#[tokio::test]
async fn the_worker_shows_what_its_sandboxes_can_do_and_what_waits() -> Result<()> {
    let lyra = server().await?;
    lyra.cli(["deploy", &example("python-hello")]).await?.ok()?;
    lyra.cli(["invoke", "python-hello"]).await?.ok()?;
    let cells = |of: &serde_json::Value| of["waiting"][0]["count"].as_u64();
    let process = loop {
        let worker = lyra.cli(["worker", "get", "local", "-o", "json"]).await?.json()?;
        let backends = worker["backends"].as_array().context("a list")?.clone();
        let process = backends.into_iter().find(|of| of["name"] == "process").context("it is there")?;
        if cells(&process) == Some(2) {
            break process;
        }
    };
    for ability in ["privilege", "users", "namespaces", "cgroups", "cgroup_moves", "seccomp"] {
        assert!(process["abilities"][ability].as_str().is_some_and(|what| !what.is_empty()), "{ability}: {process}");
    }
    assert_eq!(
        process["waiting"][1],
        json!({ "kind": "zygotes", "count": 1, "memory": process["waiting"][1]["memory"] })
    );
    assert!(process["waiting"][0]["memory"].as_u64() > Some(1 << 20), "{process}");
    assert!(process["reserved"].as_u64() >= process["waiting"][0]["memory"].as_u64(), "{process}");
    let python = process["offers"].as_array().context("a list")?.iter().find(|of| of["runtime"] == "python");
    let python = python.context("is offered")?;
    assert_eq!((&python["available"], &python["auto"]), (&json!(true), &json!(true)));
    assert!(python["detail"].as_str().is_some_and(|what| what.contains("python3") && what.contains(" 3.")), "{python}");
    let people = lyra.cli(["worker", "get", "local"]).await?.ok()?;
    for (name, value) in [("isolation", "process"), ("seccomp", "allow-list"), ("cells", "2 wait, with ")] {
        let mut shown = people.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        assert!(shown.any(|shown| shown.trim_start().starts_with(value)), "{name}: {people}");
    }
    let metrics = lyra.http()?.get(format!("{}/metrics", lyra.url())).send().await?.text().await?;
    for line in [
        "lyra_worker_backend_available{backend=\"process\"} 1",
        "lyra_worker_waiting_interpreters{backend=\"process\",kind=\"cells\"} 2",
        "lyra_worker_waiting_interpreters{backend=\"process\",kind=\"zygotes\"} 1",
        "lyra_worker_reserved_bytes{backend=\"process\"}",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_without_processes_or_gpus_refuses_what_needs_them_and_says_why() -> Result<()> {
    let env = vec![("LYRA__PROCESS__ENABLED".to_owned(), "false".to_owned())];
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), env, ..Options::default() }).await?;
    let refused = lyra.cli(["deploy", &example("python-hello")]).await?.expect(2)?;
    assert!(refused.stderr.contains("process.enabled"), "{}", refused.stderr);
    let worker = lyra.cli(["worker", "get", "local", "-o", "json"]).await?.json()?;
    let process = worker["backends"].as_array().context("a list")?.iter().find(|of| of["name"] == "process");
    let process = process.context("it is there")?;
    assert!(process["unavailable"].as_str().is_some_and(|why| why.contains("process.enabled")), "{process}");
    assert_eq!(process["offers"][0]["available"], false);
    let metrics = lyra.http()?.get(format!("{}/metrics", lyra.url())).send().await?.text().await?;
    assert!(metrics.contains("lyra_worker_backend_available{backend=\"process\"} 0"), "{metrics}");

    let lyra = server().await?;
    let worker = lyra.cli(["worker", "get", "local", "-o", "json"]).await?.json()?;
    if worker["gpus"].as_array().context("a list")?.is_empty() {
        let refused = lyra.cli(["deploy", &example("python-hello"), "--gpus", "1"]).await?.expect(2)?;
        assert!(refused.stderr.contains("this worker has no GPU"), "{}", refused.stderr);
        assert_eq!(lyra.cli(["fn", "ls", "-q"]).await?.ok()?, "", "nothing is stored");
    }
    Ok(())
}

#[tokio::test]
async fn settings_bound_what_an_instance_may_use() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("lyra.toml");
    std::fs::write(
        &file,
        "[process]\ntmp_bytes = 1048576\nopen_files = 100\ncells = 0\n[process.egress]\nallow = [\"allowed.test\"]\n",
    )?;
    let env = vec![("LYRA_CONFIG".to_owned(), file.display().to_string())];
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), env, ..Options::default() }).await?;
    let source = "import os, resource, shutil, socket\n\
                  def proxy(target):\n    with socket.create_connection(('127.0.0.1', 9002), 5) as way:\n        \
                  way.sendall(f'CONNECT {target} HTTP/1.1\\r\\n\\r\\n'.encode())\n        return way.recv(1000).split()[1].decode()\n\
                  def handler(event, context):\n    return [shutil.disk_usage('/tmp').total, resource.getrlimit(resource.RLIMIT_NOFILE)[0], proxy('denied.test:443')]\n";
    std::fs::write(lyra.scratch().join("bounds.py"), source)?;
    lyra.cli(["deploy", "bounds.py", "--network", "egress"]).await?.ok()?;
    let result = lyra.cli(["invoke", "bounds"]).await?.json()?;
    assert_eq!(result, json!([1 << 20, 100, "403"]));
    let worker = lyra.cli(["worker", "get", "local", "-o", "json"]).await?.json()?;
    let process = worker["backends"].as_array().context("a list")?.iter().find(|of| of["name"] == "process");
    assert_eq!(process.context("it is there")?["waiting"][0]["count"], 0);
    Ok(())
}
