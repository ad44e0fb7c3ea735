//! [`S3Blobs`] keeps the promises, with a server that checks signatures.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_store::{Access, Blobs, S3Blobs, S3Keys, S3Settings, Shelf, StoreError, open_blobs};
use lyra_testkit::engines::S3 as Server;
use lyra_types::function::Digest;

use super::Subject;

struct S3 {
    server: Server,
    blobs: Arc<S3Blobs>,
}

fn keys() -> S3Keys {
    S3Keys { access_key: Server::ACCESS_KEY.into(), secret_key: Server::SECRET_KEY.into(), session_token: None }
}

fn settings(server: &Server) -> S3Settings {
    let mut settings = S3Settings::new(Server::BUCKET.into(), keys());
    settings.endpoint = Some(server.url().parse().unwrap());
    settings.virtual_host = false;
    settings
}

#[async_trait]
impl Subject for S3 {
    async fn start() -> S3 {
        let server = Server::start().await.expect("it starts");
        let blobs = Arc::new(S3Blobs::connect(settings(&server)).await.expect("the bucket is there"));
        S3 { server, blobs }
    }

    fn blobs(&self) -> Arc<dyn Blobs> {
        Arc::clone(&self.blobs) as Arc<dyn Blobs>
    }

    async fn crash(&mut self) {
        self.server.kill().await.expect("it runs");
        self.server.restart().await.expect("it starts again");
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.server.bucket_dir().join("blobs").join(&digest.0)
    }
}

keeps_the_promises!(S3);

#[tokio::test]
async fn an_address_opens_the_bucket() {
    let server = Server::start().await.unwrap();
    let access = Access { s3_keys: Some(keys()), ..Access::default() };
    let address = format!("s3://{}?endpoint={}&region=eu-west-1&prefix=site/b/", Server::BUCKET, server.url());
    let blobs = open_blobs(&address, &access, Shelf::Code).await.unwrap();
    let digest = blobs.put(Bytes::from_static(b"x")).await.unwrap();
    assert!(server.bucket_dir().join("site/b").join(&digest.0).is_file());
}

#[tokio::test]
async fn a_shelf_sees_nothing_of_another() {
    let server = Server::start().await.unwrap();
    let access = Access { s3_keys: Some(keys()), ..Access::default() };
    let address = format!("s3://{}?endpoint={}&prefix=b/", Server::BUCKET, server.url());
    let shelves =
        (open_blobs(&address, &access, Shelf::Code).await.unwrap(), open_blobs(&address, &access, Shelf::Values).await);
    super::shelves_are_apart(shelves.0, shelves.1.unwrap()).await;
}

#[tokio::test]
async fn a_request_waits_for_a_server_that_is_away() {
    let mut server = Server::start().await.unwrap();
    let blobs = S3Blobs::connect(settings(&server)).await.unwrap();
    let digest = blobs.put(Bytes::from_static(b"x")).await.unwrap();
    server.kill().await.unwrap();
    let (found, restarted) = tokio::join!(blobs.get(&digest), server.restart());
    restarted.unwrap();
    assert_eq!(found.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn wrong_keys_buckets_and_addresses_are_told_apart_and_no_secret_is_told() {
    let server = Server::start().await.unwrap();
    let connect = async |change: fn(&mut S3Settings)| {
        let mut settings = settings(&server);
        settings.deadline = Duration::from_secs(5);
        change(&mut settings);
        match S3Blobs::connect(settings).await {
            Err(StoreError::Remote { detail, .. }) => detail,
            other => panic!("{:?}", other.map(|_| ())),
        }
    };
    let refused = connect(|settings| settings.keys.secret_key = "another".into()).await;
    assert!(refused.contains("SignatureDoesNotMatch"), "{refused}");
    let missing = connect(|settings| settings.bucket = "none".into()).await;
    assert!(missing.contains("no bucket none"), "{missing}");
    let away = connect(|settings| {
        settings.endpoint = Some("http://127.0.0.1:1".parse().unwrap());
        settings.deadline = Duration::from_millis(200);
    })
    .await;
    assert!(!away.contains("Signature") && !away.contains(Server::ACCESS_KEY), "{away}");
}
