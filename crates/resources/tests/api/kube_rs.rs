//! The client library `kube` against the API: what it follows is what there is, under churn and over a restart of the API on the
//! same store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lyra_kit::Random;
use lyra_resources::{Caller, DeleteOptions, ResourceApi, WriteOptions};
use lyra_types::TenantName;
use lyra_types::resources::ApplicationSession;
use tokio::process::Command;

use crate::server::Server;

/// Builds the client; `./test` has done so before, so that this takes no time there.
async fn client() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kube");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kube");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(source.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .await
        .expect("cargo starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join("release/kube-follower")
}

/// Does to a few sessions what comes by chance.
async fn churn(api: &ResourceApi, random: &Random, steps: usize) {
    let (tenant, caller) = (TenantName::new("game1").unwrap(), Caller::operator("test"));
    for _ in 0..steps {
        let name = format!("s{}", random.u64() % 12);
        let options = WriteOptions { caller: &caller, dry_run: false };
        match random.u64() % 3 {
            0 => {
                let mut session = ApplicationSession::default();
                session.metadata.namespace = "game1".into();
                session.metadata.name = name;
                session.spec.application_name = "echo".into();
                let _ = api.sessions().create(session, options).await;
            }
            1 => {
                let change = |session: &mut ApplicationSession| session.spec.ttl_seconds_after_finished += 1;
                api.sessions().update(&tenant, &name, None, change).await.unwrap();
            }
            _ => drop(api.sessions().delete(&tenant, &name, &DeleteOptions::default(), options).await),
        }
        tokio::task::yield_now().await;
    }
}

fn known(api: &ResourceApi) -> BTreeMap<String, String> {
    let tenant = TenantName::new("game1").unwrap();
    let sessions = api.sessions().list(Some(&tenant));
    sessions
        .iter()
        .map(|session| {
            let meta = &session.metadata;
            (meta.name.clone(), format!("{}/{}/{}", meta.uid, meta.generation, meta.resource_version))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_reflectors_and_controllers_miss_nothing_over_a_restart() {
    let program = client().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("objects.db");
    let mut server = Server::start(&data, ([127, 0, 0, 1], 0).into()).await;
    let random = Random::seeded(7);
    churn(&server.api, &random, 30).await;
    let mut follower = Command::new(program);
    follower.arg(format!("http://{}", server.address)).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let follower = follower.spawn().unwrap();
    for _ in 0..3 {
        // The churn is to be followed, not listed: by two watchers, a reflector and a controller.
        let mut watches = server.watches.subscribe();
        let following = watches.wait_for(|count| *count >= 4);
        tokio::time::timeout(Duration::from_secs(120), following).await.expect("all follow").expect("it runs");
        churn(&server.api, &random, 300).await;
        let address = server.address;
        server.stop().await;
        // What happens meanwhile is seen by listing.
        server = Server::start(&data, address).await;
        churn(&server.api, &random, 100).await;
    }
    let mut done = ApplicationSession::default();
    done.metadata.namespace = "game1".into();
    done.metadata.name = "done".into();
    done.spec.application_name = "echo".into();
    let caller = Caller::operator("test");
    server.api.sessions().create(done, WriteOptions { caller: &caller, dry_run: false }).await.unwrap();
    let output =
        tokio::time::timeout(Duration::from_secs(300), follower.wait_with_output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let told: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = known(&server.api);
    for way in ["watcher", "streaming", "reflector", "controller"] {
        assert_eq!(told[way], expected, "{way}: {said}");
    }
}
