//! What every implementation of [`Blobs`](lyra_store::Blobs) must do.

use bytes::Bytes;
use lyra_store::StoreError;
use lyra_types::function::Digest;

use super::Subject;

pub async fn a_blob_is_found_by_its_digest_until_it_is_deleted(subject: impl Subject) {
    let blobs = subject.blobs();
    let digest = blobs.put(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(digest.0, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!(blobs.put(Bytes::from_static(b"hello")).await.unwrap(), digest);
    assert_eq!(blobs.get(&digest).await.unwrap().as_deref(), Some(&b"hello"[..]));
    assert_eq!(blobs.list().await.unwrap(), std::slice::from_ref(&digest));
    assert!(blobs.exists(&digest).await.unwrap());
    assert!(blobs.delete(&digest).await.unwrap());
    assert!(!blobs.delete(&digest).await.unwrap());
    assert!(!blobs.exists(&digest).await.unwrap());
    assert_eq!(blobs.get(&digest).await.unwrap(), None);
    assert!(blobs.list().await.unwrap().is_empty());
}

pub async fn a_damaged_blob_is_an_error_and_is_mended_by_the_next_put(subject: impl Subject) {
    let blobs = subject.blobs();
    let digest = blobs.put(Bytes::from_static(b"hello")).await.unwrap();
    std::fs::write(subject.file(&digest), b"jello").unwrap();
    assert!(matches!(blobs.get(&digest).await, Err(StoreError::Damaged { .. })));
    blobs.put(Bytes::from_static(b"hello")).await.unwrap();
    assert!(blobs.get(&digest).await.unwrap().is_some());
}

pub async fn a_digest_can_name_nothing_else(subject: impl Subject) {
    let blobs = subject.blobs();
    for bad in ["", "../../etc/passwd", &"G".repeat(64), &"a".repeat(63)] {
        let bad = Digest(bad.to_owned());
        assert!(blobs.get(&bad).await.is_err(), "{bad}");
        assert!(blobs.exists(&bad).await.is_err(), "{bad}");
        assert!(blobs.delete(&bad).await.is_err(), "{bad}");
    }
}

pub async fn a_large_blob_comes_back_whole(subject: impl Subject) {
    let blobs = subject.blobs();
    let bytes: Bytes =
        (0..20_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
    let digest = blobs.put(bytes.clone()).await.unwrap();
    assert!(blobs.get(&digest).await.unwrap().unwrap() == bytes);
    assert_eq!(blobs.put(bytes).await.unwrap(), digest);
}

pub async fn a_blob_may_be_empty(subject: impl Subject) {
    let blobs = subject.blobs();
    let digest = blobs.put(Bytes::new()).await.unwrap();
    assert_eq!(blobs.get(&digest).await.unwrap().unwrap().len(), 0);
}

pub async fn all_of_many_blobs_are_listed(subject: impl Subject) {
    let blobs = subject.blobs();
    let puts = (0..1_100).map(|n: u32| blobs.put(n.to_string().into()));
    let mut put: Vec<Digest> =
        futures::StreamExt::collect::<Vec<_>>(futures::StreamExt::buffer_unordered(futures::stream::iter(puts), 16))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
    let mut listed = blobs.list().await.unwrap();
    put.sort_by(|a, b| a.0.cmp(&b.0));
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(put == listed, "{} of {}", listed.len(), put.len());
}

pub async fn concurrent_puts_of_one_blob_are_one(subject: impl Subject) {
    let blobs = subject.blobs();
    let puts = (0..8).map(|_| blobs.put(Bytes::from_static(b"same")));
    let digests = futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(blobs.list().await.unwrap(), digests[..1]);
    assert_eq!(blobs.get(&digests[0]).await.unwrap().unwrap(), "same");
}

pub async fn what_was_acknowledged_survives_a_kill(mut subject: impl Subject) {
    let digest = subject.blobs().put(Bytes::from_static(b"kept")).await.unwrap();
    subject.crash().await;
    assert_eq!(subject.blobs().get(&digest).await.unwrap().unwrap(), "kept");
}
