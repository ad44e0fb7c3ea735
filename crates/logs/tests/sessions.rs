//! Lines of instances of applications: found by session, application and instance, beside the lines of calls.
#![expect(clippy::unwrap_used, reason = "a test that meets an error shall fail")]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::Clock;
use lyra_kit::telemetry::Metrics;
use lyra_logs::{Config, Service};
use lyra_types::log::{Hosted, Level, LogLine, SessionOf};
use lyra_types::{Code, FunctionName, InstanceId, InvocationId, TenantName};
use lyra_wire::Logs;
use lyra_wire::logs::Query;

fn called(function: &str, message: impl Into<String>) -> LogLine {
    LogLine {
        time: Clock::system().now(),
        level: Level::Info,
        message: message.into(),
        invocation: InvocationId::from_number(1),
        version: 3,
        instance: Some(InstanceId::from_number(1)),
        tenant: TenantName::default_tenant(),
        function: FunctionName::new(function).unwrap(),
        hosted: None,
    }
}

/// A line of the application `chat`; `session` is a name and an identity.
fn hosted(function: &str, instance: u128, session: Option<(&str, &str)>, message: impl Into<String>) -> LogLine {
    let session = session.map(|(name, uid)| SessionOf { name: name.to_owned(), uid: uid.to_owned() });
    LogLine {
        invocation: InvocationId::from_number(instance),
        instance: Some(InstanceId::from_number(instance)),
        hosted: Some(Arc::new(Hosted { application: "chat".to_owned(), session })),
        ..called(function, message)
    }
}

fn tenant() -> Query {
    Query::in_tenant(TenantName::default_tenant(), usize::MAX)
}

fn of_session(name: &str) -> Query {
    Query { session: Some(name.to_owned()), ..tenant() }
}

fn of_instance(instance: u128) -> Query {
    Query { instance: Some(InstanceId::from_number(instance)), ..tenant() }
}

fn started(config: Config) -> Service {
    let service = Service::open(config, Clock::system(), &Metrics::new()).unwrap();
    service.start().unwrap();
    service
}

async fn messages(service: &Service, query: Query) -> Vec<String> {
    service.query(query).await.unwrap().into_iter().map(|line| line.message).collect()
}

#[tokio::test]
async fn lines_are_found_by_session_application_and_instance_and_a_tenant_sees_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    let (first, again) = (Some(("room", "uid-1")), Some(("room", "uid-2")));
    let offered = [
        called("f", "call"),
        hosted("f", 7, None, "starts"),
        hosted("f", 7, first, "one"),
        hosted("f", 8, Some(("hall", "uid-3")), "two"),
        // The next version of the application runs another function.
        hosted("g", 9, again, "three"),
    ];
    let foreign = LogLine { tenant: TenantName::new("other").unwrap(), ..hosted("f", 7, first, "not ours") };
    for line in offered.iter().chain([&foreign]) {
        service.offer(line.clone());
    }
    assert_eq!(service.query(of_session("room")).await.unwrap(), [offered[2].clone(), offered[4].clone()]);
    let first = Query { session_uid: Some("uid-1".to_owned()), ..of_session("room") };
    assert_eq!(messages(&service, first).await, ["one"]);
    let chat = Query { application: Some("chat".to_owned()), ..tenant() };
    assert_eq!(messages(&service, chat.clone()).await, ["starts", "one", "two", "three"]);
    assert_eq!(messages(&service, Query { limit: 2, ..chat.clone() }).await, ["two", "three"]);
    assert_eq!(messages(&service, of_instance(7)).await, ["starts", "one"]);
    assert_eq!(messages(&service, of_instance(1)).await, ["call"]);
    assert_eq!(messages(&service, Query { application: Some("chat".to_owned()), ..of_instance(1) }).await, [""; 0]);
    let f = || Some(FunctionName::new("f").unwrap());
    assert_eq!(messages(&service, Query { function: f(), ..tenant() }).await, ["call", "starts", "one", "two"]);
    assert_eq!(messages(&service, Query { function: f(), ..of_session("room") }).await, ["one"]);
    assert_eq!(messages(&service, of_session("none")).await, [""; 0]);
    let other = Query { tenant: TenantName::new("other").unwrap(), ..of_session("room") };
    assert_eq!(messages(&service, other).await, ["not ours"]);
    let refused = service.query(tenant()).await.unwrap_err();
    assert_eq!(refused.code, Code::BadRequest, "{refused}");
    assert_eq!(service.follow(tenant()).await.map(drop).unwrap_err().code, Code::BadRequest);
}

#[tokio::test]
async fn a_follower_of_a_session_sees_its_lines_only_and_each_once() {
    const LINES: usize = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let service = Arc::new(started(Config::new(dir.path())));
    let room = Some(("room", "uid-1"));
    service.offer(hosted("f", 7, room, "0"));
    let by_session = service.follow(of_session("room")).await.unwrap();
    let by_instance = service.follow(of_instance(7)).await.unwrap();
    let by_application = service.follow(Query { application: Some("chat".to_owned()), ..tenant() }).await.unwrap();
    let writer = {
        let service = Arc::clone(&service);
        std::thread::spawn(move || {
            for i in 1..LINES {
                // Of two functions in turn: what is followed is more than one function's.
                service.offer(hosted(if i % 2 == 0 { "f" } else { "g" }, 7, room, i.to_string()));
                service.offer(hosted("f", 8, Some(("hall", "uid-2")), "of another session"));
                service.offer(called("f", "of a call"));
                if i % 64 == 0 {
                    std::thread::yield_now();
                }
            }
        })
    };
    let numbers: Vec<String> = (0..LINES).map(|i| i.to_string()).collect();
    for stream in [by_session, by_instance] {
        let seen: Vec<String> = stream.take(LINES).map(|line| line.unwrap().message).collect().await;
        assert_eq!(seen, numbers);
    }
    writer.join().unwrap();
    let seen: Vec<String> = by_application.take(2 * LINES - 1).map(|line| line.unwrap().message).collect().await;
    assert_eq!(seen.iter().filter(|message| **message != "of another session").count(), LINES);
    let mut quiet = service.follow(of_session("nobody")).await.unwrap();
    service.stop().await;
    assert!(quiet.next().await.is_none());
}

#[tokio::test]
async fn a_quiet_session_of_a_chatty_function_is_not_said_to_be_too_slow() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config { max_bytes: 256 << 10, ..Config::new(dir.path()) });
    service.offer(hosted("f", 7, Some(("quiet", "uid-1")), "first"));
    let mut stream = service.follow(of_session("quiet")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().message, "first");
    for i in 0..5_000 {
        service.offer(hosted("f", 8, Some(("chatty", "uid-2")), format!("{i} {}", "x".repeat(200))));
    }
    drop(service.query(Query { limit: 1, ..of_session("chatty") }).await.unwrap());
    service.offer(hosted("f", 7, Some(("quiet", "uid-1")), "second"));
    assert_eq!(stream.next().await.unwrap().unwrap().message, "second");
}

#[tokio::test]
async fn a_file_of_an_earlier_build_is_read_and_written_and_that_build_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let earlier = "
        CREATE TABLE sources (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, function TEXT NOT NULL,
            bytes INTEGER NOT NULL DEFAULT 0, trimmed INTEGER NOT NULL DEFAULT 0, UNIQUE (tenant, function)) STRICT;
        CREATE TABLE lines (seq INTEGER PRIMARY KEY, source INTEGER NOT NULL, time INTEGER NOT NULL,
            level INTEGER NOT NULL, invocation BLOB NOT NULL, version INTEGER NOT NULL, instance BLOB,
            message TEXT NOT NULL) STRICT;
        CREATE INDEX lines_by_source ON lines (source);
        CREATE INDEX lines_by_invocation ON lines (invocation);
        INSERT INTO sources (tenant, function, bytes) VALUES ('default', 'f', 131);
        INSERT INTO lines VALUES (unixepoch() * 1000 << 20, 1, unixepoch() * 1000, 1, zeroblob(16), 3, zeroblob(16), 'old');
        PRAGMA user_version = 1;";
    let file = || rusqlite::Connection::open(dir.path().join("logs.db")).unwrap();
    file().execute_batch(earlier).unwrap();
    for round in 1..=2 {
        let service = started(Config::new(dir.path()));
        service.offer(hosted("f", 7, Some(("room", "uid-1")), "new"));
        assert_eq!(messages(&service, of_session("room")).await, vec!["new"; round]);
        let f = Query { function: Some(FunctionName::new("f").unwrap()), ..tenant() };
        let lines = service.query(f).await.unwrap();
        assert_eq!((lines[0].message.as_str(), &lines[0].hosted), ("old", &None));
        assert_eq!(messages(&service, of_instance(0)).await, vec!["old"; 2 * round - 1]);
        service.stop().await;
        drop(service);
        assert!(!dir.path().join("logs.db.broken").exists());
        // As the earlier build writes a line.
        file()
            .execute_batch(
                "INSERT INTO lines (seq, source, time, level, invocation, version, instance, message)
                 SELECT max(seq) + 1, 1, 4102444800000, 1, zeroblob(16), 3, zeroblob(16), 'old' FROM lines;
                 INSERT INTO lines (seq, source, time, level, invocation, version, instance, message)
                 SELECT max(seq) + 1, 1, 4102444800000, 1, zeroblob(16), 3, zeroblob(16), 'old' FROM lines;",
            )
            .unwrap();
    }
}

#[tokio::test]
async fn what_names_take_is_counted_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let config = Config { max_age: Duration::from_secs(60), ..Config::new(dir.path()) };
    let service = Service::open(config.clone(), Clock::system(), &metrics).unwrap();
    service.start().unwrap();
    let old = Clock::system().now() - Duration::from_secs(61);
    for _ in 0..10 {
        service.offer(LogLine { time: old, ..hosted("f", 7, Some(("room", "uid-1")), "x") });
    }
    service.stop().await;
    // Text, `chat` and `room` twice, the identity once, and the row.
    assert!(
        metrics.render().contains(&format!("lyra_log_bytes {}", 10 * (1 + 8 + 8 + 5 + 128))),
        "{}",
        metrics.render()
    );
    let metrics = Metrics::new();
    let service = Service::open(config, Clock::system(), &metrics).unwrap();
    service.start().unwrap();
    service.offer(called("f", "new"));
    assert_eq!(messages(&service, of_session("room")).await, [""; 0]);
    service.stop().await;
    assert!(metrics.render().lines().any(|line| line == "lyra_log_bytes 131"), "{}", metrics.render());
}
