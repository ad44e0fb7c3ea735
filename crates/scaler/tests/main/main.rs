//! The scaler from outside: its turns against a control that is played, and its back ends against programs and servers that are real.
#![expect(clippy::unwrap_used, reason = "a test that meets an error shall fail")]

mod doubles;
mod hook;
mod kubernetes;
mod kumori;
mod local;
mod turns;

use std::time::Duration;

/// Longest that anything is waited for: a machine under load is slow.
const LONG: Duration = Duration::from_secs(60);

/// Waits until it is so.
async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// Writes a program into a directory.
fn program(dir: &std::path::Path, name: &str, text: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
