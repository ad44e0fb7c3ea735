//! Follows the sessions of the tenant `game1` in every way that `kube` has, until it sees one that is called `done`, and prints
//! what each way knows then: `{"way": {"name": "uid/generation/revision", …}, …}`. Given the server's address.
//!
//! With a second argument it leaves the verbs out, prints each session whose name begins with `mark-` on a line of its own once
//! every way has seen it, and adds to what it prints at the end which uids each way has `seen`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::Event;
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Client, Config, ResourceExt};
use serde_json::json;

type Known = BTreeMap<String, String>;

/// Ways to follow objects.
const WAYS: [&str; 4] = ["watcher", "streaming", "reflector", "controller"];

fn what(object: &DynamicObject) -> String {
    let revision = object.resource_version().unwrap_or_default();
    format!("{}/{}/{revision}", object.uid().unwrap_or_default(), object.metadata.generation.unwrap_or_default())
}

/// What each way has ever been shown.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<&'static str, BTreeSet<String>>>>);

impl Seen {
    fn note(&self, way: &'static str, object: &DynamicObject) {
        let mut seen = self.0.lock().expect("no panic");
        seen.entry(way).or_default().insert(object.uid().unwrap_or_default());
        let name = object.name_any();
        if name.starts_with("mark-")
            && seen.entry(way).or_default().insert(name.clone())
            && WAYS.iter().all(|way| seen.get(way).is_some_and(|seen| seen.contains(&name)))
        {
            println!("{name}");
        }
    }
}

/// Applies the events of a watcher one by one.
async fn watch(api: Api<DynamicObject>, config: watcher::Config, way: &'static str, seen: &Seen) -> Result<Known> {
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let (mut known, mut listed) = (Known::new(), Known::new());
    loop {
        let event = events.next().await.context("a watcher never ends")?;
        if let Ok(Event::InitApply(object) | Event::Apply(object)) = &event {
            seen.note(way, object);
        }
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => drop(listed.insert(object.name_any(), what(&object))),
            Ok(Event::InitDone) => known = std::mem::take(&mut listed),
            Ok(Event::Apply(object)) => drop(known.insert(object.name_any(), what(&object))),
            Ok(Event::Delete(object)) => {
                let gone = known.remove(&object.name_any());
                ensure!(gone.is_some_and(|known| known.starts_with(&object.uid().unwrap_or_default())), "deleted, never seen");
            }
            Err(error) => eprintln!("watcher: {error}"),
        }
        if known.contains_key("done") {
            return Ok(known);
        }
    }
}

async fn reflect(api: Api<DynamicObject>, resource: &ApiResource, seen: &Seen) -> Result<Known> {
    let writer = reflector::store::Writer::new(resource.clone());
    let store = writer.as_reader();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().reflect(writer));
    let done = ObjectRef::new_with("done", resource.clone()).within("game1");
    while let Some(event) = events.next().await {
        match &event {
            Ok(Event::InitApply(object) | Event::Apply(object)) => seen.note("reflector", object),
            Ok(_) => {}
            Err(error) => eprintln!("reflector: {error}"),
        }
        if store.get(&done).is_some() {
            break;
        }
    }
    Ok(store.state().iter().map(|object| (object.name_any(), what(object))).collect())
}

/// A controller that looks at each object that it is told of.
async fn control(api: Api<DynamicObject>, resource: &ApiResource, all: &Seen) -> Result<Known> {
    let all = all.clone();
    let seen: Arc<Mutex<Known>> = Arc::default();
    let controller = Controller::new_with(api, watcher::Config::default(), resource.clone());
    let store = controller.store();
    let reconcile = move |object: Arc<DynamicObject>, seen: Arc<Mutex<Known>>| {
        all.note("controller", &object);
        seen.lock().expect("no panic").insert(object.name_any(), what(&object));
        futures::future::ready(Ok::<_, std::convert::Infallible>(Action::await_change()))
    };
    let mut runs = std::pin::pin!(controller.run(reconcile, |_, _, _| Action::await_change(), seen.clone()));
    let settled = || {
        let seen = seen.lock().expect("no panic");
        seen.contains_key("done") && store.state().iter().all(|object| seen.get(&object.name_any()) == Some(&what(object)))
    };
    while !settled() {
        match runs.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => eprintln!("controller: {error}"),
            None => anyhow::bail!("the controller ended"),
        }
    }
    let there: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
    let seen = seen.lock().expect("no panic");
    Ok(seen.iter().filter(|(name, _)| there.contains(name)).map(|(name, what)| (name.clone(), what.clone())).collect())
}

/// Every verb once, in a tenant of its own.
async fn verbs(client: Client, resource: &ApiResource) -> Result<Known> {
    let api: Api<DynamicObject> = Api::namespaced_with(client, "verbs", resource);
    let session = |name: &str| -> Result<DynamicObject> {
        let object = DynamicObject::new(name, resource).data(json!({"spec": {"applicationName": "echo"}}));
        Ok(object)
    };
    let created = api.create(&PostParams::default(), &session("a")?).await?;
    ensure!(created.data["spec"]["openTimeoutSeconds"] == 10, "defaults are filled in");
    let again = api.create(&PostParams::default(), &session("a")?).await;
    ensure!(matches!(again, Err(kube::Error::Api(status)) if status.code == 409), "it is there");
    ensure!(api.get_opt("nothing").await?.is_none(), "nothing is there");
    let patch = json!({"spec": {"closeGracePeriodSeconds": 1}});
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    ensure!(patched.metadata.generation == Some(2), "a change of spec counts");
    let status = json!({"status": {"sessionStatus": "Available"}});
    let opened = api.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await?;
    ensure!(opened.data["status"]["sessionStatus"] == "Available", "status is patched");
    let mut replaced = opened.clone();
    replaced.data["spec"]["closeGracePeriodSeconds"] = json!(2);
    api.replace("a", &PostParams::default(), &replaced).await?;
    let stale = api.replace("a", &PostParams::default(), &replaced).await;
    ensure!(matches!(stale, Err(kube::Error::Api(status)) if status.code == 409), "it was changed");
    api.patch("b", &PatchParams::apply("follower"), &Patch::Apply(&session("b")?)).await?;
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(1);
    loop {
        let list = api.list(&page).await?;
        names.extend(list.items.iter().map(ResourceExt::name_any));
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            _ => break,
        }
    }
    ensure!(names == ["a", "b"], "pages hold all: {names:?}");
    let metadata = api.list_metadata(&ListParams::default()).await?;
    ensure!(metadata.items.len() == 2, "metadata alone");
    api.delete("a", &DeleteParams::default()).await?;
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let left: Vec<DynamicObject> = api.list(&ListParams::default()).await?.items;
    ensure!(left.is_empty(), "nothing is left");
    Ok(Known::new())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let server = std::env::args().nth(1).context("usage: kube-follower http://ADDR:PORT")?;
    let client = Client::try_from(Config::new(server.parse()?))?;
    let kind = GroupVersionKind::gvk("lyra.dev", "v1", "ApplicationSession");
    let (resource, capabilities) = kube::discovery::pinned_kind(&client, &kind).await?;
    ensure!(resource.plural == "applicationsessions" && capabilities.subresources.len() == 1, "discovery: {resource:?}");
    let sessions = || Api::<DynamicObject>::namespaced_with(client.clone(), "game1", &resource);
    let (seen, marks) = (Seen::default(), std::env::args().nth(2).is_some());
    let verbs = async {
        match marks {
            true => Ok(Known::new()),
            false => verbs(client.clone(), &resource).await,
        }
    };
    let followed = async {
        tokio::try_join!(
            watch(sessions(), watcher::Config::default().page_size(3), "watcher", &seen),
            watch(sessions(), watcher::Config::default().streaming_lists(), "streaming", &seen),
            reflect(sessions(), &resource, &seen),
            control(sessions(), &resource, &seen),
            verbs,
        )
    };
    let (watched, streamed, reflected, controlled, _) = tokio::time::timeout(Duration::from_secs(300), followed).await??;
    let mut told = json!({"watcher": watched, "streaming": streamed, "reflector": reflected, "controller": controlled});
    if marks {
        told["seen"] = json!(*seen.0.lock().expect("no panic"));
    }
    println!("{told}");
    Ok(())
}
