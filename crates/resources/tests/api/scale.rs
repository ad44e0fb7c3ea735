//! Many sessions and many watchers at once.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use http::Method;
use lyra_kit::Clock;
use lyra_types::TenantName;
use lyra_types::resources::SessionStatus;
use serde_json::Value;

use crate::site::{SESSIONS, Site, session};

const SESSION_COUNT: usize = 3_000;
const WATCHERS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_session_open_under_load() {
    let site = Arc::new(Site::new().await);
    let clock = Clock::system();
    let mut watchers = Vec::new();
    for number in 0..WATCHERS {
        // Some see all, most see one session, as a client that opens one does.
        let selector = if number < 8 { String::new() } else { format!("&fieldSelector=metadata.name%3Ds{number}") };
        let mut watch = site.watch(&format!("{SESSIONS}?watch=1{selector}")).await;
        let expected = if number < 8 { SESSION_COUNT } else { 1 };
        watchers.push(lyra_kit::tasks::spawn("watcher", async move {
            let mut open = std::collections::BTreeSet::new();
            while open.len() < expected {
                let event = watch.next().await.expect("no watcher is cut off");
                if event["object"]["status"]["sessionStatus"] == "Available" {
                    open.insert(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
                }
            }
        }));
    }
    let begun = clock.instant();
    let tenant = TenantName::new("game1").unwrap();
    stream::iter(0..SESSION_COUNT)
        .for_each_concurrent(64, |number| {
            let (site, tenant) = (&site, &tenant);
            async move {
                let name = format!("s{number}");
                let (code, created) = site.json(Method::POST, SESSIONS, session(&name)).await;
                assert_eq!(code, 201, "{created}");
                let open = |session: &mut lyra_types::resources::ApplicationSession| {
                    session.status.session_status = SessionStatus::Available;
                };
                site.api().sessions().update(tenant, &name, None, open).await.unwrap();
            }
        })
        .await;
    let written = clock.instant().duration_since(begun);
    for watcher in watchers {
        watcher.await.unwrap();
    }
    let seen = clock.instant().duration_since(begun);
    let rate = SESSION_COUNT as f64 / written.as_secs_f64();
    eprintln!(
        "{SESSION_COUNT} sessions made and opened in {written:?} ({rate:.0}/s), seen by {WATCHERS} watchers in {seen:?}"
    );
    let (code, list) = site.get(SESSIONS).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(SESSION_COUNT)));
    assert_ne!(list["metadata"]["resourceVersion"], Value::Null);
}
