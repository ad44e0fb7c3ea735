//! Watches: where they begin, what they show, how they end.

use http::Method;
use serde_json::{Value, json};

use crate::site::{SESSIONS, Site, pair, revision, session};

#[tokio::test]
async fn a_watch_begins_where_it_is_told_and_shows_what_comes_into_view_and_leaves_it() {
    let site = Site::new().await;
    let a = site.create("a").await;
    site.create("b").await;
    let mut all = site.watch(&format!("{SESSIONS}?watch=1")).await;
    assert_eq!(all.told().await, pair("ADDED", "a"));
    assert_eq!(all.told().await, pair("ADDED", "b"));
    let mut later = site.watch(&format!("{SESSIONS}?watch=1&resourceVersion={}", revision(&a))).await;
    assert_eq!(later.told().await, pair("ADDED", "b"));
    let mut zero =
        site.watch("/apis/lyra.dev/v1/watch/applicationsessions?resourceVersion=0&labelSelector=n%3Db").await;
    assert_eq!(zero.told().await, pair("ADDED", "b"));
    let mut open = site.watch(&format!("{SESSIONS}?watch=1&fieldSelector=status.sessionStatus%3DAvailable")).await;
    for (status, expected) in [("Available", "ADDED"), ("Available", "MODIFIED"), ("Closed", "DELETED")] {
        let change = json!({"status": {"sessionStatus": status, "message": expected}});
        site.patch(&format!("{SESSIONS}/b/status"), "application/merge-patch+json", change).await;
        assert_eq!(open.told().await, pair(expected, "b"));
        for watch in [&mut all, &mut later, &mut zero] {
            assert_eq!(watch.told().await, pair("MODIFIED", "b"));
        }
    }
    site.json(Method::DELETE, &format!("{SESSIONS}/b"), Value::Null).await;
    let event = all.next().await.unwrap();
    assert_eq!(
        (event["type"].as_str(), event["object"]["status"]["message"].as_str()),
        (Some("DELETED"), Some("DELETED"))
    );
    assert!(revision(&event["object"]) > revision(&a), "a deleted object has the revision of its deletion");
    site.create("b").await;
    assert_eq!(all.told().await, pair("ADDED", "b"));
    assert_eq!(later.told().await, pair("DELETED", "b"));
    // Other tenants' objects are not in view.
    let mut other = session("x");
    other["metadata"]["namespace"] = json!("game2");
    let elsewhere = SESSIONS.replace("game1", "game2");
    assert_eq!(site.json(Method::POST, &elsewhere, other).await.0, 201);
    site.create("c").await;
    assert_eq!(all.told().await, pair("ADDED", "c"));
}

#[tokio::test]
async fn a_watch_ends_in_time_and_with_410_for_what_is_not_kept() {
    let site = Site::new().await;
    let a = site.create("a").await;
    let mut short = site.watch(&format!("{SESSIONS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(short.told().await, pair("ADDED", "a"));
    assert_eq!(short.next().await, None);
    site.create("b").await;
    let site = site.restart().await;
    let mut old = site.watch(&format!("{SESSIONS}?watch=1&resourceVersion={}", revision(&a))).await;
    let event = old.next().await.unwrap();
    assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(old.next().await, None);
    let (_, list) = site.get(SESSIONS).await;
    let mut going = site.watch(&format!("{SESSIONS}?watch=1&resourceVersion={}", revision(&list))).await;
    site.create("c").await;
    assert_eq!(going.told().await, pair("ADDED", "c"));
    let (code, status) = site.get(&format!("{SESSIONS}?watch=1&resourceVersion=999999")).await;
    assert_eq!((code, status["details"]["causes"][0]["reason"].as_str()), (504, Some("ResourceVersionTooLarge")));
    assert_eq!(site.get(&format!("{SESSIONS}?watch=1&resourceVersion=abc")).await.0, 400);
    site.server.stop().await;
    assert_eq!(going.next().await, None, "a server that stops ends its watches");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_how_far_a_quiet_watch_is() {
    let site = Site::new().await;
    site.create("a").await;
    let query = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut watch = site.watch(&format!("{SESSIONS}?{query}&labelSelector=n%3Da")).await;
    assert_eq!(watch.told().await, pair("ADDED", "a"));
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    // Out of view: only a bookmark can tell.
    let b = site.create("b").await;
    let mark = watch.next().await.unwrap();
    assert_eq!((mark["type"].as_str(), revision(&mark["object"])), (Some("BOOKMARK"), revision(&b)));
    assert_eq!(site.get(&format!("{SESSIONS}?watch=1&sendInitialEvents=true")).await.0, 400);
}
