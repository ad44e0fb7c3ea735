//! The interpreters of this machine: where python3 and node are, and what of the file system they need.
//!
//! Looked for once, when the back end starts. A machine without one still takes the other runtimes; a deploy that needs
//! the missing one is told what to install.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lyra_types::{Code, Error, Runtime};

use super::launch::Bind;

/// Longest time that an interpreter may take to say where it is.
const ANSWER: Duration = Duration::from_secs(20);

/// Where programs of the system are; what is below `/usr` is in every sandbox.
const SYSTEM: &str = "/usr";

/// A language that Lyra has a bootstrap for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Node,
}

impl Language {
    /// The language of a runtime.
    pub(super) fn of(runtime: Runtime) -> Option<Language> {
        match runtime {
            Runtime::Python => Some(Language::Python),
            Runtime::Nodejs => Some(Language::Node),
            _ => None,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Language::Python => "python3",
            Language::Node => "node",
        }
    }

    /// Arguments that make it print its program's path, its installation's path and its version, a line each.
    fn question(self) -> [&'static str; 2] {
        match self {
            Language::Python => {
                ["-c", "import sys; print(sys.executable, sys.base_prefix, sys.version.split()[0], sep='\\n')"]
            }
            Language::Node => [
                "-p",
                "[process.execPath, require('path').resolve(process.execPath, '../..'), process.versions.node].join('\\n')",
            ],
        }
    }

    fn least(self) -> (u32, u32) {
        match self {
            Language::Python => (3, 9),
            Language::Node => (18, 0),
        }
    }

    fn package(self) -> &'static str {
        match self {
            Language::Python => "python3",
            Language::Node => "nodejs",
        }
    }
}

/// An interpreter.
#[derive(Debug, Clone)]
pub(super) struct Interpreter {
    pub(super) language: Language,
    /// Its program's path, outside and inside of sandboxes.
    pub(super) program: PathBuf,
    /// What it needs beside the system's own directories.
    pub(super) binds: Vec<Bind>,
    /// Its version, `3.11.2` for example.
    pub(super) version: String,
}

/// Finds an interpreter: the one that is configured, else the system's, else the first in `path` (as in `$PATH`).
///
/// # Errors
/// [`Code::InvalidField`] with what to install.
pub(super) async fn find(language: Language, configured: Option<&Path>, path: &str) -> Result<Interpreter, Error> {
    let name = language.program();
    let mut reasons = Vec::new();
    for program in candidates(language, configured, path) {
        match ask(language, &program).await {
            Ok(found) => return Ok(found),
            Err(reason) => reasons.push(format!("{}: {reason}", program.display())),
        }
    }
    if !reasons.is_empty() {
        tracing::warn!(runtime = name, reasons = reasons.join("; "), "no interpreter can be used");
    }
    Err(Error::field(Code::InvalidField, "runtime", missing(language)))
}

/// The programs that may be the interpreter, the preferred one first.
fn candidates(language: Language, configured: Option<&Path>, path: &str) -> Vec<PathBuf> {
    match configured {
        Some(program) => vec![program.to_owned()],
        None => {
            let system = ["/usr/bin", "/usr/local/bin"].into_iter();
            let dirs = system.map(PathBuf::from).chain(std::env::split_paths(path));
            dirs.map(|dir| dir.join(language.program())).filter(|program| program.is_file()).collect()
        }
    }
}

/// Where the interpreter seems to be, without starting it; or what to install.
pub(super) fn look(language: Language, configured: Option<&Path>, path: &str) -> Result<PathBuf, String> {
    let found = candidates(language, configured, path).into_iter().find(|program| program.is_file());
    found.ok_or_else(|| missing(language))
}

fn missing(language: Language) -> String {
    let (name, (major, minor)) = (language.program(), language.least());
    format!(
        "this worker has no {name} {major}.{minor} or newer; install it on the worker's machine (on Debian: apt-get install {}) and start the worker again",
        language.package()
    )
}

async fn ask(language: Language, program: &Path) -> Result<Interpreter, String> {
    let asked = tokio::process::Command::new(program)
        .args(language.question())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(ANSWER, asked).await.map_err(|_| "does not answer".to_owned())?;
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let (Some(found), Some(prefix), Some(version)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(format!("ended with {} and did not say where it is", output.status));
    };
    if !is_at_least(version, language.least()) {
        return Err(format!("version {version} is too old"));
    }
    // A link below /usr may lead out of it.
    let program = std::fs::canonicalize(found).map_err(|error| error.to_string())?;
    let mut binds = Vec::new();
    for path in [Path::new(prefix), &program] {
        if !path.starts_with(SYSTEM) && !binds.iter().any(|bind: &Bind| path.starts_with(&bind.source)) {
            binds.push(Bind::same(path));
        }
    }
    Ok(Interpreter { language, program, binds, version: version.to_owned() })
}

fn is_at_least(version: &str, least: (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_at_least("3.11.2", (3, 9)));
        assert!(is_at_least("18.0.0", (18, 0)));
        assert!(!is_at_least("3.8.20", (3, 9)));
        assert!(!is_at_least("2.7", (3, 9)));
        assert!(!is_at_least("", (3, 9)));
    }

    #[tokio::test]
    async fn a_machine_without_an_interpreter_says_what_to_install() {
        let error = find(Language::Node, Some(Path::new("/no/such/node")), "").await.unwrap_err();
        assert!(error.detail.contains("apt-get install nodejs"), "{error}");
    }
}
