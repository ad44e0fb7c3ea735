//! `cargo xtask tidy`: rules of the repository that no compiler checks. Also run as a test of this crate.
//!
//! Each check is a function from the [`Repository`] to findings; a finding says what is wrong, where, and
//! what to do. Exceptions stand in `allowed.txt`, which may only shrink.

mod documents;
mod layers;
mod manifests;
mod repository;
mod source;
mod text;

use repository::Repository;

/// One broken rule: where, and what to do.
type Findings = Vec<String>;

/// A check: its name, and the function that makes it.
type Check = (&'static str, fn(&Repository) -> anyhow::Result<Findings>);

const CHECKS: [Check; 14] = [
    ("crate edges", layers::edges),
    ("folder names", layers::folders),
    ("licences and sources", layers::licences),
    ("manifests", manifests::check),
    ("module documentation", source::module_docs),
    ("lengths", source::lengths),
    ("file names", source::names),
    ("lint exceptions", source::exceptions),
    ("machine paths", text::machine_paths),
    ("links", documents::links),
    ("examples", documents::examples),
    ("promises", documents::promises),
    ("metrics", documents::metrics),
    ("reference pages", documents::references),
];

/// Runs every check and prints what it found.
///
/// # Errors
/// When anything was found, or the repository can't be read.
pub fn run() -> anyhow::Result<()> {
    let findings = findings(&Repository::read(crate::repository())?)?;
    for finding in &findings {
        println!("{finding}");
    }
    anyhow::ensure!(findings.is_empty(), "{} findings", findings.len());
    println!("tidy: {} checks, nothing found", CHECKS.len());
    Ok(())
}

fn findings(repository: &Repository) -> anyhow::Result<Findings> {
    let mut all = Findings::new();
    for (name, check) in CHECKS {
        all.extend(check(repository)?.into_iter().map(|finding| format!("[{name}] {finding}")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_rules() {
        let repository = Repository::read(crate::repository()).expect("the repository can be read");
        let findings = findings(&repository).expect("the checks can be made");
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }
}
