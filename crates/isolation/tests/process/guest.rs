//! The program that tests of native code run: `guests/native/main.rs`, built when it is first needed.

use std::path::Path;
use std::process::Command;

/// The program's bytes. Built once for a source; tests that come together may each build it, the last one's stays.
pub fn native() -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/native/main.rs");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native-guest");
    let made = |path: &Path| path.metadata().and_then(|about| about.modified()).ok();
    if made(&program).is_none_or(|built| made(&source).is_some_and(|written| written >= built)) {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let new = place.path().join("bootstrap");
        // The compiler that stands beside cargo is the one that everything else is built with.
        let compiler = Path::new(env!("CARGO")).with_file_name("rustc");
        let built = Command::new(compiler)
            .args(["-O", "--edition", "2024", "-o"])
            .arg(&new)
            .arg(&source)
            .output()
            .expect("rustc starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::rename(&new, &program).expect("moved");
    }
    std::fs::read(&program).expect("was built")
}
