//! Secrets of the whole control role, on real files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lyra_kit::{Random, Tasks};
use lyra_types::{Code, SecretBytes, SecretName, SecretUse};
use lyra_wire::Control;
use lyra_wire::control::{PageQuery, Precondition};
use lyra_wire::secrets::{PutSecret, SecretKey};

use super::{Site, Stores, js, name, start_of_time, tenant};
use crate::Config;
use crate::secrets::{SecretsConfig, key_file};

const VALUE: &str = "correct-horse-battery-staple";

fn key_path(dir: &Path) -> PathBuf {
    dir.join("secrets.key")
}

async fn start(dir: &Path) -> Site {
    let secrets = SecretsConfig { key_file: Some(key_path(dir)), make_key: true };
    Site::start(dir, Config { secrets, ..Config::default() }).await
}

fn key(text: &str) -> SecretKey {
    SecretKey { tenant: tenant(), name: text.parse().unwrap() }
}

async fn set(site: &Site, secret: &str, value: &[u8]) -> lyra_types::Result<u64> {
    let put = PutSecret { key: key(secret), value: SecretBytes::new(value.to_vec()) };
    site.service.put_secret(put).await.map(|put| put.info.version)
}

async fn fetch(site: &Site, secret: &str) -> lyra_types::Result<Vec<u8>> {
    let names: Vec<SecretName> = vec![secret.parse().unwrap()];
    let values = site.service.fetch_secrets(&tenant(), names).await?;
    Ok(values[0].value.reveal().to_vec())
}

fn env_of(secret: &str) -> Vec<SecretUse> {
    vec![SecretUse { name: secret.parse().unwrap(), env: Some("SECRET".to_owned()), file: None }]
}

/// Whether a file below `dir` holds `text`.
fn holds(dir: &Path, text: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, text),
            false => std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_stored_sealed_and_goes_to_workers_only() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path()).await;
    assert_eq!(set(&site, "db", VALUE.as_bytes()).await.unwrap(), 1);
    assert_eq!(fetch(&site, "db").await.unwrap(), VALUE.as_bytes());
    let before = site.service.secret_stamps(vec![key("db"), key("other")]).await.unwrap();
    assert!(before[0].is_some() && before[1].is_none());
    assert_eq!(set(&site, "db", b"another value").await.unwrap(), 2);
    assert_ne!(site.service.secret_stamps(vec![key("db")]).await.unwrap()[0], before[0]);
    assert_eq!(fetch(&site, "db").await.unwrap(), b"another value");
    let shown = format!("{:?}", site.service.secrets(&tenant(), PageQuery::default()).await.unwrap());
    assert!(shown.contains("\"db\"") && !shown.contains("another"), "{shown}");
    assert!(!holds(dir.path(), VALUE.as_bytes()) && !holds(dir.path(), b"another value"));
    assert_eq!(set(&site, "db", b"").await.unwrap_err().code, Code::InvalidField);
    assert_eq!(set(&site, "db", &vec![b'a'; (24 << 10) + 1]).await.unwrap_err().code, Code::InvalidField);
    assert_eq!(fetch(&site, "nothing").await.unwrap_err().code, Code::NotFound);
    // After a restart it opens with the same key.
    site.service.stop().await;
    drop(site);
    let site = start(dir.path()).await;
    assert_eq!(fetch(&site, "db").await.unwrap(), b"another value");
    site.service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_is_given_only_what_is_there_and_what_is_used_stays() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path()).await;
    let mut request = js("export default 1");
    request.secrets = env_of("db");
    let deploy = async || site.service.deploy(&tenant(), &name("f"), request.clone(), Precondition::None).await;
    let refused = deploy().await.unwrap_err();
    assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::InvalidField, "secrets[0]"));
    set(&site, "db", &[0xff, 0]).await.unwrap();
    assert!(deploy().await.unwrap_err().detail.contains("not UTF-8"));
    set(&site, "db", VALUE.as_bytes()).await.unwrap();
    deploy().await.unwrap();
    let info = site.service.secret(&key("db")).await.unwrap();
    assert_eq!((info.version, info.functions), (2, vec![name("f")]));
    assert_eq!(set(&site, "db", &[0xff]).await.unwrap_err().code, Code::InvalidField);
    // The next code is given the same.
    let code = lyra_wire::control::RawCode::JavaScript("export default 2".into());
    let next = site.service.deploy_code(&tenant(), &name("f"), code, Precondition::None).await.unwrap().value;
    assert_eq!(next.route.versions[&next.version].secrets, env_of("db"));
    let refused = site.service.delete_secret(&key("db"), false).await.unwrap_err();
    assert!(refused.code == Code::Conflict && refused.detail.contains("function f"), "{refused}");
    site.service.delete_secret(&key("db"), true).await.unwrap();
    assert_eq!(site.service.delete_secret(&key("db"), true).await.unwrap_err().code, Code::NotFound);
    assert_eq!(fetch(&site, "db").await.unwrap_err().code, Code::NotFound);
    // One that is made anew is not taken for the old one.
    assert_eq!(set(&site, "db", b"new").await.unwrap(), 1);
    site.service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_goes_while_a_deploy_names_it_has_the_deploy_refused() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path()).await;
    set(&site, "db", VALUE.as_bytes()).await.unwrap();
    let mut request = js("export default 1");
    request.secrets = env_of("db");
    let (owner, f) = (tenant(), name("f"));
    let held = site.worker.hold.lock().await;
    let deploy = site.service.deploy(&owner, &f, request.clone(), Precondition::None);
    let delete = async {
        while site.worker.preparing.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // Nobody is given it yet.
        site.service.delete_secret(&key("db"), false).await.unwrap();
        drop(held);
    };
    let (deployed, ()) = tokio::join!(deploy, delete);
    let refused = deployed.unwrap_err();
    assert_eq!((refused.code, refused.errors[0].field.as_str()), (Code::InvalidField, "secrets[0]"));
    assert_eq!(site.service.function(&owner, &f).await.unwrap_err().code, Code::NotFound);
    // One that is only changed meanwhile is given, where it still can be.
    for (secret, value, is_text) in [("text", b"another".as_slice(), true), ("raw", &[0xff], false)] {
        set(&site, secret, VALUE.as_bytes()).await.unwrap();
        let mut request = request.clone();
        request.secrets = env_of(secret);
        let (held, before) = (site.worker.hold.lock().await, site.worker.preparing.load(Ordering::SeqCst));
        let function = name(secret);
        let deploy = site.service.deploy(&owner, &function, request, Precondition::None);
        let change = async {
            while site.worker.preparing.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
            set(&site, secret, value).await.unwrap();
            drop(held);
        };
        let (deployed, ()) = tokio::join!(deploy, change);
        assert_eq!(deployed.map_err(|error| error.detail.contains("not UTF-8")).err(), (!is_text).then_some(true));
    }
    site.service.stop().await;
}

#[tokio::test]
async fn of_a_deploy_and_a_deletion_in_two_processes_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::open(dir.path());
    let secrets = SecretsConfig { key_file: Some(key_path(dir.path())), make_key: true };
    let start = |seed, place| {
        let config = Config { secrets: secrets.clone(), ..Config::default() };
        let stores = stores.clone();
        async move { Site::start_on(stores, config, start_of_time(), seed, |jobs| jobs, &Tasks::new(), place).await }
    };
    let (one, other) = (start(1, ("c1", "a:1")).await, start(2, ("c2", "a:2")).await);
    let mut request = js("export default 1");
    request.secrets = env_of("db");
    let (mut refused, owner) = ([0, 0], tenant());
    for round in 0..30 {
        set(&one, "db", VALUE.as_bytes()).await.unwrap();
        let f = name(&format!("f{round}"));
        let deploy = one.service.deploy(&owner, &f, request.clone(), Precondition::None);
        let secret = key("db");
        let (deployed, deleted) = tokio::join!(deploy, other.service.delete_secret(&secret, false));
        match (deployed, deleted) {
            (Ok(_), Err(error)) => {
                assert_eq!(error.code, Code::Conflict, "{error}");
                refused[1] += 1;
                one.service.delete_function(&owner, &f).await.unwrap();
            }
            (Err(error), Ok(())) => {
                assert_eq!(error.code, Code::InvalidField, "{error}");
                refused[0] += 1;
            }
            (deployed, deleted) => panic!("{round}: {deployed:?}, {deleted:?}"),
        }
    }
    assert_eq!(refused.iter().sum::<u32>(), 30);
    one.service.stop().await;
    other.service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_is_broken_off_goes_on_and_then_the_old_key_can_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = key_path(dir.path());
    let site = start(dir.path()).await;
    for secret in ["a", "b", "c"] {
        set(&site, secret, secret.as_bytes()).await.unwrap();
    }
    let old_file = std::fs::read(&path).unwrap();
    let new = key_file::add(&path, true, &Random::seeded(7)).unwrap();
    // One of three is done when the process dies.
    assert_eq!(site.service.sealing_keys().await.unwrap()[0].id, new);
    assert!(site.service.secrets_part().reseal_one(&key("b"), &new).await.unwrap().is_some());
    let count = |site: &Arc<crate::Service>| {
        let site = Arc::clone(site);
        async move { site.sealing_keys().await.unwrap().iter().map(|key| key.secrets).collect::<Vec<_>>() }
    };
    site.service.stop().await;
    drop(site);
    let site = start(dir.path()).await;
    assert_eq!(count(&site.service).await, [1, 2]);
    let done = site.service.reseal_secrets().await.unwrap();
    assert_eq!((done.key, done.resealed), (new.clone(), 2));
    assert_eq!(site.service.reseal_secrets().await.unwrap().resealed, 0);
    assert_eq!(count(&site.service).await, [3, 0]);
    for secret in ["a", "b", "c"] {
        assert_eq!(fetch(&site, secret).await.unwrap(), secret.as_bytes());
    }
    // Without the old key all goes on; without the new one it does not, and says what is missing.
    let text = std::fs::read_to_string(&path).unwrap();
    let keys: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    std::fs::write(&path, format!("{}\n", keys[0])).unwrap();
    site.service.secrets_part().start(&Tasks::new()).await.unwrap();
    assert_eq!(fetch(&site, "a").await.unwrap(), b"a");
    std::fs::write(&path, old_file).unwrap();
    let refused = site.service.secrets_part().start(&Tasks::new()).await.unwrap_err();
    assert!(refused.detail.contains(&format!("{new} (3 secrets)")), "{refused}");
    std::fs::remove_file(&path).unwrap();
    let refused = site.service.secrets_part().start(&Tasks::new()).await.unwrap_err();
    assert!(refused.detail.contains("is not there") && !path.exists(), "{refused}");
    site.service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_key_there_are_no_secrets_and_it_is_said_why() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    let refused = set(&site, "a", b"a").await.unwrap_err();
    assert!(refused.code == Code::Unavailable && refused.detail.contains("--secrets-key"), "{refused}");
    assert!(site.service.sealing_keys().await.unwrap().is_empty());
    site.service.stop().await;
}
