//! Wrong usage, settings, and a server that is not there.

use anyhow::Result;
use serde_json::Value;

use super::start::{alone, server};

/// A port that nothing listens on: it was free a moment ago.
fn nowhere() -> Result<String> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(format!("http://127.0.0.1:{port}"))
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2_with_help_on_stderr() -> Result<()> {
    let wrong: &[&[&str]] = &[
        &[],
        &["bogus"],
        &["fn"],
        &["fn", "bogus"],
        &["deploy"],
        &["deploy", "x.js", "--memory", "much"],
        &["deploy", "x.js", "--timeout", "30"],
        &["deploy", "x.js", "--env", "NOVALUE"],
        &["deploy", "x.js", "--runtime", "cobol"],
        &["deploy", "x.js", "--name", "Not_Valid"],
        &["invoke"],
        &["invoke", "UPPER"],
        &["invoke", "a@0"],
        &["invoke", "a", "--idempotency-key", "k"],
        &["logs", "a", "--since", "yesterday"],
        &["logs", "a", "--limit", "0"],
        &["job", "ls", "--status", "lost"],
        &["fn", "alias", "a", "live", "x"],
        &["fn", "alias", "a", "7"],
        &["fn", "alias", "a", "--delete"],
        &["dead-letter", "redrive"],
        &["dead-letter", "redrive", "job_1", "--all"],
        &["up", "--listen", "nonsense"],
        &["completions", "basic"],
        &["fn", "ls", "-o", "yaml"],
        &["webhook", "set", "a", "--on-failure", "repair"],
    ];
    for args in wrong {
        let output = alone().run(*args).await?;
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?}: {}", output.stderr);
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_exit_code_7_and_says_what_to_do() -> Result<()> {
    let url = nowhere()?;
    for args in [&["fn", "ls"][..], &["invoke", "a"], &["logs", "a", "--follow"], &["dead-letter", "ls"], &["openapi"]]
    {
        let output = alone().env("LYRA_URL", &url).run(args).await?.expect(7)?;
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains(&format!("no Lyra at {url}")), "{}", output.stderr);
        assert!(output.stderr.contains("`lyra up`"), "{}", output.stderr);
    }
    let problem = alone().env("LYRA_URL", &url).run(["fn", "ls", "-o", "json"]).await?.expect(7)?.stderr;
    let problem: Value = serde_json::from_str(&problem)?;
    assert_eq!(problem["code"], "unavailable");
    Ok(())
}

#[tokio::test]
async fn bad_settings_are_exit_code_2() -> Result<()> {
    for (variable, value) in [("LYRA_URL", "localhost"), ("LYRA_TENANT", "No Such"), ("LYRA_TOKEN", "a\nb")] {
        let output = alone().env(variable, value).run(["fn", "ls"]).await?.expect(2)?;
        assert!(output.stderr.starts_with("error: "), "{}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn what_answers_but_is_no_lyra_is_told_so() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let imposter = async {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\nnope\n";
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await?;
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await?;
        }
    };
    let cli = alone().env("LYRA_URL", &url);
    let output = tokio::select! {
        output = cli.run(["fn", "ls"]) => output?,
        broken = imposter => return broken,
    };
    assert_eq!(output.code, 7, "{}", output.stderr);
    assert!(
        output.stderr.contains("does not answer as Lyra does") && output.stderr.contains("nope"),
        "{}",
        output.stderr
    );
    Ok(())
}

#[tokio::test]
async fn flags_win_over_variables_and_tenants_are_apart() -> Result<()> {
    let lyra = server().await?;
    std::fs::write(lyra.scratch().join("a.js"), super::start::ECHO)?;
    lyra.cli(["deploy", "a.js", "--tenant", "blue"]).await?.ok()?;
    assert_eq!(lyra.cli(["fn", "ls", "-q"]).await?.ok()?, "");
    let blue = lyra.commands().env("LYRA_TENANT", "blue");
    assert_eq!(blue.run(["fn", "ls", "-q"]).await?.ok()?, "a\n");
    assert_eq!(blue.run(["fn", "ls", "-q", "--tenant", "red"]).await?.ok()?, "");
    assert_eq!(alone().run(["fn", "ls", "-q", "--url", lyra.url()]).await?.ok()?, "");
    Ok(())
}

#[tokio::test]
async fn version_and_completions_need_no_server() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(alone().run(["version"]).await?.ok()?, format!("lyra {version}\n"));
    assert_eq!(alone().run(["--version"]).await?.ok()?, format!("lyra {version}\n"));
    assert_eq!(alone().run(["version", "-o", "json"]).await?.json()?["version"], version);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = alone().run(["completions", shell]).await?.ok()?;
        assert!(script.contains("dead-letter"), "{shell}");
    }
    Ok(())
}

#[tokio::test]
async fn the_bash_completion_script_completes() -> Result<()> {
    let script = alone().run(["completions", "bash"]).await?.ok()?;
    // In a file: it is longer than one argument may be.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), script)?;
    let ask = "source \"$0\"; COMP_WORDS=(lyra dead-letter re); COMP_CWORD=2; _lyra lyra re dead-letter; echo \"${COMPREPLY[@]}\"";
    let output = tokio::process::Command::new("bash").args(["-c", ask]).arg(file.path()).output().await?;
    assert_eq!(String::from_utf8(output.stdout)?.trim(), "redrive", "{}", String::from_utf8(output.stderr)?);
    Ok(())
}

#[tokio::test]
async fn the_openapi_document_comes_from_the_server() -> Result<()> {
    let lyra = server().await?;
    let document = lyra.cli(["openapi"]).await?.json()?;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    assert!(document["paths"]["/v1/functions/{name}/invoke"].is_object());
    Ok(())
}
