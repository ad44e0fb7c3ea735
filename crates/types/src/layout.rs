//! What the files of a directory or an archive say about the code in them: for which runtime it is written, and whether it is one file
//! or a package.
//!
//! `lyra deploy` and the HTTP interface go by this where nobody names a runtime. Only files at the top count. What may be meant in two
//! ways is left to whoever deploys. Whether the code is any good is for the worker to say.

use crate::Runtime;

/// Stems that say "the function is here" and name nothing themselves.
pub const ENTRY_STEMS: [&str; 3] = ["index", "main", "handler"];

/// The entry of a Python package.
const MAIN_PY: &str = "main.py";
/// The program of a custom runtime.
const BOOTSTRAP: &str = "bootstrap";
/// What a package of Node.js says of itself.
const PACKAGE_JSON: &str = "package.json";

/// What the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One of them is the function; the others are left aside.
    File(Runtime, String),
    /// All of them together, and the file that says so.
    Package(Runtime, String),
}

impl Layout {
    /// For which runtime the code is written.
    pub fn runtime(&self) -> Runtime {
        match self {
            Layout::File(runtime, _) | Layout::Package(runtime, _) => *runtime,
        }
    }

    /// By what it is known.
    pub fn sign(&self) -> &str {
        match self {
            Layout::File(_, sign) | Layout::Package(_, sign) => sign,
        }
    }
}

/// Why files don't say what they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// None of them is known.
    #[error("no .js, .mjs or .wasm file, no package.json, no main.py and no bootstrap")]
    Nothing,
    /// Several of them may be the function.
    #[error("several functions: {}", .0.join(", "))]
    Files(Vec<String>),
    /// They may be written for several runtimes.
    #[error("code that may be for {}", .0.iter().map(|of| format!("{} ({})", of.runtime(), of.sign())).collect::<Vec<_>>().join(" or "))]
    Runtimes(Vec<Layout>),
}

/// What files of these names are. `read` gives the text of one of them, where it can be had.
///
/// # Errors
/// Where they don't say it.
pub fn of(names: &[String], mut read: impl FnMut(&str) -> Option<String>) -> Result<Layout, Unclear> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.contains('/')).collect();
    names.sort_unstable();
    let ending = |of: &'static [&'static str]| {
        let is = move |name: &&str| name.rsplit_once('.').is_some_and(|(_, ending)| of.contains(&ending));
        names.iter().copied().filter(is).collect::<Vec<_>>()
    };
    let is_entry = |name: &&str| name.rsplit_once('.').is_some_and(|(stem, _)| ENTRY_STEMS.contains(&stem));
    let (scripts, wasm, python) = (ending(&["js", "mjs", "cjs"]), ending(&["wasm"]), ending(&["py"]));
    let files = [&scripts[..], &wasm[..]].concat();
    let entries: Vec<&str> = files.iter().copied().filter(is_entry).collect();

    let mut found = Vec::new();
    let package = |runtime, sign: &str| Layout::Package(runtime, sign.to_owned());
    // Of several files the one with such a name is the function.
    let file = match (&entries[..], &files[..]) {
        ([one], _) | ([], [one]) => Ok(Some(*one)),
        ([], []) => Ok(None),
        ([], many) | (many, _) => Err(Unclear::Files(many.iter().map(|&name| name.to_owned()).collect())),
    };
    if names.contains(&PACKAGE_JSON) {
        found.push(package(Runtime::Nodejs, PACKAGE_JSON));
    } else if let Some(script) = file.clone().ok().flatten().filter(|name| scripts.contains(name))
        && (script.ends_with(".cjs") || read(script).is_some_and(|text| is_common_js(&text)))
    {
        found.push(package(Runtime::Nodejs, script));
    } else if let Ok(Some(name)) = file {
        let runtime = if name.ends_with(".wasm") { Runtime::Wasm } else { Runtime::Js };
        found.push(Layout::File(runtime, name.to_owned()));
    }
    if names.contains(&MAIN_PY) {
        found.push(package(Runtime::Python, MAIN_PY));
    }
    if names.contains(&BOOTSTRAP) {
        found.push(package(Runtime::Native, BOOTSTRAP));
    }
    match (found.len(), file, &python[..]) {
        (1, _, _) => Ok(found.remove(0)),
        (0, Err(unclear), _) => Err(unclear),
        // Its handler has to be named; the deploy says so.
        (0, Ok(_), [first, ..]) => Ok(Layout::Package(Runtime::Python, (*first).to_owned())),
        (0, Ok(_), []) => Err(Unclear::Nothing),
        _ => Err(Unclear::Runtimes(found)),
    }
}

/// The same for the files of an archive, which may hold a single file in a folder.
///
/// # Errors
/// Where they don't say it.
pub fn of_archive(names: &[String], read: impl FnMut(&str) -> Option<String>) -> Result<Layout, Unclear> {
    // macOS adds a shadow of each file in a folder of this name.
    let names: Vec<String> = names.iter().filter(|name| !name.starts_with("__MACOSX/")).cloned().collect();
    let unclear = match of(&names, read) {
        Err(Unclear::Nothing) => Unclear::Nothing,
        known => return known,
    };
    let ending = |of: &[&str]| {
        let is = |name: &&String| name.rsplit_once('.').is_some_and(|(_, ending)| of.contains(&ending));
        names.iter().find(is).cloned()
    };
    match (ending(&["js", "mjs"]), ending(&["wasm"])) {
        (Some(script), None) => Ok(Layout::File(Runtime::Js, script)),
        (None, Some(wasm)) => Ok(Layout::File(Runtime::Wasm, wasm)),
        (Some(script), Some(wasm)) => Err(Unclear::Files(vec![script, wasm])),
        (None, None) => Err(unclear),
    }
}

/// Whether a script is a module of the kind that Node.js alone loads: it asks for others by `require`, or says what it gives in `module.exports` or
/// `exports`, and is no ECMAScript module.
pub fn is_common_js(text: &str) -> bool {
    let code = without_texts(text);
    let is_module = |line: &str| {
        ["import", "export"].iter().any(|word| {
            let rest = line.trim_start().strip_prefix(word);
            rest.is_some_and(|rest| rest.starts_with([' ', '{', '*', '"', '\'', '\t']))
        })
    };
    if code.lines().any(is_module) {
        return false;
    }
    ["require", "module", "exports"].iter().any(|word| {
        code.match_indices(word).any(|(at, _)| {
            let before = code[..at].trim_end().chars().next_back();
            let own = code[..at].chars().next_back().is_none_or(|c| !is_name(c));
            let after = code[at + word.len()..].trim_start();
            let used = match *word {
                "require" => after.starts_with('('),
                "module" => after.strip_prefix('.').is_some_and(|rest| rest.trim_start().starts_with("exports")),
                _ => after.starts_with('.') || after.starts_with('['),
            };
            own && before != Some('.') && used
        })
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The text of a script without its comments, and with nothing in its strings.
fn without_texts(text: &str) -> String {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            '"' | '\'' | '`' => {
                code.push(c);
                code.push(c);
                string_length(rest, c)
            }
            _ => {
                code.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    code
}

/// How long the string is that `text` begins with. Those in quotes end with their line at the latest.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' if quote != '`' => return at,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(files: &[(&str, &str)]) -> Result<(Runtime, String), String> {
        let names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let read = |wanted: &str| files.iter().find(|(name, _)| *name == wanted).map(|(_, text)| (*text).to_owned());
        of(&names, read).map(|of| (of.runtime(), of.sign().to_owned())).map_err(|why| why.to_string())
    }

    #[test]
    fn files_say_for_what_they_are_written() {
        let common = "const help = require('./helper');\nexports.handler = async () => help()";
        let module = "export default (event) => event";
        for (files, runtime, sign) in [
            (&[("index.js", module), ("helper.js", ""), ("README.md", "")][..], Runtime::Js, "index.js"),
            (&[("only.mjs", module)], Runtime::Js, "only.mjs"),
            (&[("index.js", common), ("helper.js", "")], Runtime::Nodejs, "index.js"),
            (&[("index.cjs", "")], Runtime::Nodejs, "index.cjs"),
            (&[("package.json", "{}"), ("index.js", module), ("a.wasm", "")], Runtime::Nodejs, "package.json"),
            (&[("package.json", "{}"), ("dist/index.js", common)], Runtime::Nodejs, "package.json"),
            (&[("hello.wasm", ""), ("notes.txt", "")], Runtime::Wasm, "hello.wasm"),
            (&[("handler.js", module), ("a.wasm", "")], Runtime::Js, "handler.js"),
            (&[("main.py", ""), ("helper.py", ""), ("static/app.js", "")], Runtime::Python, "main.py"),
            (&[("app.py", ""), ("util.py", "")], Runtime::Python, "app.py"),
            (&[("bootstrap", ""), ("lib.py", "")], Runtime::Native, "bootstrap"),
        ] {
            assert_eq!(look(files), Ok((runtime, sign.to_owned())), "{files:?}");
        }
    }

    #[test]
    fn what_may_be_meant_in_two_ways_is_not_guessed() {
        for (files, says) in [
            (&["main.py", "package.json"][..], "nodejs (package.json) or python (main.py)"),
            (&["bootstrap", "index.js"], "js (index.js) or native (bootstrap)"),
            (&["a.js", "b.js"], "several functions: a.js, b.js"),
            (&["index.js", "main.js"], "several functions: index.js, main.js"),
            (&["notes.txt", "src/index.js"], "no .js"),
            (&[], "no .js"),
        ] {
            let files: Vec<_> = files.iter().map(|name| (*name, "")).collect();
            let said = look(&files).unwrap_err();
            assert!(said.contains(says), "{files:?}: {said}");
        }
    }

    #[test]
    fn an_archive_may_hold_its_file_in_a_folder() {
        let look = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            of_archive(&names, |_| None).map(|of| of.runtime()).map_err(|why| why.to_string())
        };
        assert_eq!(look(&["src/index.mjs", "__MACOSX/._main.py", "README.md"]), Ok(Runtime::Js));
        assert_eq!(look(&["bin/a.wasm"]), Ok(Runtime::Wasm));
        assert_eq!(look(&["main.py", "static/app.js"]), Ok(Runtime::Python));
        assert!(look(&["a/index.js", "b/a.wasm"]).unwrap_err().contains("a/index.js, b/a.wasm"));
        assert!(look(&["__MACOSX/index.js"]).is_err());
    }

    #[test]
    fn common_js_is_told_from_modules_and_functions() {
        for (text, is) in [
            ("const fs = require('fs')", true),
            ("module.exports = { handler }", true),
            ("module . exports.handler = async () => 1", true),
            ("exports.handler = async (event) => event", true),
            ("const f = (a) => a // \"\n;require (\"x\")", true),
            ("async function add(a, b) { return a + b }", false),
            ("// require('x') is not there\n(e) => e", false),
            ("/* module.exports = 1 */ (e) => 'require(1)' + `exports.x`", false),
            ("(e) => e.require('x') + e.module.exports + my_require(1) + e . exports.x", false),
            ("import { createRequire } from 'node:module';\nconst require = createRequire(1);\nrequire('x')", false),
            ("export default () => require('x')", false),
            ("(e) => 'it\\'s require(' + \"\\\\\"", false),
            ("", false),
        ] {
            assert_eq!(is_common_js(text), is, "{text}");
        }
    }
}
