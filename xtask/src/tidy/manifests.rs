//! Manifests: every dependency has its version in the root manifest, and lists are in order.

use super::Findings;
use super::layers::FEATURES_ONLY;
use super::repository::Repository;

/// Checks each crate's manifest, line by line: the manifests are kept simple enough for that.
pub fn check(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for file in repository.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        if is_outside(repository, &file.path) || file.path.starts_with(FEATURES_ONLY) {
            continue;
        }
        if !file.content.contains("[lints]\nworkspace = true") {
            findings.push(format!("{}: [lints] workspace = true is missing", file.path));
        }
        for section in sections(&file.content).filter(|section| section.name.ends_with("dependencies")) {
            findings
                .extend(check_section(&section, true).into_iter().map(|finding| format!("{}: {finding}", file.path)));
        }
    }
    for section in sections(repository.file("Cargo.toml")?) {
        if section.name == "workspace.dependencies" {
            findings.extend(check_section(&section, false).into_iter().map(|finding| format!("Cargo.toml: {finding}")));
        }
    }
    Ok(findings)
}

/// Guests and the like, which are built apart from the workspace.
fn is_outside(repository: &Repository, path: &str) -> bool {
    let manifest = repository.root.join(path);
    !repository.metadata.workspace_packages().iter().any(|package| package.manifest_path == manifest)
}

struct Section<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

fn sections(content: &str) -> impl Iterator<Item = Section<'_>> {
    let mut sections = Vec::new();
    for line in content.lines() {
        if let Some(name) = line.strip_prefix('[') {
            sections.push(Section { name: name.trim_end().trim_end_matches(']'), lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        }
    }
    sections.into_iter()
}

fn check_section(section: &Section<'_>, by_workspace: bool) -> Findings {
    let mut findings = Findings::new();
    let mut before: Option<(bool, &str)> = None;
    for line in &section.lines {
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with([' ', '#'])) else { continue };
        let name = key.trim().trim_end_matches(".workspace");
        if by_workspace && !(key.trim().ends_with(".workspace") || value.contains("workspace = true")) {
            findings.push(format!("{name}: put the version in the root manifest and write {name}.workspace = true"));
        }
        // The workspace's own crates come first, in any order: mostly that of their layers.
        let place = if name.starts_with("lyra-") || name == FEATURES_ONLY { (false, "") } else { (true, name) };
        if before.is_some_and(|before| before > place) {
            findings.push(format!("[{}] {name} is out of order", section.name));
        }
        before = Some(place);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> usize {
        sections(text).map(|section| check_section(&section, true).len()).sum()
    }

    #[test]
    fn order_and_versions_are_checked() {
        assert_eq!(
            check_text("[dependencies]\nlyra-wire.workspace = true\nlyra-kit.workspace = true\na.workspace = true\n"),
            0
        );
        assert_eq!(check_text("[dependencies]\nb.workspace = true\na = { workspace = true, features = [] }\n"), 1);
        assert_eq!(check_text("[dependencies]\na = \"1\"\n"), 1);
        assert_eq!(check_text("[dependencies]\na.workspace = true\nlyra-kit.workspace = true\n"), 1);
    }
}
