//! Builds the WebAssembly files that are committed: the demo, the documentation and the tests use them, and nobody who
//! builds Lyra needs the target `wasm32-wasip2` for that.
//!
//! Beside each file stands its `.sha256` with the digests of its sources and of itself; `--check` compares those, which
//! finds a file that was not rebuilt after a change. It does not rebuild: another compiler gives other bytes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// A guest: its project, the file that cargo builds, and the committed file's name.
struct Guest {
    folder: &'static str,
    built: &'static str,
    committed: &'static str,
}

const GUESTS: [Guest; 3] = [
    Guest { folder: "examples/wasm-http-hello", built: "wasm_http_hello.wasm", committed: "hello.wasm" },
    Guest { folder: "examples/wasm-command", built: "words.wasm", committed: "words.wasm" },
    Guest { folder: "crates/isolation/tests/guests/hostile", built: "hostile.wasm", committed: "hostile.wasm" },
];

const TARGET: &str = "wasm32-wasip2";

/// Builds the guests, or (`check`) compares the committed digests with the sources.
pub fn run(check: bool) -> Result<()> {
    for guest in &GUESTS {
        let folder = crate::repository().join(guest.folder);
        let file = folder.join(guest.committed);
        let digests = folder.join(format!("{}.sha256", guest.committed));
        if !check {
            let size = std::fs::copy(build(&folder, guest.built)?, &file)?;
            std::fs::write(&digests, expected(&folder, &file)?)?;
            println!("{}/{}: {size} bytes", guest.folder, guest.committed);
            continue;
        }
        let committed = std::fs::read_to_string(&digests).with_context(|| format!("reading {}", digests.display()))?;
        ensure!(
            committed == expected(&folder, &file)?,
            "{}/{} is older than its sources; run `cargo xtask examples`",
            guest.folder,
            guest.committed
        );
        println!("{}/{} is as its sources", guest.folder, guest.committed);
    }
    Ok(())
}

fn build(folder: &Path, built: &str) -> Result<PathBuf> {
    let target = crate::repository().join("target/guests");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("there is no home directory")?;
    // Panic messages name source files; those of this machine are nobody's business.
    let remap = format!("--remap-path-prefix={}=", home.join("registry/src").display());
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", remap)
        .current_dir(folder)
        .status()?;
    ensure!(
        status.success(),
        "{} does not build; `rustup target add {TARGET}` adds the target where it is missing",
        folder.display()
    );
    Ok(target.join(TARGET).join("release").join(built))
}

/// The contents of the file of digests.
fn expected(folder: &Path, file: &Path) -> Result<String> {
    let mut sources: Vec<PathBuf> = vec![folder.join("Cargo.toml"), folder.join("Cargo.lock")];
    for entry in std::fs::read_dir(folder.join("src"))? {
        sources.push(entry?.path());
    }
    sources.sort();
    let mut hasher = Sha256::new();
    for source in sources {
        let contents = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
        let name = source.strip_prefix(folder)?.to_string_lossy().into_owned();
        for part in [name.as_bytes(), &contents] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    let binary = Sha256::digest(std::fs::read(file).with_context(|| format!("reading {}", file.display()))?);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{}  sources\n{}  {name}\n", hex::encode(hasher.finalize()), hex::encode(binary)))
}
