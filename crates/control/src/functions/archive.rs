//! The one code file in a zip archive.
//!
//! What must hold: no more is unpacked than the largest code allowed, whatever the archive claims.

use std::io::{Cursor, Read};

use bytes::Bytes;
use lyra_types::function::limit;
use lyra_types::{Code, Error, Runtime, layout};
use zip::ZipArchive;

/// Files that an archive may list.
const MAX_FILES: usize = 10_000;

/// Largest code of a runtime, in bytes.
pub(super) const fn max_code(runtime: Runtime) -> usize {
    match runtime {
        Runtime::Js | Runtime::Simulated => limit::MAX_SOURCE,
        Runtime::Python | Runtime::Nodejs | Runtime::Native | Runtime::Http => limit::MAX_PACKAGE,
        Runtime::Wasm => limit::MAX_WASM,
    }
}

/// What files of a runtime's code are called.
const fn endings(runtime: Runtime) -> &'static [&'static str] {
    match runtime {
        Runtime::Js => &[".js", ".mjs"],
        Runtime::Wasm => &[".wasm"],
        Runtime::Python => &[".py"],
        Runtime::Nodejs => &[".js", ".mjs", ".cjs"],
        Runtime::Native | Runtime::Http | Runtime::Simulated => &[],
    }
}

/// The archive's code files.
fn code_files(archive: &ZipArchive<Cursor<&[u8]>>, runtime: Runtime) -> Vec<String> {
    let is_code = |name: &str| {
        // macOS adds a shadow of each file in a folder of this name.
        !name.starts_with("__MACOSX/") && endings(runtime).iter().any(|ending| name.ends_with(ending))
    };
    archive.file_names().flatten().filter(|name| is_code(name)).map(Into::into).collect()
}

/// The runtime that the archive's code is written for, by what is in it.
pub(super) fn runtime_of(archive: &[u8]) -> Result<Runtime, Error> {
    let refused = |field: &str, reason: String| Error::field(Code::InvalidField, field, reason);
    let mut archive = open(archive).map_err(|reason| refused("body", reason))?;
    let names: Vec<String> = archive.file_names().flatten().map(Into::into).collect();
    let layout = layout::of_archive(&names, |name| {
        let mut text = String::new();
        archive.by_name(name).ok()?.take(limit::MAX_SOURCE as u64).read_to_string(&mut text).ok()?;
        Some(text)
    });
    let unclear = |why| {
        format!(
            "does not follow from the archive, which holds {why}; PUT /v1/functions/{{name}} with \"runtime\" and code.zip says it"
        )
    };
    layout.map(|layout| layout.runtime()).map_err(|why| refused("runtime", unclear(why)))
}

/// The archive's code file. Files of other kinds are left aside.
pub(super) fn code_file(archive: &[u8], runtime: Runtime) -> Result<Bytes, String> {
    let mut archive = open(archive)?;
    let mut names = code_files(&archive, runtime);
    // As in a directory: of several files the one that is called so is the function.
    let is_entry =
        |name: &String| layout::ENTRY_STEMS.iter().any(|stem| name.rsplit_once('.').is_some_and(|(of, _)| of == *stem));
    if names.iter().filter(|name| is_entry(name)).count() == 1 {
        names.retain(is_entry);
    }
    let wanted = endings(runtime).join(" or ");
    let name = match names.as_slice() {
        [name] => name,
        [] => return Err(format!("the archive holds no {wanted} file")),
        [one, other, ..] => {
            let (one, other) = (shown(one), shown(other));
            return Err(format!(
                "the archive holds more than one {wanted} file ({one} and {other}): bundle them into one"
            ));
        }
    };
    let file = archive.by_name(name).map_err(|error| format!("the file {} can't be read: {error}", shown(name)))?;
    let max = max_code(runtime);
    let mut code = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits. The size that the archive
    // states is not trusted.
    file.take(max as u64 + 1)
        .read_to_end(&mut code)
        .map_err(|error| format!("the file {} can't be unpacked: {error}", shown(name)))?;
    if code.len() > max {
        return Err(format!("the file {} is larger than {max} bytes when unpacked", shown(name)));
    }
    Ok(Bytes::from(code))
}

fn open(archive: &[u8]) -> Result<ZipArchive<Cursor<&[u8]>>, String> {
    let archive = ZipArchive::new(Cursor::new(archive)).map_err(|error| format!("is not a zip archive: {error}"))?;
    if archive.len() > MAX_FILES {
        return Err(format!("the archive lists more than {MAX_FILES} files"));
    }
    Ok(archive)
}

fn shown(name: &str) -> String {
    format!("\"{}\"", name.chars().take(100).collect::<String>().escape_debug())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn finds_the_one_code_file() {
        let archive =
            zip(&[("README.md", b"hi"), ("src/index.mjs", b"export default 1"), ("__MACOSX/._index.js", b"")]);
        assert_eq!(code_file(&archive, Runtime::Js).unwrap(), "export default 1");
        assert_eq!(runtime_of(&archive).unwrap(), Runtime::Js);
        assert!(code_file(&archive, Runtime::Wasm).unwrap_err().contains("no .wasm file"));
        assert_eq!(runtime_of(&zip(&[("a.wasm", b"")])).unwrap(), Runtime::Wasm);
    }

    #[test]
    fn refuses_what_is_not_one_file() {
        let two = zip(&[("a.js", b"1"), ("b.js", b"2")]);
        assert!(code_file(&two, Runtime::Js).unwrap_err().contains("more than one"));
        let two = zip(&[("index.js", b"1"), ("helper.js", b"2")]);
        assert_eq!(code_file(&two, Runtime::Js).unwrap(), "1");
        assert!(runtime_of(&zip(&[])).is_err());
        assert!(code_file(b"PK nonsense", Runtime::Js).unwrap_err().contains("not a zip archive"));
        assert!(code_file(b"", Runtime::Js).is_err());
    }

    #[test]
    fn the_runtime_follows_from_what_is_in_the_archive_or_is_asked_for_by_name() {
        let of = |files: &[(&str, &[u8])]| runtime_of(&zip(files)).map_err(|error| error.errors[0].clone());
        assert_eq!(of(&[("main.py", b""), ("lib/a.py", b"")]), Ok(Runtime::Python));
        assert_eq!(of(&[("package.json", b"{}"), ("index.js", b"")]), Ok(Runtime::Nodejs));
        assert_eq!(of(&[("index.js", b"exports.handler = () => 1")]), Ok(Runtime::Nodejs));
        assert_eq!(of(&[("bootstrap", b"#!/bin/sh")]), Ok(Runtime::Native));
        let both = of(&[("a.js", b""), ("b.wasm", b"")]).unwrap_err();
        assert!(both.field == "runtime" && both.reason.contains("a.js, b.wasm"), "{both:?}");
        let both = of(&[("main.py", b""), ("bootstrap", b"")]).unwrap_err();
        assert!(both.reason.contains("python (main.py) or native (bootstrap)"), "{both:?}");
        assert_eq!(runtime_of(b"PK nonsense").unwrap_err().errors[0].field, "body");
    }

    #[test]
    fn a_bomb_is_unpacked_no_further_than_the_limit() {
        let bomb = zip(&[("index.js", &vec![b' '; limit::MAX_SOURCE + 1])]);
        assert!(bomb.len() < 64 << 10);
        assert!(code_file(&bomb, Runtime::Js).unwrap_err().contains("larger than"));
        let fits = zip(&[("index.js", &vec![b' '; limit::MAX_SOURCE])]);
        assert_eq!(code_file(&fits, Runtime::Js).unwrap().len(), limit::MAX_SOURCE);
    }
}
