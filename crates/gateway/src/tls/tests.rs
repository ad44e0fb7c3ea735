//! Files that can't be used, and files that change.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lyra_kit::telemetry;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// Writes a certificate for `localhost` and its key.
fn issue(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    put_key(&dir.join("key.pem"), &key.serialize_pem());
}

fn put_key(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    mode(path, 0o600);
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn opened(cert: PathBuf, key: PathBuf) -> Result<Option<Certificates>> {
    let config = Config { tls_cert: cert, tls_key: key, ..Config::default() };
    Certificates::open(&config, &Clock::system(), &Metrics::new(&telemetry::Metrics::new()))
}

fn pair() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    issue(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    (dir, cert, key)
}

#[test]
fn what_cannot_be_used_is_named_with_what_to_do() {
    let (dir, cert, key) = pair();
    let said = |cert: &Path, key: &Path| {
        let error = opened(cert.to_owned(), key.to_owned()).err().unwrap();
        format!("{} {}", error.errors[0].field, error.errors[0].reason)
    };
    assert!(opened(PathBuf::new(), PathBuf::new()).unwrap().is_none());
    assert!(opened(cert.clone(), key.clone()).unwrap().is_some());
    let none = Path::new("");
    assert!(said(&cert, none).starts_with("gateway.tls_key "), "{}", said(&cert, none));
    assert!(said(none, &key).starts_with("gateway.tls_cert "), "{}", said(none, &key));
    let missing = said(&dir.path().join("none.pem"), &key);
    assert!(missing.contains("none.pem can't be read"), "{missing}");
    assert!(said(&cert, dir.path()).contains("is not a file"));
    assert!(said(&key, &key).contains("holds no certificate"));
    std::fs::write(dir.path().join("empty"), "").unwrap();
    mode(&dir.path().join("empty"), 0o600);
    assert!(said(&cert, &dir.path().join("empty")).contains("holds no private key"));
    for open in [0o640, 0o604, 0o644, 0o660] {
        mode(&key, open);
        let said = said(&cert, &key);
        assert!(said.contains("chmod 600") && said.starts_with("gateway.tls_key "), "{said}");
    }
    mode(&key, 0o400);
    assert!(opened(cert.clone(), key.clone()).is_ok());
    put_key(&dir.path().join("other.pem"), &KeyPair::generate().unwrap().serialize_pem());
    let other = said(&cert, &dir.path().join("other.pem"));
    assert!(other.contains("is not the key of") && other.contains("cert.pem"), "{other}");
}

#[test]
fn new_files_are_taken_and_bad_ones_are_not() {
    let (dir, cert, key) = pair();
    let certificates = opened(cert.clone(), key.clone()).unwrap().unwrap();
    let first = certificates.current();
    certificates.inner.refresh();
    assert!(Arc::ptr_eq(&first, &certificates.current()), "nothing has changed");
    std::fs::write(&cert, "nonsense").unwrap();
    certificates.inner.refresh();
    assert!(Arc::ptr_eq(&first, &certificates.current()), "the former one is used");
    std::fs::remove_file(&key).unwrap();
    certificates.inner.refresh();
    assert!(Arc::ptr_eq(&first, &certificates.current()));
    issue(dir.path());
    certificates.inner.refresh();
    assert!(!Arc::ptr_eq(&first, &certificates.current()), "the new one is used");
}
