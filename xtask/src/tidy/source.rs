//! Rules for Rust files: documentation, size, names, exceptions to lints.

use std::collections::BTreeMap;

use anyhow::Context;
use syn::spanned::Spanned;
use syn::visit::Visit;

use super::Findings;
use super::repository::{Repository, Text, is_test_file};

/// Most lines of a file that holds more than tests.
const MAX_FILE: usize = 600;
/// Most lines of a function, from its signature to its closing brace.
const MAX_FUNCTION: usize = 100;
/// How far below its allowance an exception may fall before the allowance has to follow.
const SLACK: usize = 20;
/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 9] =
    ["common", "helper", "helpers", "manager", "managers", "misc", "struct", "structs", "utils"];
/// Endings that say nothing either.
const BANNED_ENDINGS: [&str; 4] = ["_impl", "_utils", "_helpers", "_manager"];

/// Every file begins by saying what it is for.
pub fn module_docs(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for file in repository.rust() {
        if !file.content.trim_start().starts_with("//!") {
            findings.push(format!("{}: begin with a //! comment: what the file is for", file.path));
        }
    }
    Ok(findings)
}

/// No name that could stand for anything.
pub fn names(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for file in repository.rust() {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if BANNED_NAMES.contains(&part) || BANNED_ENDINGS.iter().any(|ending| part.ends_with(ending)) {
                findings.push(format!("{}: name it after what is inside, not {part:?}", file.path));
            }
        }
    }
    Ok(findings)
}

/// Files and functions are short, but for the exceptions in `allowed.txt`, which only shrink.
pub fn lengths(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    let mut allowed = Allowed::parse(repository.file("xtask/src/tidy/allowed.txt")?)?;
    for file in repository.rust().filter(|file| !is_test_file(&file.path)) {
        let lines = lines_without_tests(file)?;
        findings.extend(allowed.judge(&file.path, lines, MAX_FILE, "split the file by what it is about"));
        let mut functions = Functions::default();
        functions.visit_file(&parse(file)?);
        for (name, lines) in functions.found {
            let place = format!("{}#{name}", file.path);
            findings.extend(allowed.judge(&place, lines, MAX_FUNCTION, "split the function"));
        }
    }
    findings.extend(allowed.unused());
    Ok(findings)
}

/// A lint is switched off only with a reason, and only while it would speak (`expect`, not `allow`).
pub fn exceptions(repository: &Repository) -> anyhow::Result<Findings> {
    let mut findings = Findings::new();
    for file in repository.rust() {
        let mut found = Exceptions::default();
        found.visit_file(&parse(file)?);
        findings.extend(
            found.lines.into_iter().map(|line| {
                format!("{}:{line}: write #[expect(…, reason = \"…\")] (or allow with a reason)", file.path)
            }),
        );
    }
    Ok(findings)
}

fn parse(file: &Text) -> anyhow::Result<syn::File> {
    syn::parse_file(&file.content).with_context(|| format!("{} is no Rust", file.path))
}

/// Lines of the file but for its `#[cfg(test)]` modules.
fn lines_without_tests(file: &Text) -> anyhow::Result<usize> {
    let tests: usize = parse(file)?
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Mod(module) if is_test_module(module) => Some(length(module)),
            _ => None,
        })
        .sum();
    Ok(file.content.lines().count() - tests)
}

fn is_test_module(module: &syn::ItemMod) -> bool {
    module.content.is_some()
        && module.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "test")
        })
}

fn length(item: &impl Spanned) -> usize {
    let span = item.span();
    span.end().line + 1 - span.start().line
}

/// Exceptions to a length: place → most lines.
struct Allowed {
    lines: BTreeMap<String, usize>,
    used: Vec<String>,
}

impl Allowed {
    fn parse(text: &str) -> anyhow::Result<Allowed> {
        let mut lines = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let (place, most) = line.rsplit_once(' ').with_context(|| format!("allowed.txt: {line:?}"))?;
            lines.insert(place.to_owned(), most.parse().with_context(|| format!("allowed.txt: {line:?}"))?);
        }
        Ok(Allowed { lines, used: Vec::new() })
    }

    fn judge(&mut self, place: &str, lines: usize, most: usize, advice: &str) -> Option<String> {
        if lines <= most {
            return None;
        }
        let allowed = self.lines.get(place).copied();
        self.used.push(place.to_owned());
        match allowed {
            Some(allowed) if lines > allowed => Some(format!("{place}: has grown to {lines} lines, {advice}")),
            Some(allowed) if lines + SLACK < allowed => {
                Some(format!("{place}: has only {lines} lines now, write that into xtask/src/tidy/allowed.txt"))
            }
            Some(_) => None,
            None => Some(format!("{place}: {lines} lines, {advice} (at most {most})")),
        }
    }

    fn unused(&self) -> Findings {
        let unused = self.lines.keys().filter(|place| !self.used.contains(place));
        unused.map(|place| format!("xtask/src/tidy/allowed.txt: {place} needs no exception any more")).collect()
    }
}

#[derive(Default)]
struct Functions {
    found: Vec<(String, usize)>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.span().start().line;
        self.found.push((signature.ident.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test_module(module) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[derive(Default)]
struct Exceptions {
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for Exceptions {
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let switches_off = attribute.path().is_ident("allow") || attribute.path().is_ident("expect");
        if switches_off && let syn::Meta::List(list) = &attribute.meta {
            let mut words = list.tokens.clone().into_iter().map(|token| token.to_string());
            if !words.any(|word| word == "reason") {
                self.lines.push(attribute.span().start().line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_holds_until_it_is_not_needed() {
        let mut allowed = Allowed::parse("# why\na.rs 700\nb.rs#f 120\n").expect("well-formed");
        assert!(allowed.judge("a.rs", 690, 600, "split").is_none());
        assert!(allowed.judge("a.rs", 701, 600, "split").is_some());
        assert!(allowed.judge("a.rs", 650, 600, "split").is_some_and(|finding| finding.contains("only 650")));
        assert!(allowed.judge("c.rs", 601, 600, "split").is_some());
        assert_eq!(allowed.unused().len(), 1);
    }

    #[test]
    fn lints_are_switched_off_with_a_reason() {
        let lines = |text: &str| {
            let mut found = Exceptions::default();
            found.visit_file(&syn::parse_file(text).expect("Rust"));
            found.lines
        };
        assert_eq!(lines("#[allow(dead_code)] fn f() {}"), [1]);
        assert!(lines("#[expect(dead_code, reason = \"because\")] fn f() {}").is_empty());
    }

    #[test]
    fn functions_are_measured_without_tests() {
        let text = "fn a() {\n\n}\n#[cfg(test)]\nmod tests {\nfn b() {}\n}\nimpl X { fn c() {} }\n";
        let mut functions = Functions::default();
        functions.visit_file(&syn::parse_file(text).expect("Rust"));
        assert_eq!(functions.found, [("a".to_owned(), 3), ("c".to_owned(), 1)]);
        let file = Text { path: "x.rs".to_owned(), content: text.to_owned() };
        assert_eq!(lines_without_tests(&file).expect("Rust"), 4);
    }
}
