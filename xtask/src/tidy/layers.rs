//! Which crate may depend on which, and on what from outside.
//!
//! The allow-list stands in the root manifest under `[workspace.metadata.layers]`; the rules that not even the
//! allow-list may break stand here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use cargo_metadata::{DependencyKind, Package};

use super::Findings;
use super::repository::Repository;

/// Crates that run as a role. They meet in `wire` and `types`, never in each other.
const SERVICES: [&str; 4] = ["control", "gateway", "logs", "worker"];
/// The only crates that may know every service.
const WIRES_SERVICES: [&str; 2] = ["node", "load"];
/// The only crates that may know how a sandbox works.
const KNOWS_ISOLATION: [&str; 3] = ["worker", "node", "load"];

/// Holds every crate to one set of features; has no code.
pub const FEATURES_ONLY: &str = "workspace-hack";

/// Licences that a dependency may have; `OR` needs one of them, `AND` all.
const LICENCES: [&str; 13] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn short(name: &str) -> &str {
    name.strip_prefix("lyra-").unwrap_or(name)
}

/// Edges of `package` to other crates of the workspace, without the prefix.
fn edges_of<'a>(package: &'a Package, members: &BTreeSet<&str>, dev: bool) -> BTreeSet<&'a str> {
    let wanted = |kind: DependencyKind| (kind == DependencyKind::Development) == dev;
    let inside = package.dependencies.iter().filter(|dep| members.contains(dep.name.as_str()) && wanted(dep.kind));
    inside.map(|dep| short(&dep.name)).collect()
}

fn allow_list(repository: &Repository, key: &str) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let list = repository.metadata.workspace_metadata.get(key);
    let list = list.with_context(|| format!("[workspace.metadata.{key}] is missing in Cargo.toml"))?;
    serde_json::from_value(list.clone()).with_context(|| format!("[workspace.metadata.{key}]"))
}

/// Every edge is in the allow-list, every entry of the allow-list is used, and neither breaks a rule of this file.
pub fn edges(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    let allowed = allow_list(repository, "layers")?;
    let allowed_in_tests = allow_list(repository, "layers-of-tests")?;
    let packages = repository.metadata.workspace_packages();
    let members: BTreeSet<&str> =
        packages.iter().map(|package| package.name.as_str()).filter(|name| *name != FEATURES_ONLY).collect();
    for package in packages.iter().filter(|package| package.name != FEATURES_ONLY) {
        let name = short(&package.name);
        // Programs outside of Lyra depend on these.
        let is_for_users = is_for_users(package, repository);
        if !is_for_users && !package.dependencies.iter().any(|dependency| dependency.name == FEATURES_ONLY) {
            findings.push(format!("{name} must depend on {FEATURES_ONLY}, so that nothing is compiled twice"));
        }
        let Some(may) = allowed.get(name) else {
            findings.push(format!("{name} has no line in [workspace.metadata.layers]"));
            continue;
        };
        let edges = edges_of(package, &members, false);
        for edge in &edges {
            if !may.contains(*edge) {
                findings.push(format!("{name} must not depend on {edge}"));
            }
        }
        for unused in may.iter().filter(|edge| !edges.contains(edge.as_str())) {
            findings.push(format!("{name} does not depend on {unused}: take it out of [workspace.metadata.layers]"));
        }
        let may_in_tests = allowed_in_tests.get(name);
        for edge in edges_of(package, &members, true) {
            if !may.contains(edge) && !may_in_tests.is_some_and(|list| list.contains(edge)) {
                findings.push(format!("tests of {name} must not depend on {edge}"));
            }
        }
    }
    findings.extend(broken_rules(&allowed));
    Ok(findings)
}

fn broken_rules(allowed: &BTreeMap<String, BTreeSet<String>>) -> Findings {
    let mut findings = Findings::new();
    for (name, edges) in allowed {
        for edge in edges {
            if SERVICES.contains(&edge.as_str()) && !WIRES_SERVICES.contains(&name.as_str()) {
                findings.push(format!("only {WIRES_SERVICES:?} may know the service {edge}, not {name}"));
            }
            if edge == "isolation" && !KNOWS_ISOLATION.contains(&name.as_str()) {
                findings.push(format!("only {KNOWS_ISOLATION:?} may know isolation, not {name}"));
            }
        }
    }
    findings
}

/// Whether a crate is a library for programs outside of Lyra.
fn is_for_users(package: &Package, repository: &Repository) -> bool {
    package.manifest_path.strip_prefix(&repository.root).is_ok_and(|path| path.starts_with("sdk"))
}

/// A crate's folder is its name without the prefix; folders in `sdk` are named for their language.
pub fn folders(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for package in repository.metadata.workspace_packages() {
        if is_for_users(package, repository) {
            continue;
        }
        let folder = package.manifest_path.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
        let in_crates = package.manifest_path.strip_prefix(&repository.root).is_ok_and(|p| p.starts_with("crates"));
        if folder != short(&package.name) || (in_crates && !package.name.starts_with("lyra-")) {
            findings.push(format!("{}: crate {} stands in the wrong folder", package.manifest_path, package.name));
        }
    }
    Ok(findings)
}

/// Dependencies come from crates.io and have a licence that goes with Apache-2.0. `deny.toml` says the same to
/// cargo-deny, which also knows advisories; this check needs no network.
pub fn licences(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for package in &repository.metadata.packages {
        let Some(source) = &package.source else { continue };
        if !source.is_crates_io() {
            findings.push(format!("{} comes from {source}, not from crates.io", package.name));
        }
        let licence = package.license.as_deref().unwrap_or("");
        if !is_allowed(licence) {
            findings.push(format!("{} has the licence {licence:?}", package.name));
        }
    }
    Ok(findings)
}

/// Understands `A OR B`, `A AND B`, the old `A/B`, and brackets round a part.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let words: Vec<String> =
        expression.replace('(', " ( ").replace(')', " ) ").split_whitespace().map(str::to_owned).collect();
    let mut at = 0;
    let allowed = any(&words, &mut at);
    allowed && at == words.len()
}

fn any(words: &[String], at: &mut usize) -> bool {
    let mut allowed = all(words, at);
    while words.get(*at).is_some_and(|word| word == "OR") {
        *at += 1;
        allowed |= all(words, at);
    }
    allowed
}

fn all(words: &[String], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at).is_some_and(|word| word == "AND") {
        *at += 1;
        allowed &= one(words, at);
    }
    allowed
}

fn one(words: &[String], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let allowed = any(words, at);
        *at += 1;
        return allowed;
    }
    let mut licence = word.clone();
    if words.get(*at).is_some_and(|next| next == "WITH") {
        licence = words[*at - 1..].iter().take(3).cloned().collect::<Vec<_>>().join(" ");
        *at += 2;
    }
    LICENCES.contains(&licence.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_understood() {
        for good in ["MIT", "MIT OR GPL-3.0", "GPL-2.0/MIT", "Apache-2.0 WITH LLVM-exception", "(MIT OR X) AND ISC"] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR X) AND Y", "GPL-2.0 WITH Classpath-exception-2.0"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn not_even_the_allow_list_may_join_services() {
        let list = |name: &str, edges: &[&str]| {
            BTreeMap::from([(name.to_owned(), edges.iter().map(|edge| (*edge).to_owned()).collect())])
        };
        assert_eq!(broken_rules(&list("gateway", &["worker"])).len(), 1);
        assert_eq!(broken_rules(&list("control", &["isolation"])).len(), 1);
        assert!(broken_rules(&list("node", &["gateway", "worker", "isolation"])).is_empty());
    }
}
