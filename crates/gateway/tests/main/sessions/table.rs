//! The table of sessions under change, and with control away.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use lyra_gateway::{Config, IngressConfig};
use lyra_types::TenantName;
use lyra_wire::sessions::SessionEvent;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{config, connect, metric, open, own_address, programs, rest, start, until};
use crate::client::{Gateway, OK};

#[tokio::test]
async fn what_was_known_last_holds_while_control_is_away() {
    let gateway = start(config()).await;
    let feed = &gateway.control.sessions;
    let (kept, lost) = (programs::http("kept").await, programs::http("lost").await);
    open(&gateway, "kept", kept.address, None);
    open(&gateway, "lost", lost.address, None);
    open(&gateway, "echo", programs::echo("echo:").await, Some(20_001));
    let mut stream = connect((own_address(0), 20_001).into(), "echo:").await;
    until("both are known", || async { gateway.get("/s/default/lost/").await.status == OK }).await;
    feed.go_away();
    feed.close("lost");
    let watches = feed.watches.load(Ordering::SeqCst);
    until("it was tried again", || async { feed.watches.load(Ordering::SeqCst) > watches + 1 }).await;
    assert_eq!(gateway.get("/s/default/kept/").await.text(), "kept");
    assert_eq!(gateway.get("/s/default/lost/").await.text(), "lost", "nobody has told");
    feed.come_back();
    until("it has learned", || async { gateway.get("/s/default/lost/").await.status == 404 }).await;
    assert_eq!(gateway.get("/s/default/kept/").await.text(), "kept");
    stream.write_all(b"still").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(stream).await, "still;5", "what goes on is not cut by a new watch");
}

#[tokio::test]
async fn a_gateway_that_does_not_know_its_sessions_yet_says_so() {
    let gateway = start(Config { route_wait: Duration::from_millis(20), ..config() }).await;
    gateway.control.sessions.go_away();
    let gateway =
        super::start_beside(&gateway.control, Config { route_wait: Duration::from_millis(20), ..config() }).await;
    assert_eq!(gateway.get("/s/default/room/").await.fault(), (503, "unavailable".to_owned()));
    gateway.control.sessions.come_back();
    until("it knows", || async { gateway.get("/s/default/room/").await.status == 404 }).await;
}

#[tokio::test]
async fn the_end_of_a_former_session_does_not_end_the_one_that_has_its_name() {
    let gateway = start(config()).await;
    let feed = &gateway.control.sessions;
    let (old, new) = (programs::http("old").await, programs::http("new").await);
    let route = |uid: &str, program: &programs::Program| {
        super::feed::route("room", uid, &[("", lyra_types::resources::Protocol::Tcp, program.address, None)])
    };
    feed.open(&route("u1", &old));
    until("it is known", || async { gateway.get("/s/default/room/").await.text() == "old" }).await;
    feed.open(&route("u2", &new));
    until("the new one is", || async { gateway.get("/s/default/room/").await.text() == "new" }).await;
    feed.close("u1");
    feed.tell(&SessionEvent::Remove(TenantName::default_tenant(), "u7".to_owned()));
    open(&gateway, "after", new.address, None);
    until("all was told", || async { gateway.get("/s/default/after/").await.status == OK }).await;
    assert_eq!(gateway.get("/s/default/room/").await.text(), "new");
    assert_eq!(metric(&gateway, "lyra_ingress_sessions").await, 2);
    feed.close("u2");
    until("it is over", || async { gateway.get("/s/default/room/").await.status == 404 }).await;
}

/// What answers at a port, if anything.
async fn name_at(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((own_address(0), port)).await.ok()?;
    drop(stream.shutdown().await);
    let all = rest(stream).await;
    all.strip_suffix(";0").map(str::to_owned)
}

async fn check(gateway: &Gateway, open: &BTreeMap<String, (u16, &str)>) {
    for number in 0..40u16 {
        let port = 21_000 + number;
        let expected = open.values().find(|(at, _)| *at == port).map(|(_, name)| (*name).to_owned());
        assert_eq!(name_at(port).await, expected, "port {port}");
    }
    assert_eq!(metric(gateway, "lyra_ingress_sessions").await, i64::try_from(open.len()).unwrap());
}

#[tokio::test]
async fn after_any_churn_the_table_is_what_control_says() {
    let gateway = start(config()).await;
    let feed = &gateway.control.sessions;
    let programs =
        [("a", programs::echo("a").await), ("b", programs::echo("b").await), ("c", programs::echo("c").await)];
    let mut open: BTreeMap<String, (u16, &str)> = BTreeMap::new();
    let random = lyra_kit::Random::seeded(7);
    let draw = |below: u64| random.u64() % below;
    for step in 0..4_000u32 {
        let port = 21_000 + u16::try_from(draw(40)).unwrap();
        let holder = open.iter().find(|(_, (at, _))| *at == port).map(|(uid, _)| uid.clone());
        match holder {
            Some(uid) => {
                feed.close(&uid);
                open.remove(&uid);
            }
            None => {
                let (name, address) = programs[usize::try_from(draw(3)).unwrap()];
                let uid = format!("s{step}");
                super::open(&gateway, &uid, address, Some(port));
                open.insert(uid, (port, name));
            }
        }
        if draw(1_000) == 0 {
            feed.go_away();
            feed.come_back();
        }
        if draw(50) == 0 {
            tokio::task::yield_now().await;
        }
    }
    let ports = i64::try_from(open.len()).unwrap();
    let program = programs::http("last").await;
    super::open(&gateway, "last", program.address, None);
    until("all was told", || async { gateway.get("/s/default/last/").await.status == OK }).await;
    feed.close("last");
    until("it is at rest", || async {
        metric(&gateway, "lyra_ingress_sessions").await == ports
            && metric(&gateway, "lyra_ingress_ports").await == ports
    })
    .await;
    check(&gateway, &open).await;
    for uid in open.keys() {
        feed.close(uid);
    }
    until("nothing is left", || async { metric(&gateway, "lyra_ingress_ports").await == 0 }).await;
    let changes = |kind: &'static str| {
        let gateway = &gateway;
        async move { metric(gateway, &format!("lyra_ingress_changes_total{{change=\"{kind}\"}}")).await }
    };
    assert_eq!(changes("open").await, changes("close").await);
    check(&gateway, &BTreeMap::new()).await;
}

#[tokio::test]
async fn hundreds_of_connections_stay_within_their_bounds_and_others_are_served() {
    let ingress = IngressConfig { max_session_connections: 50, ..config().ingress };
    let gateway = start(Config { ingress, ..config() }).await;
    open(&gateway, "victim", programs::echo("echo:").await, Some(20_001));
    open(&gateway, "other", programs::echo("other:").await, Some(20_002));
    drop(connect((own_address(0), 20_001).into(), "echo:").await);
    drop(connect((own_address(0), 20_002).into(), "other:").await);
    let flood = futures::stream::iter(0..400).map(|_| TcpStream::connect((own_address(0), 20_001)));
    let held: Vec<_> = flood.buffer_unordered(64).collect().await;
    until("the gateway has looked at all", || async {
        let served = metric(&gateway, "lyra_ingress_connections_total{kind=\"tcp\"}").await;
        served + metric(&gateway, "lyra_ingress_refused_total{reason=\"session_full\"}").await >= 402
    })
    .await;
    assert!(metric(&gateway, "lyra_ingress_connections{kind=\"tcp\"}").await <= 50);
    drop(connect((own_address(0), 20_002).into(), "other:").await);
    drop(held);
    until("all places are free", || async { metric(&gateway, "lyra_ingress_connections{kind=\"tcp\"}").await == 0 })
        .await;
    drop(connect((own_address(0), 20_001).into(), "echo:").await);
}
