//! Rules for the words in every file.

use super::Findings;
use super::repository::Repository;

/// Parts of absolute paths of somebody's machine. Put together here so that this file does not match itself.
fn machine_paths_sought() -> Vec<String> {
    ["work", "root", "home"].iter().map(|folder| format!("/{folder}/")).collect()
}

/// No tracked file names an absolute path of the machine that it was written on.
pub fn machine_paths(repository: &Repository) -> anyhow::Result<Findings> {
    let sought = machine_paths_sought();
    let mut findings = Findings::new();
    for file in repository.files.iter().filter(|file| file.path != "Cargo.lock") {
        for (number, line) in file.content.lines().enumerate() {
            if sought.iter().any(|path| has_absolute(line, path)) {
                findings.push(format!("{}:{}: names a path of one machine", file.path, number + 1));
            }
        }
    }
    Ok(findings)
}

/// Whether `path` stands in `line` as the start of an absolute path, not inside of a URL or a longer path.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "/._-}*>~$".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_count() {
        let path = &machine_paths_sought()[0];
        assert!(has_absolute(&format!("cd {path}main"), path));
        assert!(has_absolute(&format!("\"{path}x\""), path));
        assert!(!has_absolute(&format!("https://example.com{path}x"), path));
        assert!(!has_absolute(&format!("a{path}x"), path));
    }
}
