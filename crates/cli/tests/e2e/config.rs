//! `lyra config` and `lyra up --config`: layers, and what is not a setting.

use anyhow::{Context, Result};
use lyra_testkit::{Cli, Lyra, Options};

use super::start::BINARY;

fn cli() -> Cli {
    Cli::new(BINARY)
}

#[tokio::test]
async fn the_layers_are_printed_with_where_each_value_comes_from() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("lyra.toml"), "[worker]\nmax_running = 7\nqueue_timeout = \"2s\"\n")?;
    let cli = cli().within(dir.path()).env("LYRA__WORKER__QUEUE_TIMEOUT", "3s");
    let all = cli.run(["config", "print", "--config", "lyra.toml", "-o", "json"]).await?.json()?;
    assert_eq!(all["worker.max_running"], serde_json::json!({ "value": 7, "source": "lyra.toml" }));
    let from_variable = serde_json::json!({ "value": "3s", "source": "LYRA__WORKER__QUEUE_TIMEOUT" });
    assert_eq!(all["worker.queue_timeout"], from_variable);
    assert_eq!(all["worker.max_queued"]["source"], "default");
    // Nothing is over-committed unless somebody says so.
    for factor in ["worker.resources.cpu_factor", "worker.resources.memory_factor"] {
        assert_eq!(all[factor], serde_json::json!({ "value": 1.0, "source": "default" }), "{factor}");
    }
    let people = cli.run(["config", "print"]).await?.ok()?;
    assert!(people.contains("gateway.max_connections"), "{people}");
    Ok(())
}

#[tokio::test]
async fn the_variables_and_flags_of_up_are_printed_as_up_reads_them() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("lyra.toml"), "data_dir = \"file\"\nlog = \"json\"\n")?;
    let cli = cli().within(dir.path()).env("LYRA_DATA_DIR", "data").env("LYRA_LISTEN", "127.0.0.1:9");
    let cli = cli.env("LYRA_TOKEN_FILE", "tokens.txt").env("LYRA_LOG", "warn").env("LYRA__DATA_DIR", "below");
    let print = ["config", "print", "--config", "lyra.toml", "-o", "json"];
    let all = cli.run(print).await?.json()?;
    for (setting, value, source) in [
        ("data_dir", "data", "LYRA_DATA_DIR"),
        ("listen", "127.0.0.1:9", "LYRA_LISTEN"),
        ("token_file", "tokens.txt", "LYRA_TOKEN_FILE"),
        ("log_filter", "warn", "LYRA_LOG"),
        ("log", "json", "lyra.toml"),
    ] {
        assert_eq!(all[setting], serde_json::json!({ "value": value, "source": source }), "{setting}");
    }
    let flags = ["--data-dir", "flag", "--listen", "127.0.0.1:0", "--secrets-key", "key", "--log", "text"];
    let all = cli.run(print.iter().chain(&flags)).await?.json()?;
    for (setting, value) in
        [("data_dir", "flag"), ("listen", "127.0.0.1:0"), ("secrets.key_file", "key"), ("log", "text")]
    {
        assert_eq!(all[setting], serde_json::json!({ "value": value, "source": "flag" }), "{setting}");
    }
    // `lyra node` reads none of them but the last.
    let of_node = cli.run(print.iter().chain(&["--role", "worker"])).await?.json()?;
    assert_eq!(of_node["data_dir"]["source"], "LYRA__DATA_DIR");
    assert_eq!(of_node["log_filter"]["source"], "LYRA_LOG");
    assert_eq!(of_node["listen"]["source"], "default");
    assert_eq!(of_node["cluster.listen_grpc"], serde_json::json!({ "value": "127.0.0.1:0", "source": "default" }));
    Ok(())
}

#[tokio::test]
async fn what_is_not_a_setting_starts_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("bad.toml"), "[worker]\nmax_runing = 7\n")?;
    for command in ["up", "config print"] {
        let words = command.split(' ').chain(["--config", "bad.toml"]);
        let output = cli().within(dir.path()).run(words).await?.expect(2)?;
        let said = &output.stderr;
        assert!(said.contains("max_runing") && said.contains("bad.toml"), "{said}");
    }
    let output = cli().within(dir.path()).run(["up", "--config", "missing.toml"]).await?.expect(2)?;
    assert!(output.stderr.contains("missing.toml"), "{}", output.stderr);
    let output = cli().env("LYRA__WORKER__MAX_RUNNING", "many").run(["config", "print"]).await?.expect(2)?;
    assert!(output.stderr.contains("LYRA__WORKER__MAX_RUNNING"), "{}", output.stderr);
    // Each is of the right kind, but no call could ever run, or the process would not survive it.
    for (name, value) in [("MAX_RUNNING", "0"), ("WATCHDOG", "0s"), ("HYBRID__BINS", "4000000000")] {
        let output = cli().env(&format!("LYRA__WORKER__{name}"), value).run(["up"]).await?.expect(2)?;
        let setting = format!("worker.{}: ", name.to_lowercase().replace("__", "."));
        assert!(output.stderr.contains(&setting), "{}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_setting_of_the_file_holds_and_a_flag_goes_before_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("lyra.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\n[gateway]\nmax_event_bytes = 10\n")?;
    let env = vec![("LYRA_CONFIG".to_owned(), file.display().to_string())];
    let options = Options { binary: Some(BINARY.into()), env, ..Options::default() };
    let lyra = Lyra::start_with(options).await.context("the flag for the port goes before the file")?;
    let scratch = lyra.scratch().join("echo.js");
    std::fs::write(&scratch, "export default (e) => e")?;
    lyra.cli(["deploy", scratch.to_str().context("a path")?]).await?.ok()?;
    lyra.cli(["invoke", "echo", "-d", "1"]).await?.ok()?;
    let output = lyra.cli(["invoke", "echo", "-d", "\"more than ten bytes\""]).await?.expect(2)?;
    assert!(output.stderr.contains("10"), "{}", output.stderr);
    Ok(())
}
