//! Packages: what is kept, what is found again, and what archives can't do.

use lyra_types::function::Digest as CodeDigest;
use proptest::prelude::*;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

fn key(runtime: Runtime) -> ImageKey {
    ImageKey { runtime, digest: CodeDigest("ab".into()), handler: None, memory_mb: 128, result: Default::default() }
}

fn zip(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in files {
        writer.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn linked(links: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(zip(&[])));
    for (name, target) in links {
        writer.add_symlink(*name, *target, SimpleFileOptions::default()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn store() -> (tempfile::TempDir, Packages) {
    let dir = tempfile::tempdir().unwrap();
    let packages = Packages::open(&dir.path().join("packages")).unwrap();
    (dir, packages)
}

fn left(packages: &Packages) -> usize {
    std::fs::read_dir(&packages.dir).unwrap().count()
}

#[test]
fn a_package_that_was_kept_is_found_again_and_others_leave_nothing() {
    let (_dir, packages) = store();
    let key = key(Runtime::Python);
    let archive = zip(&[("main.py", b"x", 0o644), ("bin/tool", b"y", 0o755), ("./a/b/c.txt", b"", 0o600)]);
    drop(packages.unpack(&key, &archive).unwrap());
    assert!(packages.find(&key).unwrap().is_none());
    assert_eq!(left(&packages), 0);

    packages.unpack(&key, &archive).unwrap().keep(&Entry::Bootstrap).unwrap();
    packages.unpack(&key, &archive).unwrap().keep(&Entry::Bootstrap).unwrap();
    assert_eq!(left(&packages), 1);
    let package = Packages::open(&packages.dir).unwrap().find(&key).unwrap().unwrap();
    assert_eq!(package.entry, Entry::Bootstrap);
    let mode = |name: &str| std::fs::metadata(package.root.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("main.py"), mode("bin/tool"), mode("a/b/c.txt")), (0o644, 0o755, 0o644));
    let other = ImageKey { handler: Some("main.f".into()), ..key };
    assert!(packages.find(&other).unwrap().is_none());
}

#[test]
fn one_file_is_a_package_too() {
    let (_dir, packages) = store();
    let name = |runtime, bytes: &[u8]| {
        let unpacked = packages.unpack(&key(runtime), bytes)?;
        let file = std::fs::read_dir(unpacked.root()).unwrap().next().unwrap().unwrap();
        Ok::<_, Error>(file.file_name().into_string().unwrap())
    };
    assert_eq!(name(Runtime::Python, b"def handler(): 1").unwrap(), "main.py");
    assert_eq!(name(Runtime::Nodejs, b"x").unwrap(), "index.js");
    assert_eq!(name(Runtime::Native, b"\x7fELF...").unwrap(), "bootstrap");
    assert_eq!(name(Runtime::Http, b"#!/bin/sh\n").unwrap(), "bootstrap");
    assert!(name(Runtime::Native, b"text").unwrap_err().detail.contains("#!"));
}

#[test]
fn nothing_leads_out_of_a_package() {
    let (dir, packages) = store();
    for name in ["../evil", "/etc/evil", "a/../../evil"] {
        let error = packages.unpack(&key(Runtime::Python), &zip(&[(name, b"x", 0o644)])).unwrap_err();
        assert!(error.detail.contains("leads out"), "{error}");
    }
    for target in ["/etc/passwd", "..", "../../x", "a/../../.."] {
        let error = packages.unpack(&key(Runtime::Python), &linked(&[("link", target)])).unwrap_err();
        assert!(error.detail.contains("leads out"), "{target}: {error}");
    }
    assert!(!dir.path().join("evil").exists() && !dir.path().join("packages/evil").exists());
    let good = packages.unpack(&key(Runtime::Python), &linked(&[("a/link", "../b"), ("c", "./d")])).unwrap();
    assert_eq!(std::fs::read_link(good.root().join("a/link")).unwrap(), Path::new("../b"));
}

#[test]
fn nothing_is_written_through_a_link() {
    let (_dir, packages) = store();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("a", "b", SimpleFileOptions::default()).unwrap();
    writer.start_file("a/x", SimpleFileOptions::default()).unwrap();
    let archive = writer.finish().unwrap().into_inner();
    let error = packages.unpack(&key(Runtime::Python), &archive).unwrap_err();
    assert!(error.detail.contains("more than once"), "{error}");
}

#[test]
fn a_bomb_is_unpacked_no_further_than_the_limit() {
    let (_dir, packages) = store();
    let size = usize::try_from(limit::MAX_UNPACKED).unwrap() + 1;
    let bomb = zip(&[("main.py", &vec![0; size], 0o644)]);
    assert!(bomb.len() < 1 << 20);
    let error = packages.unpack(&key(Runtime::Python), &bomb).unwrap_err();
    assert!(error.detail.contains("larger than 250 MiB"), "{error}");
    assert_eq!(left(&packages), 0);
}

proptest! {
    #[test]
    fn no_bytes_make_unpacking_fail_badly(tail in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
        let (_dir, packages) = store();
        let mut archive = zip(&[("main.py", b"def handler(e, c): return e", 0o644), ("b/c", b"1", 0o755)]);
        archive.truncate(archive.len().saturating_sub(cut).max(4));
        archive.extend(tail);
        let _ = packages.unpack(&key(Runtime::Python), &archive);
        prop_assert_eq!(left(&packages), 0);
    }

    #[test]
    fn every_name_stays_inside_or_is_refused(name in "[a./]{0,12}") {
        if let Ok(path) = inside(&name) {
            prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
        }
    }
}
