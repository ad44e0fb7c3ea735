//! Connections by TLS, with certificates on both sides.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lyra_store::objects::{Change, Txn};
use lyra_store::{Access, EtcdObjects, EtcdSettings, TlsFiles, open_jobs, open_objects};
use lyra_testkit::engines::{Etcd, Nats, NatsOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Writes an authority and one certificate that it has signed, good for both sides.
fn make_certificates(dir: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let issuer = Issuer::from_params(&ca, &ca_key);
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn etcd_is_asked_by_tls_and_strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let member = Etcd::start_with_tls(dir.path()).await.unwrap();
    let access = Access { tls_dir: Some(dir.path().to_owned()), ..Access::default() };
    let store = open_objects(&format!("etcds://{}", member.address()), &access).await.unwrap();
    let changes = vec![Change::Put("a".into(), Bytes::from_static(b"1"))];
    store.txn(Txn { checks: Vec::new(), changes }).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");

    let refused = async |dir: &Path| {
        let mut settings = EtcdSettings::new(vec![member.address()]);
        settings.deadline = Duration::from_millis(300);
        settings.tls = Some(TlsFiles::read(dir).unwrap());
        EtcdObjects::connect(settings).await.is_err()
    };
    let stranger = tempfile::tempdir().unwrap();
    make_certificates(stranger.path());
    assert!(refused(stranger.path()).await, "neither side trusts the other");
    let nobody = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("ca.pem"), nobody.path().join("ca.pem")).unwrap();
    assert!(refused(nobody.path()).await, "without a certificate");
}

#[tokio::test]
async fn nats_is_asked_by_tls_with_a_user() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let file = |name: &str| dir.path().join(name);
    let config = format!(
        "tls {{ ca_file: {:?}, cert_file: {:?}, key_file: {:?}, verify: true }}\n\
         authorization {{ user: lyra, password: \"s:e/cret\" }}",
        file("ca.pem"),
        file("cert.pem"),
        file("key.pem")
    );
    let server = Nats::start_with(&NatsOptions { config }).await.unwrap();
    let access = Access { tls_dir: Some(dir.path().to_owned()), ..Access::default() };
    let jobs = open_jobs(&format!("tls://lyra:s%3Ae%2Fcret@{}", server.address()), &access).await.unwrap();
    assert_eq!(jobs.counts().await.unwrap(), lyra_store::jobs::Counts::default());
    let refused = open_jobs(&format!("tls://lyra:wrong@{}", server.address()), &access).await;
    let error = refused.map(|_| ()).unwrap_err().to_string();
    assert!(!error.contains("wrong"), "{error}");
}
