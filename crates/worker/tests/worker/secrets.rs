//! Secrets of applications, in programs that run as processes: given, changed and missing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lyra_isolation::process::Processes;
use lyra_types::{Error, SecretBytes, SecretName, SecretUse, TenantName};
use lyra_wire::secrets::{SecretKey, SecretValue};
use lyra_wire::sessions::{AppConfig, AppVersion, SessionCommand, SessionEnd, SessionPhase, SessionReport};
use lyra_wire::worker::InstanceState;
use lyra_worker::{Config, Vault};
use parking_lot::Mutex;

use crate::programs::{config, get};
use crate::site::{Running, Site, session};

/// Answers with its secrets, and prints them.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import http.server, json, os
secrets = os.path.join(os.environ["LYRA_SESSION_DIR"], "secrets")
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        read = lambda name: open(os.path.join(secrets, name)).read()
        try:
            open(os.path.join(secrets, "map"), "w")
            wrote = True
        except OSError:
            wrote = False
        session = json.load(open(os.path.join(secrets, "../session.json")))["name"]
        answer = [os.environ["API_KEY"], read("map"), sorted(os.listdir(secrets)), wrote, session]
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(answer).encode())
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Control, as far as secrets go.
#[derive(Default)]
struct Scripted(Mutex<HashMap<&'static str, (u64, &'static str)>>, AtomicU64);

impl Scripted {
    fn set(&self, name: &'static str, value: &'static str) {
        let stamp = self.1.fetch_add(1, Ordering::Relaxed);
        self.0.lock().insert(name, (stamp, value));
    }

    fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

#[async_trait]
impl Vault for Scripted {
    async fn fetch(&self, _: &TenantName, names: Vec<SecretName>) -> Result<Vec<SecretValue>, Error> {
        let secrets = self.0.lock();
        let value = |name: &SecretName| {
            let (stamp, value) = secrets.get(name.as_str()).ok_or_else(|| Error::not_found("secret", name))?;
            Ok(SecretValue { stamp: *stamp, value: SecretBytes::new(value.as_bytes().to_vec()) })
        };
        names.iter().map(value).collect()
    }

    async fn stamps(&self, keys: Vec<SecretKey>) -> Result<Vec<Option<u64>>, Error> {
        let secrets = self.0.lock();
        Ok(keys.iter().map(|key| secrets.get(key.name.as_str()).map(|(stamp, _)| *stamp)).collect())
    }
}

struct Place {
    _site: Site<Processes>,
    running: Running,
    vault: Arc<Scripted>,
    app: Arc<AppVersion>,
}

impl Place {
    /// An application whose function is given `key` as a variable, and which has `map` as a file.
    async fn new() -> Place {
        let site = Site::of_processes().await;
        let (vault, config): (Arc<Scripted>, Config) = (Arc::default(), config());
        let running = site.start_with(config).await;
        running.worker.fetch_secrets_of(vault.clone(), ());
        let mut app = site.program("web", PROGRAM).await;
        let mut function = (*app.function).clone();
        function.secrets =
            vec![SecretUse { name: "key".parse().expect("a name"), env: Some("API_KEY".into()), file: None }];
        (app.function, app.secrets) = (Arc::new(function), vec!["map".parse().expect("a name")]);
        Place { _site: site, running, vault, app: Arc::new(app) }
    }

    async fn open(&self, uid: &str, standing: u32) -> SessionReport {
        let mut open = session(&self.app, uid, standing);
        (open.timeout, open.reuse) = (Duration::from_secs(60), true);
        self.order(SessionCommand::Open(Box::new(open))).await;
        let is_settled = |session: &SessionReport| session.phase != SessionPhase::Starting;
        let opened = self.running.leader.session(uid, is_settled).await;
        assert_eq!(opened.phase, SessionPhase::Open, "{opened:?}");
        opened
    }

    async fn order(&self, command: SessionCommand) {
        self.running.leader.order(command).await.expect("it is stored");
    }

    async fn close(&self, uid: &str) {
        self.order(SessionCommand::Close(uid.into(), Duration::from_secs(30))).await;
        self.running.leader.session(uid, |session| session.phase == SessionPhase::Closed).await;
    }

    /// The one instance that stands.
    async fn standing(&self, but: Option<lyra_types::InstanceId>) -> lyra_types::InstanceId {
        let stands = |told: &crate::leader::Told| {
            let mut all = told.hosted.values();
            all.find(|of| of.state == InstanceState::Standby && Some(of.id) != but).map(|of| of.id)
        };
        let told = self.running.leader.until("one stands", |told| stands(told).is_some()).await;
        stands(&told).expect("it was just there")
    }
}

/// Waits until a program says what it is to say.
async fn until(address: SocketAddr, key: &str, map: &str, session: &str) {
    let expected = format!(r#"["{key}", "{map}", ["map"], false, "s-{session}"]"#);
    let said = async {
        let mut answer = String::new();
        while !answer.ends_with(&expected) {
            answer = get(address, "/").await.expect("an answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), said).await.unwrap_or_else(|_| panic!("never {expected}"));
}

#[tokio::test]
async fn an_instance_reads_its_secrets_and_sees_them_change() {
    let place = Place::new().await;
    place.vault.set("key", "open-sesame");
    place.vault.set("map", "forest");
    place.order(SessionCommand::Stand(place.app.clone(), 1)).await;
    let first = place.standing(None).await;
    let opened = place.open("a", 0).await;
    assert_eq!(opened.instance, Some(first), "the one that stood");
    let address = opened.endpoints[0].address;
    until(address, "open-sesame", "forest", "a").await;
    // A file changes under an open session; a configuration takes no secret away.
    place.vault.set("map", "desert");
    until(address, "open-sesame", "desert", "a").await;
    let (tenant, uid) = (place.app.key.tenant.clone(), place.app.key.uid.clone());
    let config = Arc::new(AppConfig { revision: 2, files: [("config/mode".to_owned(), "hard".to_owned())].into() });
    place.order(SessionCommand::Configure { tenant, uid, config }).await;
    place.vault.set("map", "swamp");
    until(address, "open-sesame", "swamp", "a").await;
    // A variable needs another instance: one that stands is replaced, one that has a session keeps it, and serves no other.
    place.order(SessionCommand::Stand(place.app.clone(), 1)).await;
    let second = place.standing(Some(first)).await;
    place.vault.set("key", "close-sesame");
    let third = place.standing(Some(second)).await;
    assert_ne!(third, first);
    until(address, "open-sesame", "swamp", "a").await;
    place.order(SessionCommand::Stand(place.app.clone(), 0)).await;
    place.close("a").await;
    place.running.leader.until("it serves no other", |told| told.hosted.is_empty()).await;
    let opened = place.open("b", 0).await;
    until(opened.endpoints[0].address, "close-sesame", "swamp", "b").await;
    place.close("b").await;
    place.running.stop().await;
}

#[tokio::test]
async fn a_session_waits_for_a_secret_that_is_missing() {
    let place = Place::new().await;
    place.vault.set("key", "open-sesame");
    let mut late = session(&place.app, "late", 0);
    late.timeout = Duration::from_secs(3);
    place.order(SessionCommand::Open(Box::new(late))).await;
    let late = place.running.leader.session("late", |session| session.phase == SessionPhase::Closed).await;
    let (end, why) = late.end.expect("it has ended");
    assert!(end == SessionEnd::OpenTimeout && why.contains("without their secrets") && why.contains("map"), "{why}");
    let (opened, ()) = tokio::join!(place.open("a", 0), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        place.vault.set("map", "forest");
    });
    let address = opened.endpoints[0].address;
    until(address, "open-sesame", "forest", "a").await;
    // Once it is deleted an open session keeps it, and nothing stands any more.
    place.order(SessionCommand::Stand(place.app.clone(), 1)).await;
    let standing = place.standing(None).await;
    place.vault.remove("map");
    place.running.leader.until("it is ended", |told| !told.hosted.contains_key(&standing)).await;
    until(address, "open-sesame", "forest", "a").await;
    place.vault.set("map", "desert");
    until(address, "open-sesame", "desert", "a").await;
    place.standing(Some(standing)).await;
    place.running.stop().await;
}
