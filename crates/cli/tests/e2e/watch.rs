//! `lyra deploy --watch`: from an edit to a version that answers.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::Lyra;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};

use super::start::server;

struct Watch {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

async fn line<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>) -> Result<String> {
    let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.context("no line came")??;
    line.context("the command has ended")
}

impl Watch {
    fn begin(lyra: &Lyra, path: &str) -> Result<Watch> {
        let mut child = lyra.commands().command(["deploy", path, "--watch", "--name", "w"]).spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("piped")?).lines();
        let stderr = BufReader::new(child.stderr.take().context("piped")?).lines();
        Ok(Watch { child, stdout, stderr })
    }

    async fn deployed(&mut self, version: u64) -> Result<()> {
        let said = line(&mut self.stdout).await?;
        assert!(said.starts_with(&format!("deployed w version {version} (js, live) in ")), "{said}");
        Ok(())
    }

    async fn error(&mut self, part: &str) -> Result<()> {
        while !line(&mut self.stderr).await?.contains(part) {}
        Ok(())
    }
}

async fn answer(lyra: &Lyra) -> Result<String> {
    lyra.cli(["invoke", "w"]).await?.ok()
}

#[tokio::test]
async fn each_save_is_live_also_when_the_editor_replaces_the_file() -> Result<()> {
    let lyra = server().await?;
    let file = lyra.scratch().join("w.js");
    fs::write(&file, "export default () => 1")?;
    let mut watch = Watch::begin(&lyra, "w.js")?;
    watch.deployed(1).await?;
    watch.error("watching w.js").await?;
    fs::write(&file, "export default () => 2")?;
    watch.deployed(2).await?;
    assert_eq!(answer(&lyra).await?, "2\n");
    // As vim and many others save: write beside, rename over.
    for version in 3..=4 {
        let beside = lyra.scratch().join(".w.js.swp");
        fs::write(&beside, format!("export default () => {version}"))?;
        fs::rename(&beside, &file)?;
        watch.deployed(version).await?;
        assert_eq!(answer(&lyra).await?, format!("{version}\n"));
    }
    Ok(())
}

#[tokio::test]
async fn an_error_is_shown_with_its_place_and_watching_goes_on() -> Result<()> {
    let lyra = server().await?;
    let file = lyra.scratch().join("w.js");
    fs::write(&file, "export default () => 1")?;
    let mut watch = Watch::begin(&lyra, ".")?;
    watch.deployed(1).await?;
    watch.error("watching").await?;
    fs::write(&file, "export default () => {{{")?;
    watch.error("--> ./w.js:1:").await?;
    assert_eq!(answer(&lyra).await?, "1\n");
    fs::remove_file(&file)?;
    watch.error("no .js").await?;
    fs::write(&file, "export default () => 2")?;
    watch.deployed(2).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_away_gets_the_code_when_it_is_back_and_sigint_ends_the_watch() -> Result<()> {
    let mut lyra = server().await?;
    let file = lyra.scratch().join("w.js");
    fs::write(&file, "export default () => 1")?;
    let mut watch = Watch::begin(&lyra, "w.js")?;
    watch.deployed(1).await?;
    watch.error("watching").await?;
    lyra.terminate().await?;
    fs::write(&file, "export default () => 2")?;
    watch.error("no Lyra at").await?;
    lyra.restart().await?;
    watch.deployed(2).await?;
    let pid = watch.child.id().context("it runs")?.to_string();
    tokio::process::Command::new("sh").args(["-c", "kill -s INT \"$0\"", &pid]).status().await?;
    let status = tokio::time::timeout(Duration::from_secs(30), watch.child.wait()).await??;
    assert_eq!(status.code(), Some(0));
    Ok(())
}
