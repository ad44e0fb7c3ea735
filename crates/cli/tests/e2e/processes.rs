//! Functions that run as processes, from the command line to the sandbox and back. Needs python3 and node.

use anyhow::Result;
use serde_json::json;

use super::start::{repository, server};

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
