//! Documents name what the code has, and nothing that it has not.

use std::collections::BTreeSet;

use lyra_types::Code;

use super::Findings;
use super::repository::{Repository, Text};

/// Documents that people read.
fn documents(repository: &Repository) -> impl Iterator<Item = &Text> {
    let is_document = |path: &str| {
        path.ends_with(".md") && (!path.contains('/') || path.starts_with("docs/") || path.starts_with("examples/"))
    };
    repository.files.iter().filter(move |file| is_document(&file.path))
}

/// Links between documents lead to files that are there, and to headings that are there.
pub fn links(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for file in documents(repository) {
        for target in link_targets(&file.content) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = resolve(&file.path, path);
            if !repository.root.join(&path).exists() {
                findings.push(format!("{}: {target} leads nowhere", file.path));
            } else if !heading.is_empty()
                && path.ends_with(".md")
                && !headings(repository.file(&path)?).contains(heading)
            {
                findings.push(format!("{}: {target}: no such heading", file.path));
            }
        }
    }
    Ok(findings)
}

/// The targets of `[text](target)` outside of code.
fn link_targets(content: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for line in content.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (number, part) in line.split("](").enumerate() {
            if number > 0
                && let Some((target, _)) = part.split_once(')')
            {
                targets.push(target.split_whitespace().next().unwrap_or_default());
            }
        }
    }
    targets
}

fn resolve(from: &str, target: &str) -> String {
    if target.is_empty() {
        return from.to_owned();
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Anchors of a document's headings, as GitHub makes them.
fn headings(content: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
    };
    content.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Every example is named by a document or a test.
pub fn examples(repository: &Repository) -> anyhow::Result<Findings> {
    let folders: BTreeSet<&str> = repository
        .paths
        .iter()
        .filter_map(|path| path.strip_prefix("examples/")?.split_once('/').map(|(folder, _)| folder))
        .collect();
    let readers = || {
        let of_code = repository.files.iter().filter(|file| file.path.ends_with(".rs"));
        documents(repository).filter(|file| !file.path.starts_with("examples/")).chain(of_code)
    };
    let unnamed = folders.into_iter().filter(|folder| {
        let named = format!("examples/{folder}");
        !readers().any(|file| file.content.contains(&named) || file.content.contains(&format!("\"{folder}\"")))
    });
    Ok(unnamed.map(|folder| format!("examples/{folder}: name it in a document or a test")).collect())
}

/// The tests that ARCHITECTURE and SPECIFICATION name are there.
pub fn promises(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for page in ["ARCHITECTURE.md", "SPECIFICATION.md"] {
        for name in claims(repository.file(page)?) {
            let function = format!("fn {name}(");
            if !repository.rust().any(|file| file.content.contains(&function)) {
                findings.push(format!("{page}: there is no test {name}"));
            }
        }
    }
    Ok(findings)
}

/// Names in backticks that read like a test's: at least five words.
fn claims(content: &str) -> BTreeSet<&str> {
    let is_claim = |part: &&str| {
        part.matches('_').count() >= 4 && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    content.split('`').filter(is_claim).collect()
}

/// Every metric is in `docs/reference/metrics.md`, and the other way round.
pub fn metrics(repository: &Repository) -> anyhow::Result<Findings> {
    const PAGE: &str = "docs/reference/metrics.md";
    let page = metric_names(repository.file(PAGE)?, "`");
    let mut in_code = BTreeSet::new();
    for file in repository.rust().filter(|file| file.path.starts_with("crates/") && file.path.contains("metrics")) {
        in_code.extend(metric_names(&file.content, "\""));
    }
    let missing = in_code.difference(&page).map(|name| format!("{PAGE}: {name} is missing"));
    let stale = page.difference(&in_code).map(|name| format!("{PAGE}: {name} is in no metrics.rs"));
    Ok(missing.chain(stale).collect())
}

/// Words `lyra_…` between two `quote`s.
fn metric_names(content: &str, quote: &str) -> BTreeSet<String> {
    let is_name = |part: &&str| {
        let of_name = part.strip_prefix("lyra_").unwrap_or_default();
        !of_name.is_empty() && of_name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    content.split(quote).filter(is_name).map(str::to_owned).collect()
}

/// Every error code stands with its statuses in `errors.md`, every limit with its value in `limits.md`.
pub fn references(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    let errors = repository.file("docs/reference/errors.md")?;
    for code in Code::ALL {
        let row = code.row();
        let line = format!("| `{code}` | {} | {} | {} |", row.http, row.grpc, row.exit);
        if !errors.contains(&line) {
            findings.push(format!("docs/reference/errors.md: a line that begins with {line:?} is missing"));
        }
    }
    let limits = repository.file("docs/reference/limits.md")?;
    for (name, value) in limits_of(repository.file("crates/types/src/function.rs")?)? {
        let line = format!("| `{name}` | {value} |");
        if !limits.contains(&line) {
            findings.push(format!("docs/reference/limits.md: a line that begins with {line:?} is missing"));
        }
    }
    Ok(findings)
}

/// The constants of `lyra_types::function::limit`, with their values as a page shows them.
fn limits_of(source: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut limits = Vec::new();
    for item in syn::parse_file(source)?.items {
        if let syn::Item::Mod(module) = item
            && module.ident == "limit"
        {
            for item in module.content.map(|(_, items)| items).unwrap_or_default() {
                if let syn::Item::Const(constant) = item {
                    limits.push((constant.ident.to_string(), shown(&constant.expr)?));
                }
            }
        }
    }
    anyhow::ensure!(!limits.is_empty(), "the module `limit` is not in crates/types/src/function.rs any more");
    Ok(limits)
}

/// `60_000` as `60,000`, `4 << 20` as `4 MiB`.
fn shown(value: &syn::Expr) -> anyhow::Result<String> {
    let number = |expression: &syn::Expr| match expression {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(number), .. }) => number.base10_parse::<u64>().ok(),
        _ => None,
    };
    let shifted = match value {
        syn::Expr::Binary(binary) if matches!(binary.op, syn::BinOp::Shl(_)) => {
            number(&binary.left).zip(number(&binary.right))
        }
        _ => None,
    };
    match (number(value), shifted) {
        (Some(plain), _) => Ok(with_commas(plain)),
        (None, Some((left, 10))) => Ok(format!("{left} KiB")),
        (None, Some((left, 20))) => Ok(format!("{left} MiB")),
        _ => anyhow::bail!("a limit is neither a number nor one shifted by 10 or 20"),
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len() >= 4 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        assert_eq!(link_targets("see [a](b.md#c) and [d](../e)\n```\n[x](y)\n```\n"), ["b.md#c", "../e"]);
        assert_eq!(resolve("docs/guide/a.md", "../reference/b.md"), "docs/reference/b.md");
        assert_eq!(resolve("docs/a.md", ""), "docs/a.md");
        assert!(headings("## Life of a job\n").contains("life-of-a-job"));
    }

    #[test]
    fn limits_are_shown_as_the_page_shows_them() {
        let source =
            "pub mod limit { pub const A: u32 = 16; pub const B: u64 = 60_000; pub const C: usize = 4 << 20; }";
        let limits = limits_of(source).expect("well-formed");
        assert_eq!(limits.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["16", "60,000", "4 MiB"]);
    }

    #[test]
    fn names_of_tests_are_claims() {
        let text = "`a_job_ends_exactly_once`, `cpu_us_per_call`, `tests/e2e/up.rs`";
        assert_eq!(claims(text).into_iter().collect::<Vec<_>>(), ["a_job_ends_exactly_once"]);
    }

    #[test]
    fn metric_names_are_found_between_quotes() {
        let names = metric_names("counter(\"lyra_calls_total\", \"lyra_ and more\")", "\"");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["lyra_calls_total"]);
    }
}
