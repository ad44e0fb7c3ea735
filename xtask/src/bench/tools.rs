//! The programs that are measured beside Lyra, and the one that makes the load: installed once, from the ordinary
//! registries, into `target/bench`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::restate;

const OHA: &str = "1.16.0";
/// The wasmtime that Lyra itself is built with.
const WASMTIME: &str = "48.0.8";
const WORKERD: &str = "1.20261117.1";
const RESTATE: &str = "1.7.12";
const RESTATE_SDK: &str = "1.17.2";

/// Where the tools are.
pub struct Tools {
    folder: PathBuf,
    /// The load generator.
    pub oha: PathBuf,
}

impl Tools {
    /// Finds the load generator, installs it when missing.
    ///
    /// # Errors
    /// When it can't be installed.
    pub fn new(folder: PathBuf) -> anyhow::Result<Tools> {
        std::fs::create_dir_all(&folder).context("create target/bench")?;
        let oha = folder.join("bin/oha");
        let tools = Tools { folder, oha };
        tools.cargo_install(&tools.oha, "oha", OHA, &[])?;
        Ok(tools)
    }

    /// `wasmtime`, with what `wasmtime serve` needs. `None`, and a word why, when it can't be installed.
    pub fn wasmtime(&self) -> Option<PathBuf> {
        let program = self.folder.join("bin/wasmtime");
        let features =
            "run,serve,compile,cranelift,pooling-allocator,parallel-compilation,component-model,component-model-async";
        let lean = ["--no-default-features", "--features", features];
        said(self.cargo_install(&program, "wasmtime-cli", WASMTIME, &lean).map(|()| program))
    }

    /// `workerd`, from npm. `None`, and a word why, when it can't be installed.
    pub fn workerd(&self) -> Option<PathBuf> {
        said(self.npm_workerd())
    }

    /// Restate's server and its library for Node.js, from npm. `None`, and a word why, when they can't be installed.
    pub fn restate(&self) -> Option<restate::Installed> {
        said(self.npm_restate())
    }

    fn npm_restate(&self) -> anyhow::Result<restate::Installed> {
        if let Ok(found) = restate::find(&self.folder)
            && found.modules.join("node_modules/@restatedev/restate-sdk").exists()
        {
            return Ok(found);
        }
        let packages =
            [format!("@restatedev/restate-server@{RESTATE}"), format!("@restatedev/restate-sdk@{RESTATE_SDK}")];
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&self.folder);
        done(npm.args(packages))?;
        restate::find(&self.folder)
    }

    fn npm_workerd(&self) -> anyhow::Result<PathBuf> {
        let packages = self.folder.join("node_modules/@cloudflare");
        let find = || {
            let mut entries = std::fs::read_dir(&packages).ok()?.flatten();
            entries.find_map(|entry| Some(entry.path().join("bin/workerd")).filter(|program| program.exists()))
        };
        if find().is_none() {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", &format!("workerd@{WORKERD}"), "--prefix"]);
            done(npm.arg(&self.folder))?;
        }
        find().context("the npm package workerd has no program for this machine")
    }

    fn cargo_install(&self, program: &Path, name: &str, version: &str, how: &[&str]) -> anyhow::Result<()> {
        if program.exists() {
            return Ok(());
        }
        eprintln!("installing {name} {version}: this takes minutes, once");
        let mut cargo = Command::new("cargo");
        cargo.args(["install", name, "--version", version, "--locked", "--root"]).arg(&self.folder).args(how);
        done(&mut cargo)
    }
}

fn said<T>(outcome: anyhow::Result<T>) -> Option<T> {
    outcome.inspect_err(|error| eprintln!("measured without this peer: {error:#}")).ok()
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
