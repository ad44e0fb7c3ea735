//! The files that the checks look at, read once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// A text file of the repository.
pub struct Text {
    /// Path from the root, with `/`.
    pub path: String,
    /// What it says.
    pub content: String,
}

/// The repository: its text files (tracked, or new and not ignored) and its cargo metadata.
pub struct Repository {
    /// Where it lies.
    pub root: PathBuf,
    /// Every text file, by path.
    pub files: Vec<Text>,
    /// Every file, also those that are not text, by path.
    pub paths: Vec<String>,
    /// What cargo knows of the workspace and its dependencies.
    pub metadata: cargo_metadata::Metadata,
}

impl Repository {
    /// Reads the repository at `root`.
    ///
    /// # Errors
    /// When git or cargo can't be asked.
    pub fn read(root: &Path) -> anyhow::Result<Repository> {
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("git ls-files")?;
        anyhow::ensure!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
        let mut paths: Vec<String> = String::from_utf8(listing.stdout)?
            .split_terminator('\0')
            .filter(|path| root.join(path).is_file())
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths.dedup();
        let mut files = Vec::new();
        for path in &paths {
            // A file that vanishes meanwhile, or is not UTF-8, is no text to check.
            if let Ok(content) = std::fs::read_to_string(root.join(path)) {
                files.push(Text { path: path.clone(), content });
            }
        }
        let metadata = cargo_metadata::MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .other_options(vec!["--offline".to_owned()])
            .exec()
            .or_else(|_| cargo_metadata::MetadataCommand::new().manifest_path(root.join("Cargo.toml")).exec())
            .context("cargo metadata")?;
        Ok(Repository { root: root.to_owned(), files, paths, metadata })
    }

    /// The text file at `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn file(&self, path: &str) -> anyhow::Result<&str> {
        let file = self.files.iter().find(|file| file.path == path);
        Ok(&file.with_context(|| format!("{path} does not exist"))?.content)
    }

    /// Rust files, without snapshots of tests and guests that are no part of the workspace.
    pub fn rust(&self) -> impl Iterator<Item = &Text> {
        let ours = |path: &str| ["crates/", "xtask/", "fuzz/", "sdk/"].iter().any(|folder| path.starts_with(folder));
        self.files.iter().filter(move |file| file.path.ends_with(".rs") && ours(&file.path))
    }
}

/// Whether a Rust file holds nothing but tests.
pub fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/")
}
