//! The one code file in a zip archive.
//!
//! What must hold: no more is unpacked than the largest code allowed, whatever the archive claims.

use std::io::{Cursor, Read};

use bytes::Bytes;
use lyra_types::Runtime;
use lyra_types::function::limit;
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

/// The runtime that the archive's code is written for: the one whose files are in it.
pub(super) fn runtime_of(archive: &[u8]) -> Result<Runtime, String> {
    let archive = open(archive)?;
    let has = |runtime| !code_files(&archive, runtime).is_empty();
    match (has(Runtime::Js), has(Runtime::Wasm)) {
        (true, false) => Ok(Runtime::Js),
        (false, true) => Ok(Runtime::Wasm),
        (true, true) => Err("the archive holds both .js and .wasm files: deploy with a runtime".to_owned()),
        (false, false) => Err("the archive holds no .js, .mjs or .wasm file".to_owned()),
    }
}

/// The archive's code file. Files of other kinds are left aside.
pub(super) fn code_file(archive: &[u8], runtime: Runtime) -> Result<Bytes, String> {
    let mut archive = open(archive)?;
    let names = code_files(&archive, runtime);
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
        assert_eq!(runtime_of(&archive), Ok(Runtime::Js));
        assert!(code_file(&archive, Runtime::Wasm).unwrap_err().contains("no .wasm file"));
        assert_eq!(runtime_of(&zip(&[("a.wasm", b"")])), Ok(Runtime::Wasm));
    }

    #[test]
    fn refuses_what_is_not_one_file() {
        let two = zip(&[("a.js", b"1"), ("b.js", b"2")]);
        assert!(code_file(&two, Runtime::Js).unwrap_err().contains("more than one"));
        assert!(runtime_of(&zip(&[("a.js", b""), ("b.wasm", b"")])).unwrap_err().contains("both"));
        assert!(runtime_of(&zip(&[])).is_err());
        assert!(code_file(b"PK nonsense", Runtime::Js).unwrap_err().contains("not a zip archive"));
        assert!(code_file(b"", Runtime::Js).is_err());
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
