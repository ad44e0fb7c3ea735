//! From what a user points at (a file, a directory, stdin) to the code that is deployed: which file, which
//! runtime, which name.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use lyra_types::function::limit;
use lyra_types::layout::{self, ENTRY_STEMS, Layout, Unclear};
use lyra_types::{Code, Error, FunctionName, Runtime};

use crate::failure::{Failure, Result};

/// Endings of JavaScript files.
const JS: [&str; 2] = ["js", "mjs"];

/// Runtimes that take a whole directory.
const OF_DIRECTORIES: [Runtime; 4] = [Runtime::Python, Runtime::Nodejs, Runtime::Native, Runtime::Http];

/// Code to deploy, before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// A directory that is a package of that runtime.
    Directory(PathBuf, Runtime),
}

/// Code to deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// JavaScript.
    Text(String),
    /// A WebAssembly file.
    Wasm(Vec<u8>),
    /// A zip archive.
    Zip(Vec<u8>),
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{} can't be read: {error}", path.display()))
}

/// The start of a file that is text, as long as source may be.
fn text_of(from: impl Read) -> Option<String> {
    String::from_utf8(read_some(from, limit::MAX_SOURCE).ok()?).ok()
}

/// For which runtime the code in an archive is written.
fn runtime_of_archive(path: &Path) -> Result<Runtime> {
    let refused = |why: &str| Failure::usage(format!("{} is not a zip archive: {why}", path.display()));
    let file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| refused(&error.to_string()))?;
    let names: Vec<String> = archive.file_names().flatten().map(Into::into).collect();
    let layout = layout::of_archive(&names, |name| text_of(archive.by_name(name).ok()?));
    layout.map(|layout| layout.runtime()).map_err(|why| {
        Failure::usage(format!("{} holds {why}", path.display()))
            .hint("--runtime says what it is: js, wasm, python, nodejs, native or http")
    })
}

impl Source {
    /// Finds the code at `path`: `-`, a file, or a directory that is a package or holds one clear candidate.
    ///
    /// # Errors
    /// When there is none, or no telling which of several.
    pub fn find(path: &Path, asked: Option<Runtime>) -> Result<Source> {
        if path.as_os_str() == "-" {
            return Ok(Source::Stdin);
        }
        let kind = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !kind.is_dir() {
            return Ok(Source::File(path.to_owned()));
        }
        if let Some(runtime) = asked.filter(|runtime| OF_DIRECTORIES.contains(runtime)) {
            return Ok(Source::Directory(path.to_owned(), runtime));
        }
        let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
        let is_meant = |name: &String| match asked {
            Some(Runtime::Wasm) => name.ends_with(".wasm"),
            Some(_) => JS.contains(&extension(Path::new(name))),
            None => true,
        };
        let names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file())
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .filter(is_meant)
            .collect();
        let read = |name: &str| text_of(fs::File::open(path.join(name)).ok()?).filter(|_| asked.is_none());
        let holds = |why: &Unclear| Failure::usage(format!("{} holds {why}", path.display()));
        match layout::of(&names, read) {
            Ok(Layout::File(_, name)) => Ok(Source::File(path.join(name))),
            Ok(Layout::Package(runtime, _)) => Ok(Source::Directory(path.to_owned(), runtime)),
            Err(why @ Unclear::Files(_)) => Err(holds(&why).hint("name the file that is meant")),
            Err(why @ Unclear::Nothing) => {
                Err(holds(&why).hint("--runtime python, nodejs, native or http takes the whole directory"))
            }
            Err(why @ Unclear::Runtimes(_)) => Err(holds(&why).hint("--runtime says which")),
        }
    }

    /// What to tell about a choice that nobody made, where another one may have been expected: a `.js` file by itself is for `js`.
    pub fn chosen(&self, asked: Option<Runtime>) -> Option<String> {
        match self {
            Source::Directory(path, Runtime::Nodejs) if asked.is_none() => Some(format!(
                "{} is a package of Node.js and deployed whole, for nodejs; --runtime js takes one file of it",
                path.display()
            )),
            _ => None,
        }
    }

    /// The name to show in messages.
    pub fn shown(&self) -> String {
        match self {
            Source::Stdin => "<stdin>".to_owned(),
            Source::File(path) | Source::Directory(path, _) => path.display().to_string(),
        }
    }

    /// The runtime: the one asked for, or the one that the file's ending stands for.
    ///
    /// # Errors
    /// When neither says.
    pub fn runtime(&self, asked: Option<Runtime>) -> Result<Runtime> {
        if let Some(runtime) = asked {
            return Ok(runtime);
        }
        match self {
            Source::Stdin => Err(Failure::usage("code from stdin needs --runtime: js, python, …")),
            Source::Directory(_, runtime) => Ok(*runtime),
            Source::File(path) if JS.contains(&extension(path)) => Ok(Runtime::Js),
            Source::File(path) if extension(path) == "wasm" => Ok(Runtime::Wasm),
            Source::File(path) if extension(path) == "py" => Ok(Runtime::Python),
            Source::File(path) if extension(path) == "zip" => runtime_of_archive(path),
            Source::File(path) => Err(Failure::usage(format!(
                "{} does not say what it is written for: it ends in none of .js, .mjs, .wasm, .py, .zip",
                path.display()
            ))
            .hint("--runtime says it: js, wasm, python, nodejs, native or http")),
        }
    }

    /// The function's name from the file's or directory's, and what it was made from if it had to be changed.
    ///
    /// # Errors
    /// When no name can be made of it.
    pub fn name(&self) -> Result<(FunctionName, Option<String>)> {
        let (mut raw, path) = match self {
            Source::Stdin => return Err(Failure::usage("code from stdin needs --name")),
            Source::File(path) => (stem(path).to_owned(), path),
            Source::Directory(path, _) => {
                let whole = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
                (whole.file_name().unwrap_or_default().to_string_lossy().into_owned(), path)
            }
        };
        if matches!(self, Source::File(_))
            && (ENTRY_STEMS.contains(&&*raw) || stem(path) == "bootstrap")
            && let Ok(whole) = fs::canonicalize(path)
            && let Some(parent) = whole.parent().and_then(Path::file_name)
        {
            raw = parent.to_string_lossy().into_owned();
        }
        let name = FunctionName::new(&valid_name(&raw)).map_err(|_| {
            Failure::usage(format!("no function name can be made of \"{raw}\"")).hint("--name gives it one")
        })?;
        let changed = (name.as_str() != raw).then_some(raw);
        Ok((name, changed))
    }

    /// Reads the code.
    ///
    /// # Errors
    /// When it can't be read, is too large, or is no text where text is meant.
    pub fn load(&self, runtime: Runtime) -> Result<Loaded> {
        let most = match runtime {
            Runtime::Js | Runtime::Simulated => limit::MAX_SOURCE,
            Runtime::Python | Runtime::Nodejs | Runtime::Native | Runtime::Http => limit::MAX_PACKAGE,
            Runtime::Wasm => limit::MAX_WASM,
        };
        let bytes = match self {
            Source::Directory(path, _) => return crate::directory::pack(path).map(Loaded::Zip),
            Source::Stdin => read_some(std::io::stdin().lock(), most),
            Source::File(path) => fs::File::open(path).and_then(|file| read_some(file, most)),
        };
        let bytes = bytes.map_err(|error| Failure::usage(format!("{} can't be read: {error}", self.shown())))?;
        if bytes.len() > most {
            let detail = format!("{} is larger than {} MiB, the most for {runtime}", self.shown(), most >> 20);
            return Err(Failure::from(Error::new(Code::TooLarge, detail)));
        }
        if matches!(self, Source::File(path) if extension(path) == "zip") {
            return Ok(Loaded::Zip(bytes));
        }
        match runtime {
            Runtime::Wasm => Ok(Loaded::Wasm(bytes)),
            Runtime::Native | Runtime::Http => Ok(Loaded::Zip(bytes)),
            Runtime::Js | Runtime::Python | Runtime::Nodejs | Runtime::Simulated => {
                String::from_utf8(bytes).map(Loaded::Text).map_err(|error| {
                    let at = error.utf8_error().valid_up_to();
                    Failure::usage(format!("{} is not UTF-8 text (byte {at} is not)", self.shown()))
                })
            }
        }
    }
}

/// Reads no more than one byte above the limit.
fn read_some(from: impl Read, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `raw` as a DNS label: lower case, `-` for what may not be in one.
fn valid_name(raw: &str) -> String {
    let mut name = String::new();
    for c in raw.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(lyra_types::name::MAX_LEN);
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for file in files {
            fs::write(dir.path().join(file), "x").expect("written");
        }
        dir
    }

    #[test]
    fn a_directory_with_one_clear_candidate_is_enough() {
        for (files, found) in [
            (&["index.js", "helper.js", "README.md"][..], "index.js"),
            (&["hello.wasm", "notes.txt"], "hello.wasm"),
            (&["only.mjs"], "only.mjs"),
            (&["handler.js", "a.wasm"], "handler.js"),
        ] {
            let dir = directory(files);
            assert_eq!(Source::find(dir.path(), None).expect("found"), Source::File(dir.path().join(found)));
        }
    }

    #[test]
    fn a_directory_is_a_package_where_that_is_asked_for_or_clear() {
        for (files, asked, runtime) in [
            (&["main.py", "helper.py"][..], None, Runtime::Python),
            (&["bootstrap"], None, Runtime::Native),
            (&["bootstrap"], Some(Runtime::Http), Runtime::Http),
            (&["index.js"], Some(Runtime::Nodejs), Runtime::Nodejs),
        ] {
            let dir = directory(files);
            let found = Source::find(dir.path(), asked).expect("found");
            assert_eq!(found, Source::Directory(dir.path().to_owned(), runtime));
            assert_eq!(found.runtime(asked).ok(), Some(runtime));
            assert!(matches!(found.load(runtime), Ok(Loaded::Zip(_))));
        }
    }

    #[test]
    fn an_ambiguous_or_empty_directory_is_explained() {
        for (files, why) in [
            (&["a.js", "b.js"][..], "a.js, b.js"),
            (&["index.js", "main.js"], "index.js, main.js"),
            (&["notes.txt"], "no .js"),
        ] {
            let failure = Source::find(directory(files).path(), None).expect_err(why);
            assert!(failure.error().detail.contains(why), "{:?}", failure.error().detail);
            assert_eq!(failure.exit_code(), 2);
        }
        assert_eq!(Source::find(Path::new("/no/such"), None).expect_err("missing").exit_code(), 2);
    }

    #[test]
    fn names_come_from_the_file_or_for_entry_files_from_the_directory() {
        let name = |path: &Path| Source::File(path.to_owned()).name().map(|(name, _)| name.to_string());
        assert_eq!(name(Path::new("dir/Order_Total.v2.js")).ok().as_deref(), Some("order-total-v2"));
        assert!(name(Path::new("dir/___.js")).is_err());
        let dir = directory(&["index.js"]);
        let inner = dir.path().join("my-fn");
        fs::create_dir(&inner).expect("made");
        fs::write(inner.join("index.js"), "x").expect("written");
        assert_eq!(name(&inner.join("index.js")).ok().as_deref(), Some("my-fn"));
    }

    #[test]
    fn every_made_name_is_valid() {
        for raw in ["A B", "--x--", "ÄÖ x", &"y".repeat(80), &format!("{}-z", "y".repeat(62)), "9"] {
            assert!(FunctionName::new(&valid_name(raw)).is_ok(), "{raw} -> {}", valid_name(raw));
        }
    }

    #[test]
    fn the_runtime_comes_from_the_ending_or_is_asked_for() {
        let of = |path: &str| Source::File(path.into()).runtime(None);
        assert_eq!((of("a.mjs").ok(), of("a.wasm").ok()), (Some(Runtime::Js), Some(Runtime::Wasm)));
        assert_eq!(of("a.py").ok(), Some(Runtime::Python));
        assert_eq!(of("a.rb").expect_err("unknown").exit_code(), 2);
        assert_eq!(Source::Stdin.runtime(Some(Runtime::Js)).ok(), Some(Runtime::Js));
        assert!(Source::Stdin.runtime(None).is_err());
    }

    #[test]
    fn text_that_is_no_text_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.js");
        fs::write(&path, b"ok\xff").expect("written");
        let failure = Source::File(path).load(Runtime::Js).expect_err("not text");
        assert!(failure.error().detail.contains("byte 2"), "{:?}", failure.error().detail);
    }
}
