//! What is looked at when code is deployed: syntax, the handler's file, the program that is to run.
//!
//! Code is read by its own interpreter, in a sandbox without the function's environment, and is not run. Every refusal
//! is [`Code::InvalidCode`] with the place, where there is one.

use std::path::Path;
use std::time::Duration;

use lyra_types::log::Level;
use lyra_types::{Code, Error, FieldError, InstanceId, Runtime};
use parking_lot::Mutex;
use serde::Deserialize;

use super::Shared;
use super::instance::Instance;
use super::interpreter::{Interpreter, Language};
use super::package::{self, BOOTSTRAP, Entry, Unpacked, invalid, is_executable};
use super::plan::{Ground, SUPPORT, TASK_ROOT, base_env};
use crate::{ImageKey, LogSink};

/// Longest time that an interpreter may take to read a file.
const READING: Duration = Duration::from_secs(30);

/// Most of what an interpreter says that is kept, in bytes.
const ANSWER: usize = 64 << 10;

/// Finds out how a package is run, and whether it can be.
pub(super) async fn entry(shared: &Shared, key: &ImageKey, unpacked: &Unpacked) -> Result<Entry, Error> {
    let root = unpacked.root();
    match key.runtime {
        Runtime::Python | Runtime::Nodejs => {
            // A package may bring its own runtime, as it may on other platforms with this interface.
            if runs(&root, Path::new(BOOTSTRAP)) {
                return Ok(Entry::Bootstrap);
            }
            handler(shared, key, unpacked).await
        }
        Runtime::Native => {
            let found = root.join(BOOTSTRAP).symlink_metadata().is_ok();
            match (found, runs(&root, Path::new(BOOTSTRAP))) {
                (true, true) => Ok(Entry::Bootstrap),
                (true, false) => Err(invalid(
                    "the package's bootstrap is neither an ELF program nor a script whose first line starts with #!",
                )),
                (false, _) => Err(invalid("the package holds no file named bootstrap at its top")),
            }
        }
        Runtime::Http => server(&root),
        other => Err(Error::internal(format!("code for {other} was given to the process back end"))),
    }
}

/// Whether a file of a package is there, executable, and of a kind that the kernel runs.
fn runs(root: &Path, name: &Path) -> bool {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    let Ok(path) = root.join(name).canonicalize() else { return false };
    let inside = root.canonicalize().is_ok_and(|root| path.starts_with(root));
    let mut start = Vec::new();
    let read = || {
        let file = std::fs::File::open(&path)?;
        let mode = file.metadata()?.permissions().mode();
        file.take(4).read_to_end(&mut start)?;
        Ok::<_, std::io::Error>(mode)
    };
    inside && path.is_file() && { read }().is_ok_and(|mode| mode & 0o111 != 0) && is_executable(&start)
}

/// The program of an `http` package: `bootstrap`, or the one executable at its top.
fn server(root: &Path) -> Result<Entry, Error> {
    if runs(root, Path::new(BOOTSTRAP)) {
        return Ok(Entry::Server { program: BOOTSTRAP.to_owned() });
    }
    let unreadable = |error: std::io::Error| Error::internal(format!("the package can't be read: {error}"));
    let mut programs = Vec::new();
    for entry in std::fs::read_dir(root).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if runs(root, Path::new(&name)) {
            programs.extend(name.into_string());
        }
    }
    programs.sort();
    match programs.as_slice() {
        [program] => Ok(Entry::Server { program: program.clone() }),
        [] => Err(invalid(
            "the package holds no executable file at its top, and none named bootstrap: an ELF program, or a script whose first line starts with #!",
        )),
        [one, other, ..] => Err(invalid(format!(
            "the package holds several executable files at its top ({one} and {other}): name the one that serves bootstrap"
        ))),
    }
}

/// The file and function that a handler's name stands for.
fn parts(key: &ImageKey) -> Result<(&str, &str), Error> {
    let usual = if key.runtime == Runtime::Python { "main.handler" } else { "index.handler" };
    let name = key.handler.as_deref().unwrap_or(usual);
    match name.rsplit_once('.') {
        Some((file, function)) if !file.is_empty() && !function.is_empty() => Ok((file, function)),
        _ => Err(Error::field(
            Code::InvalidCode,
            "handler",
            format!("\"{}\" is not of the form file.function, as {usual} is", name.escape_debug()),
        )),
    }
}

async fn handler(shared: &Shared, key: &ImageKey, unpacked: &Unpacked) -> Result<Entry, Error> {
    let (stem, function) = parts(key)?;
    let root = unpacked.root();
    let candidates: Vec<String> = match key.runtime {
        // Dots, as Python writes packages, or slashes.
        Runtime::Python => {
            let path = stem.replace('.', "/");
            vec![format!("{path}.py"), format!("{path}/__init__.py")]
        }
        _ => ["mjs", "js", "cjs"].map(|ending| format!("{stem}.{ending}")).to_vec(),
    };
    let Some(mut file) = candidates.iter().find(|file| root.join(file).is_file()).cloned() else {
        let files = candidates.join(" or ");
        return Err(Error::field(
            Code::InvalidCode,
            "handler",
            format!("the package has no file {files}, which the handler {stem}.{function} is to be in"),
        ));
    };
    if key.runtime == Runtime::Python {
        check_python(shared, &root, &file, function).await?;
    } else if check_node(shared, &root, &file).await? == Syntax::Module
        && let Some(stem) = file.strip_suffix(".js")
        && is_alone(&root)
    {
        // One file of source text has no package.json that says what it is; its name does.
        let name = format!("{stem}.mjs");
        unpacked.rename(&file, &name).map_err(|error| Error::internal(error.to_string()))?;
        file = name;
    }
    if let Some(package) = file.strip_suffix("/__init__.py") {
        file = format!("{package}.py");
    }
    Ok(Entry::Handler { file, function: function.to_owned() })
}

fn is_alone(root: &Path) -> bool {
    std::fs::read_dir(root).is_ok_and(|entries| entries.count() == 1)
}

#[derive(Deserialize)]
struct PythonAnswer {
    line: Option<u32>,
    column: Option<u32>,
    message: Option<String>,
    missing: Option<String>,
}

async fn check_python(shared: &Shared, root: &Path, file: &str, function: &str) -> Result<(), Error> {
    let interpreter = shared.cells(Language::Python).await?.interpreter();
    let program = vec![
        interpreter.program.display().to_string(),
        "-ISB".to_owned(),
        format!("{SUPPORT}/check.py"),
        format!("{TASK_ROOT}/{file}"),
        function.to_owned(),
    ];
    let said = ask(shared, interpreter, root, program).await?;
    let Ok(answer) = serde_json::from_str::<PythonAnswer>(said.out.trim()) else {
        return Err(unanswered("python3", &said));
    };
    if let Some(message) = answer.message {
        return Err(misplaced(file, &message, answer.line, answer.column));
    }
    match answer.missing {
        Some(name) => Err(Error::field(
            Code::InvalidCode,
            "handler",
            format!("{file} defines nothing named {name}, which the handler is to be"),
        )),
        None => Ok(()),
    }
}

/// What a JavaScript file is.
#[derive(Debug, PartialEq, Eq)]
enum Syntax {
    Script,
    Module,
}

/// What only modules hold, as node says it of a script.
const MODULE_SIGNS: [&str; 4] =
    ["Cannot use import statement", "Unexpected token 'export'", "import.meta", "await is only valid"];

async fn check_node(shared: &Shared, root: &Path, file: &str) -> Result<Syntax, Error> {
    let interpreter = shared.cells(Language::Node).await?.interpreter();
    let node = interpreter.program.display().to_string();
    let check = |path: String| vec![node.clone(), "--no-warnings".to_owned(), "--check".to_owned(), path];
    let is_module = file.ends_with(".mjs");
    let said = ask(shared, interpreter, root, check(format!("{TASK_ROOT}/{file}"))).await?;
    let kind = if is_module { Syntax::Module } else { Syntax::Script };
    if said.status == Some(0) && (is_module || !looks_like_module(root, file)) {
        return Ok(kind);
    }
    if !is_module && (said.status == Some(0) || MODULE_SIGNS.iter().any(|sign| said.err.contains(sign))) {
        // As a module; node goes by the name, so the file is shown to it under another one.
        let program = vec![node.clone(), format!("{SUPPORT}/check.mjs"), format!("{TASK_ROOT}/{file}")];
        let said = ask(shared, interpreter, root, program).await?;
        return if said.status == Some(0) { Ok(Syntax::Module) } else { Err(of_node(file, &said)) };
    }
    Err(of_node(file, &said))
}

/// Node from version 22 on takes module syntax in any file, but finds out only when it runs it.
fn looks_like_module(root: &Path, file: &str) -> bool {
    let text = std::fs::read(root.join(file)).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().any(|line| {
        let line = line.trim_start();
        line.starts_with("export ") || line.starts_with("export{") || line.starts_with("import ")
    })
}

/// The refusal of what node says about a file: `PATH:LINE`, the line, a caret under the place, and the error.
fn of_node(file: &str, said: &Said) -> Error {
    let mut lines = said.err.lines();
    let place = lines.find_map(|line| line.rsplit_once(&format!("{file}:")).and_then(|(_, n)| n.trim().parse().ok()));
    let caret =
        said.err.lines().find(|line| line.contains('^') && line.chars().all(|c| c == ' ' || c == '\t' || c == '^'));
    let column = caret.and_then(|line| line.find('^')).and_then(|at| u32::try_from(at + 1).ok());
    let message = said.err.lines().find(|line| {
        let name = line.split(':').next().unwrap_or_default();
        name.ends_with("Error") && !name.contains(char::is_whitespace)
    });
    match message {
        Some(message) => misplaced(file, message, place, column),
        None => unanswered("node", said),
    }
}

fn misplaced(file: &str, message: &str, line: Option<u32>, column: Option<u32>) -> Error {
    let place = match (line, column) {
        (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
        (Some(line), None) => format!(" (line {line})"),
        _ => String::new(),
    };
    let field = FieldError { field: "code".to_owned(), reason: format!("{file}: {message}"), line, column };
    Error::new(Code::InvalidCode, format!("{file}: {message}{place}")).with_field(field)
}

fn unanswered(name: &str, said: &Said) -> Error {
    tracing::warn!(status = said.status, err = said.err, "code could not be checked");
    let last = said.err.lines().next_back().unwrap_or("it said nothing").chars().take(200).collect::<String>();
    package::invalid(format!("{name} could not read the code: {last}"))
}

/// What an interpreter answered.
#[derive(Debug, Default)]
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Collects what is said.
#[derive(Default)]
struct Ear(Mutex<Said>);

impl LogSink for Ear {
    fn line(&self, level: Level, message: &str) {
        let mut said = self.0.lock();
        let text = if level == Level::Info { &mut said.out } else { &mut said.err };
        if text.len() + message.len() < ANSWER {
            text.push_str(message);
            text.push('\n');
        }
    }
}

/// Runs a program over the code in a sandbox of its own.
async fn ask(shared: &Shared, interpreter: &Interpreter, root: &Path, program: Vec<String>) -> Result<Said, Error> {
    let ground = Ground { config: &shared.config, support: &shared.support, interpreters: vec![interpreter] };
    let id: InstanceId = shared.ids.instance();
    let plan = ground.plan(id, Some(root), program, base_env());
    let (instance, _) = Instance::spawn(&shared.launcher, plan).await?;
    let ear = std::sync::Arc::new(Ear::default());
    instance.output().begin(&(ear.clone() as std::sync::Arc<dyn LogSink>));
    let exit = tokio::time::timeout(READING, instance.process().wait())
        .await
        .map_err(|_| package::invalid(format!("the code could not be read within {} s", READING.as_secs())))?;
    instance.output().drain();
    if exit.out_of_memory {
        return Err(package::invalid("the code is too large to be read within the memory for it"));
    }
    let mut said = std::mem::take(&mut *ear.0.lock());
    said.status = exit.code;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_node_says_becomes_a_place() {
        let err =
            "/var/task/index.js:3\n  foo(\n      ^\n\nSyntaxError: Unexpected end of input\n    at wrapSafe (x:1)\n";
        let said = Said { status: Some(1), out: String::new(), err: err.to_owned() };
        let error = of_node("index.js", &said);
        assert_eq!(error.code, Code::InvalidCode);
        assert_eq!((error.errors[0].line, error.errors[0].column), (Some(3), Some(7)));
        assert_eq!(error.detail, "index.js: SyntaxError: Unexpected end of input (line 3, column 7)");
    }
}
