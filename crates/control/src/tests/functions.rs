//! Deploys, aliases, deletes, and the route table.

use std::collections::BTreeMap;

use futures::StreamExt;
use lyra_store::Blobs;
use lyra_types::AliasName;
use lyra_types::api::AliasRequest;
use lyra_types::name::Qualifier;
use lyra_wire::control::{PageQuery, RawCode, RouteEvent};

use super::*;

async fn site() -> (tempfile::TempDir, Site) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    (dir, site)
}

async fn live(site: &Site, function: &str) -> BTreeMap<u64, u32> {
    site.service.function(&tenant(), &name(function)).await.unwrap().aliases["live"].weights.clone()
}

async fn try_deploy(site: &Site, request: DeployRequest, precondition: Precondition) -> Result<u64> {
    let deployed = site.service.deploy(&tenant(), &name("f"), request, precondition).await;
    deployed.map(|changed| changed.value.version)
}

#[tokio::test(start_paused = true)]
async fn a_deploy_makes_the_next_version_and_moves_live_unless_told_not_to() {
    let (_dir, site) = site().await;
    let first = site.service.deploy(&tenant(), &name("f"), js("1"), Precondition::None).await.unwrap();
    assert!(first.value.created);
    assert_eq!(first.value.route, site.service.function(&tenant(), &name("f")).await.unwrap(), "the table shows it");
    assert_eq!(site.deploy("f", |_| ()).await, 2);
    assert_eq!(live(&site, "f").await, [(2, 1)].into());
    assert_eq!(site.deploy("f", |request| request.promote = Some(false)).await, 3);
    assert_eq!(live(&site, "f").await, [(2, 1)].into());
    let route = site.service.function(&tenant(), &name("f")).await.unwrap();
    assert_eq!(route.resolve(&Qualifier::Version(3), 0).unwrap().version, 3);
    assert!(site.metrics.render().contains("lyra_deploys_total{outcome=\"ok\"} 3"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_of_a_deploy_that_is_refused() {
    let (_dir, site) = site().await;
    let error = try_deploy(&site, js("bad"), Precondition::None).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidCode);
    let error =
        try_deploy(&site, DeployRequest { memory_mb: Some(1), ..js("1") }, Precondition::None).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidField);
    assert!(site.service.function(&tenant(), &name("f")).await.is_err());
    assert!(site.blobs.list().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn preconditions_hold_against_the_newest_version() {
    let (_dir, site) = site().await;
    let code = |outcome: Result<u64>| outcome.map_err(|error| error.code);
    assert_eq!(code(try_deploy(&site, js("1"), Precondition::Exists).await), Err(Code::StaleVersion));
    assert_eq!(code(try_deploy(&site, js("1"), Precondition::Newest(1)).await), Err(Code::StaleVersion));
    assert_eq!(code(try_deploy(&site, js("1"), Precondition::Absent).await), Ok(1));
    assert_eq!(code(try_deploy(&site, js("1"), Precondition::Absent).await), Err(Code::StaleVersion));
    assert_eq!(code(try_deploy(&site, js("1"), Precondition::Newest(1)).await), Ok(2));
    assert_eq!(code(try_deploy(&site, js("1"), Precondition::Newest(1)).await), Err(Code::StaleVersion));
    assert_eq!(code(try_deploy(&site, js("1"), Precondition::Exists).await), Ok(3));
}

#[tokio::test(start_paused = true)]
async fn concurrent_deploys_all_get_versions_of_their_own() {
    let (_dir, site) = site().await;
    let deploys = (0..20).map(|i| try_deploy(&site, js(&format!("export default {i}")), Precondition::None));
    let mut versions = futures::future::try_join_all(deploys).await.unwrap();
    versions.sort_unstable();
    assert_eq!(versions, (1..=20).collect::<Vec<_>>());
    let of_one = (0..8).map(|_| try_deploy(&site, js("1"), Precondition::Newest(20)));
    let outcomes = futures::future::join_all(of_one).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "If-Match lets one through");
}

#[tokio::test(start_paused = true)]
async fn new_code_keeps_the_settings_of_the_newest_version() {
    let (_dir, site) = site().await;
    site.deploy("f", |request| request.memory_mb = Some(64)).await;
    let code = RawCode::JavaScript(Bytes::from_static(b"export default 2"));
    let deploy = |function, code| {
        let service = Arc::clone(&site.service);
        async move { service.deploy_code(&tenant(), &name(function), code, Precondition::None).await }
    };
    let deployed = deploy("f", code.clone()).await.unwrap().value;
    assert_eq!((deployed.version, deployed.route.versions[&2].memory_mb), (2, 64));
    assert_ne!(deployed.route.versions[&1].code, deployed.route.versions[&2].code);
    assert!(deploy("new", code).await.unwrap().value.created);
    let error = deploy("f", RawCode::Wasm(Bytes::from_static(b"\0asm"))).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidField);
}

#[tokio::test(start_paused = true)]
async fn aliases_are_put_rolled_back_and_deleted() {
    let (_dir, site) = site().await;
    for _ in 0..3 {
        site.deploy("f", |_| ()).await;
    }
    let beta = AliasName::new("beta").unwrap();
    let split = AliasRequest { weights: Some([(1, 90), (2, 10)].into()), version: None };
    let put = site.service.put_alias(&tenant(), &name("f"), &beta, split).await.unwrap();
    assert_eq!(put.value.weights, [(1, 90), (2, 10)].into());
    let back = site.service.rollback(&tenant(), &name("f")).await.unwrap();
    assert_eq!(back.value.weights, [(2, 1)].into());
    assert_eq!(site.service.rollback(&tenant(), &name("f")).await.unwrap().value.weights, [(1, 1)].into());
    assert_eq!(site.service.rollback(&tenant(), &name("f")).await.unwrap_err().code, Code::Conflict);
    let delete = |alias| {
        let service = Arc::clone(&site.service);
        async move { service.delete_alias(&tenant(), &name("f"), &AliasName::new(alias).unwrap()).await }
    };
    assert_eq!(delete("live").await.unwrap_err().code, Code::Conflict);
    delete("beta").await.unwrap();
    assert_eq!(delete("beta").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn old_versions_that_nothing_needs_go_and_their_numbers_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), Config { max_versions: 3, ..Config::default() }).await;
    site.deploy("f", |_| ()).await;
    let keep = AliasRequest { weights: None, version: Some(1) };
    site.service.put_alias(&tenant(), &name("f"), &AliasName::new("keep").unwrap(), keep).await.unwrap();
    for i in 2..=6 {
        let version = site.deploy("f", |request| request.code.source = Some(format!("export default {i}"))).await;
        assert_eq!(version, i);
        if i == 3 {
            // A job that waits for a retry far away pins version 3.
            let id = site.submit("f", "throw").await;
            site.service.job(&tenant(), id, Duration::from_millis(100)).await.unwrap();
        }
    }
    let route = site.service.function(&tenant(), &name("f")).await.unwrap();
    assert_eq!(route.versions.keys().copied().collect::<Vec<_>>(), [1, 3, 5, 6]);
    assert_eq!(site.blobs.list().await.unwrap().len(), 4, "their code goes too");
    let forgotten: Vec<_> = site.worker.forgotten.lock().iter().map(|(_, version)| *version).collect();
    assert_eq!(forgotten, [Some(2), Some(4)]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_function_takes_everything_with_it_and_a_new_one_is_another() {
    let (_dir, site) = site().await;
    site.deploy("f", |_| ()).await;
    site.deploy("f", |request| request.code.source = Some("only f".to_owned())).await;
    site.deploy("g", |_| ()).await;
    let old = site.service.function(&tenant(), &name("f")).await.unwrap().generation;
    site.service.delete_function(&tenant(), &name("f")).await.unwrap();
    assert_eq!(site.service.function(&tenant(), &name("f")).await.unwrap_err().code, Code::NotFound);
    assert_eq!(site.service.delete_function(&tenant(), &name("f")).await.unwrap_err().code, Code::NotFound);
    while site.logs.forgotten.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*site.logs.forgotten.lock(), [name("f")]);
    assert_eq!(*site.worker.forgotten.lock(), [(old, None)]);
    assert_eq!(site.blobs.list().await.unwrap().len(), 1, "code that another function uses stays");
    assert_eq!(site.deploy("f", |_| ()).await, 1);
    assert_ne!(site.service.function(&tenant(), &name("f")).await.unwrap().generation, old);
}

#[tokio::test(start_paused = true)]
async fn code_is_never_lost_to_a_delete_beside_a_deploy() {
    let (_dir, site) = site().await;
    for _ in 0..10 {
        site.deploy("f", |_| ()).await;
        let (tenant, f, g) = (tenant(), name("f"), name("g"));
        let (deployed, deleted) = futures::join!(
            site.service.deploy(&tenant, &g, js("export default 1"), Precondition::None),
            site.service.delete_function(&tenant, &f),
        );
        deleted.unwrap();
        let code = deployed.unwrap().value.route.versions.values().next_back().unwrap().code.clone();
        assert!(site.blobs.exists(&code).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn functions_survive_a_restart_and_orphaned_code_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    for i in 0..30 {
        site.deploy(&format!("f{i:02}"), |_| ()).await;
    }
    site.deploy("f07", |request| request.env = [("A".to_owned(), "b".to_owned())].into()).await;
    let before = site.service.functions(&tenant(), PageQuery::default()).await.unwrap();
    let orphan = site.blobs.put(Bytes::from_static(b"of a deploy that was killed")).await.unwrap();
    site.service.stop().await;
    drop(site);
    let site = Site::start(dir.path(), Config::default()).await;
    assert_eq!(site.service.functions(&tenant(), PageQuery::default()).await.unwrap(), before);
    while site.blobs.exists(&orphan).await.unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(site.blobs.list().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn lists_have_pages() {
    let (_dir, site) = site().await;
    for i in 0..5 {
        site.deploy(&format!("f{i}"), |_| ()).await;
    }
    let page = |cursor: Option<&str>| {
        let (service, cursor) = (Arc::clone(&site.service), cursor.map(str::to_owned));
        async move {
            let page = service.functions(&tenant(), PageQuery { limit: 2, cursor }).await?;
            Ok::<_, Error>((page.items.iter().map(|route| route.function.to_string()).collect::<Vec<_>>(), page.next))
        }
    };
    assert_eq!(page(None).await.unwrap(), (vec!["f0".into(), "f1".into()], Some("f1".into())));
    assert_eq!(page(Some("f1")).await.unwrap(), (vec!["f2".into(), "f3".into()], Some("f3".into())));
    assert_eq!(page(Some("f3")).await.unwrap(), (vec!["f4".into()], None));
    assert_eq!(page(Some("Ä")).await.unwrap_err().code, Code::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_has_seen_a_changes_revision_routes_by_it() {
    let (_dir, site) = site().await;
    site.deploy("old", |_| ()).await;
    let mut watch = site.service.watch_routes().await.unwrap();
    let mut routes = BTreeMap::new();
    let mut seen = 0;
    let mut apply = async |upto: u64, routes: &mut BTreeMap<FunctionName, Arc<lyra_wire::control::Route>>| {
        while seen < upto {
            let (revision, event) = watch.next().await.unwrap().unwrap();
            assert!(revision >= seen, "revisions never go back");
            seen = revision;
            match event {
                RouteEvent::Put(route) => drop(routes.insert(route.function.clone(), route)),
                RouteEvent::Remove(_, function) => drop(routes.remove(&function)),
                RouteEvent::Synced => {}
            }
        }
    };
    let service = &site.service;
    let changes = (0..10).map(|i| async move {
        service.deploy(&tenant(), &name(&format!("f{i}")), js("1"), Precondition::None).await.unwrap()
    });
    for changed in futures::future::join_all(changes).await {
        apply(changed.revision, &mut routes).await;
        assert_eq!(routes[&changed.value.route.function], changed.value.route);
    }
    assert!(routes.contains_key("old"));
    let gone = service.delete_function(&tenant(), &name("f3")).await.unwrap().revision;
    apply(gone, &mut routes).await;
    assert!(!routes.contains_key("f3"));
}

#[tokio::test(start_paused = true)]
async fn code_goes_at_once_with_a_function_that_is_deleted_right_after_its_deploy() {
    let (_dir, site) = site().await;
    for _ in 0..20 {
        site.deploy("f", |_| ()).await;
        site.service.delete_function(&tenant(), &name("f")).await.unwrap();
        assert!(site.blobs.list().await.unwrap().is_empty());
    }
}
