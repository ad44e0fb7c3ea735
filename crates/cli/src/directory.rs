//! A directory as a package: a zip archive that is the same, byte for byte, whenever the files are.
//!
//! What must hold: the same files make the same version's code, whoever packs them and when; executables stay
//! executable; links that lead inside stay links; what tools leave behind is not packed.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lyra_types::function::limit;
use lyra_types::{Code, Error};
use zip::DateTime;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::failure::{Failure, Result};

/// Files and directories that are never part of a function.
const LEFT_OUT: [&str; 6] = [".git", ".hg", ".svn", "__pycache__", ".DS_Store", ".venv"];

/// Packs a directory.
///
/// # Errors
/// When it can't be read, holds no file, or is larger than a package may be.
pub fn pack(root: &Path) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    list(root, Path::new(""), &mut files)?;
    if files.is_empty() {
        return Err(Failure::usage(format!("{} holds no files", root.display())));
    }
    files.sort();
    let mut left = limit::MAX_UNPACKED;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for file in &files {
        let whole = root.join(file);
        add(&mut archive, &whole, &file.to_string_lossy(), &mut left)
            .map_err(|error| Failure::usage(format!("{} can't be packed: {error}", whole.display())))?;
        if left == 0 {
            let most = limit::MAX_UNPACKED >> 20;
            return Err(too_large(format!("{} holds more than {most} MiB, the most for a package", root.display())));
        }
    }
    let packed = archive.finish().map_err(|error| Failure::internal(format!("no archive can be made: {error}")))?;
    let packed = packed.into_inner();
    if packed.len() > limit::MAX_PACKAGE {
        let most = limit::MAX_PACKAGE >> 20;
        return Err(too_large(format!(
            "{} is larger than {most} MiB when packed, the most for a package",
            root.display()
        )));
    }
    Ok(packed)
}

fn too_large(detail: String) -> Failure {
    Failure::from(Error::new(Code::TooLarge, detail))
}

fn list(root: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let directory = root.join(below);
    let unreadable = |error: std::io::Error| Failure::usage(format!("{} can't be read: {error}", directory.display()));
    for entry in fs::read_dir(&directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let left_out = name.to_str().is_some_and(|name| LEFT_OUT.contains(&name) || name.ends_with(".pyc"));
        if left_out {
            continue;
        }
        let path = below.join(&name);
        if entry.file_type().map_err(unreadable)?.is_dir() {
            list(root, &path, files)?;
        } else {
            files.push(path);
        }
        if files.len() > limit::MAX_PACKAGE_FILES {
            let most = limit::MAX_PACKAGE_FILES;
            return Err(too_large(format!("{} holds more than {most} files, the most for a package", root.display())));
        }
    }
    Ok(())
}

/// Adds one file or link. `left` becomes 0 when it is too large.
fn add(archive: &mut ZipWriter<Cursor<Vec<u8>>>, path: &Path, name: &str, left: &mut u64) -> std::io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let options = SimpleFileOptions::default().last_modified_time(DateTime::default());
    if found.is_symlink() {
        let target = fs::read_link(path)?;
        return archive.add_symlink(name, target.to_string_lossy(), options).map_err(std::io::Error::other);
    }
    if !found.is_file() {
        return Err(std::io::Error::other("it is neither a file nor a link"));
    }
    let mode = if found.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
    archive.start_file(name, options.unix_permissions(mode)).map_err(std::io::Error::other)?;
    let mut content = Vec::new();
    fs::File::open(path)?.take(left.saturating_add(1)).read_to_end(&mut content)?;
    *left = left.saturating_sub(content.len() as u64);
    archive.write_all(&content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, content) in entries {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }
        dir
    }

    #[test]
    fn the_same_files_make_the_same_archive_and_what_tools_leave_is_left_out() {
        let one = files(&[("main.py", "1"), ("a/b.txt", "2"), ("z", "3")]);
        let two =
            files(&[("z", "3"), ("a/b.txt", "2"), ("main.py", "1"), (".git/HEAD", "x"), ("__pycache__/m.pyc", "y")]);
        let archive = pack(one.path()).expect("packs");
        assert_eq!(archive, pack(two.path()).expect("packs"));
        let read = zip::ZipArchive::new(Cursor::new(archive)).expect("an archive");
        let names: Vec<_> = read.file_names().flatten().map(|name| name.to_string()).collect();
        assert_eq!(names, ["a/b.txt", "main.py", "z"]);
    }

    #[test]
    fn executables_and_links_stay_what_they_are() {
        let dir = files(&[("bootstrap", "#!/bin/sh\n"), ("data", "x")]);
        fs::set_permissions(dir.path().join("bootstrap"), fs::Permissions::from_mode(0o700)).expect("changed");
        std::os::unix::fs::symlink("data", dir.path().join("link")).expect("linked");
        let mut read = zip::ZipArchive::new(Cursor::new(pack(dir.path()).expect("packs"))).expect("an archive");
        let mode = read.by_name("bootstrap").expect("there").unix_mode().expect("a mode");
        assert_eq!(mode & 0o777, 0o755);
        assert!(read.by_name("link").expect("there").is_symlink());
    }

    #[test]
    fn an_empty_directory_is_no_package() {
        assert_eq!(pack(files(&[]).path()).expect_err("empty").exit_code(), 2);
    }
}
