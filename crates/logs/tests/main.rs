//! The log service as others see it: through its trait, over real files.
#![expect(clippy::unwrap_used, reason = "a test that meets an error shall fail")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::telemetry::Metrics;
use lyra_kit::{Clock, Ids, Random};
use lyra_logs::{Config, Service};
use lyra_types::log::{Level, LogLine};
use lyra_types::{Code, FunctionName, InvocationId, TenantName, Timestamp};
use lyra_wire::Logs;
use lyra_wire::logs::Query;

fn line(function: &str, message: impl Into<String>) -> LogLine {
    LogLine {
        time: Clock::system().now(),
        level: Level::Info,
        message: message.into(),
        invocation: InvocationId::from_parts(1, 1),
        version: 3,
        instance: None,
        tenant: TenantName::default_tenant(),
        function: FunctionName::new(function).unwrap(),
        hosted: None,
    }
}

fn all(function: &str) -> Query {
    Query::of(TenantName::default_tenant(), FunctionName::new(function).unwrap(), usize::MAX)
}

fn open(config: Config) -> (Service, Metrics) {
    let metrics = Metrics::new();
    let service = Service::open(config, Clock::system(), &metrics).unwrap();
    (service, metrics)
}

fn started(config: Config) -> Service {
    let (service, _) = open(config);
    service.start().unwrap();
    service
}

async fn messages(service: &Service, query: Query) -> Vec<String> {
    service.query(query).await.unwrap().into_iter().map(|line| line.message).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

#[tokio::test]
async fn a_query_has_every_line_offered_before_it_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    for round in 0..20usize {
        for i in 0..50usize {
            service.offer(line("f", (round * 50 + i).to_string()));
        }
        assert_eq!(messages(&service, all("f")).await, numbers(0..(round + 1) * 50));
    }
    let newest = Query { limit: 7, ..all("f") };
    assert_eq!(messages(&service, newest).await, numbers(993..1_000));
    assert_eq!(messages(&service, Query { limit: 0, ..all("f") }).await, numbers(0..0));
    assert_eq!(messages(&service, all("other")).await, numbers(0..0));
}

#[tokio::test]
async fn a_line_comes_back_as_it_was_offered() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    let ids = Ids::new(Clock::system(), Random::system());
    let offered = LogLine {
        level: Level::Error,
        message: "tab\t nul\0 quote' \u{1F600}".to_owned(),
        invocation: ids.invocation(),
        instance: Some(ids.instance()),
        ..line("f", "")
    };
    service.offer(offered.clone());
    assert_eq!(service.query(all("f")).await.unwrap(), vec![offered]);
}

#[tokio::test]
async fn invocation_since_function_and_tenant_narrow_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    let ids = Ids::new(Clock::system(), Random::system());
    let now = Clock::system().now();
    let (a, b) = (ids.invocation(), ids.invocation());
    for i in 0..100u64 {
        let time = now - Duration::from_secs(100 - i);
        let invocation = if i % 2 == 0 { a } else { b };
        service.offer(LogLine { time, invocation, ..line("f", i.to_string()) });
        service.offer(LogLine { time, invocation, ..line("g", "not f") });
        let tenant = TenantName::new("other").unwrap();
        service.offer(LogLine { time, invocation, tenant, ..line("f", "not ours") });
    }
    let since = Query { since: Some(now - Duration::from_secs(10)), ..all("f") };
    assert_eq!(messages(&service, since.clone()).await, numbers(90..100));
    let of_a = Query { invocation: Some(a), ..all("f") };
    assert_eq!(messages(&service, of_a).await.len(), 50);
    let both = Query { invocation: Some(b), limit: 2, ..since };
    assert_eq!(messages(&service, both).await, ["97", "99"]);
    let later = Query { since: Some(now + Duration::from_secs(60)), ..all("f") };
    assert_eq!(messages(&service, later).await, numbers(0..0));
}

#[tokio::test]
async fn lines_whose_clock_went_back_are_found_by_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    let now = Clock::system().now();
    service.offer(LogLine { time: now + Duration::from_secs(3_600), ..line("f", "ahead") });
    service.offer(LogLine { time: now, ..line("f", "back") });
    let since = Query { since: Some(now + Duration::from_secs(1)), ..all("f") };
    assert_eq!(messages(&service, since).await, ["ahead"]);
    assert_eq!(messages(&service, all("f")).await, ["ahead", "back"]);
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn what_a_query_has_shown_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let killed = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    for i in 0..500 {
        service.offer(line("f", i.to_string()));
    }
    assert_eq!(messages(&service, all("f")).await.len(), 500);
    // The files as a killed process leaves them: not closed, the newest lines only in the write-ahead log.
    copy(dir.path(), killed.path());
    let again = started(Config::new(killed.path()));
    again.offer(line("f", "500"));
    assert_eq!(messages(&again, all("f")).await, numbers(0..501));
}

#[tokio::test]
async fn a_stop_writes_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { batch_delay: Duration::from_secs(3_600), ..Config::new(dir.path()) };
    let service = started(config.clone());
    for i in 0..10 {
        service.offer(line("f", i.to_string()));
    }
    service.stop().await;
    service.offer(line("f", "too late"));
    let again = started(config);
    assert_eq!(messages(&again, all("f")).await, numbers(0..10));
}

#[tokio::test]
async fn a_torn_database_is_moved_aside_at_start() {
    for broken in [b"not a database at all, but longer than a header of one".repeat(200), vec![0xff; 4_096]] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("logs.db"), &broken).unwrap();
        let service = started(Config::new(dir.path()));
        service.offer(line("f", "1"));
        assert_eq!(messages(&service, all("f")).await, ["1"]);
        assert_eq!(std::fs::read(dir.path().join("logs.db.broken")).unwrap(), broken);
    }
}

#[tokio::test]
async fn a_database_found_broken_later_is_replaced_and_logging_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    for i in 0..2_000 {
        service.offer(line("f", format!("{i} {}", "x".repeat(100))));
    }
    assert_eq!(messages(&service, all("f")).await.len(), 2_000);
    service.stop().await;
    drop(service);
    // The first page, with the schema, stays; all others are torn.
    let path = dir.path().join("logs.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4_096..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let service = started(Config::new(dir.path()));
    // Whether the start, a read or a write finds it, lines are kept from then on.
    for _ in 0..3 {
        service.offer(line("f", "after"));
        drop(service.query(all("f")).await);
    }
    let lines = messages(&service, all("f")).await;
    assert!(!lines.is_empty() && lines.iter().all(|line| line == "after"), "{} lines", lines.len());
    assert!(dir.path().join("logs.db.broken").exists());
}

#[tokio::test]
async fn a_chatty_function_loses_its_own_oldest_lines_and_no_one_elses() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: 1 << 20, max_answer_lines: usize::MAX, ..Config::new(dir.path()) };
    let (service, metrics) = open(config);
    service.start().unwrap();
    for i in 0..100 {
        service.offer(line("quiet", i.to_string()));
    }
    let text = "x".repeat(900);
    for round in 0..20 {
        for i in 0..1_000 {
            service.offer(line("chatty", format!("{} {text}", round * 1_000 + i)));
        }
        drop(service.query(Query { limit: 1, ..all("chatty") }).await.unwrap());
    }
    assert_eq!(messages(&service, all("quiet")).await, numbers(0..100));
    let chatty = messages(&service, all("chatty")).await;
    let first: usize = chatty[0].split(' ').next().unwrap().parse().unwrap();
    assert_eq!(chatty.len(), 20_000 - first, "the newest are there, without holes");
    assert!(chatty.len() * 900 < 1 << 20);
    let size: u64 = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 24 << 20, "the files take {size} bytes for 20 MB written and 1 MiB kept");
    let gauge: u64 = metrics.render().lines().find_map(|l| l.strip_prefix("lyra_log_bytes ")?.parse().ok()).unwrap();
    assert!(gauge > 0 && gauge <= 1 << 20, "{gauge}");
}

#[tokio::test]
async fn lines_older_than_the_limit_are_gone_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_age: Duration::from_secs(60), ..Config::new(dir.path()) };
    let service = started(config.clone());
    let old = Clock::system().now() - Duration::from_secs(61);
    for i in 0..10_000 {
        service.offer(LogLine { time: old, ..line("f", i.to_string()) });
    }
    service.stop().await;
    let (service, metrics) = open(config);
    service.start().unwrap();
    service.offer(line("f", "new"));
    assert_eq!(messages(&service, all("f")).await, ["new"]);
    service.stop().await;
    assert!(metrics.render().contains("lyra_log_bytes 131"), "{}", metrics.render());
}

#[tokio::test]
async fn a_full_queue_drops_counts_and_tells() {
    let dir = tempfile::tempdir().unwrap();
    let (service, metrics) = open(Config { queue_lines: 100, ..Config::new(dir.path()) });
    // Not started: nothing is written, and yet no offer waits.
    for i in 0..1_000 {
        service.offer(line("f", i.to_string()));
    }
    service.start().unwrap();
    let lines = messages(&service, all("f")).await;
    assert_eq!(lines[..50], numbers(0..50)[..]);
    assert!(lines[50].contains("950 log lines were dropped"), "{lines:?}");
    assert!(metrics.render().contains("lyra_log_lines_total{result=\"dropped\"} 950"));
}

#[tokio::test]
async fn a_follower_sees_the_backlog_then_every_line_once_under_churn() {
    const LINES: usize = 4_000;
    let dir = tempfile::tempdir().unwrap();
    let service = Arc::new(started(Config { max_answer_lines: 3 * LINES, ..Config::new(dir.path()) }));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let service = Arc::clone(&service);
            std::thread::spawn(move || {
                for i in 0..LINES {
                    service.offer(line("f", format!("{writer} {i}")));
                    service.offer(line("noise", "noise"));
                    if i % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    // Streams begin at any moment of the churn, and each must be whole.
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(service.follow(all("f")).await.unwrap());
        tokio::task::yield_now().await;
    }
    for stream in &mut streams {
        let mut next: BTreeMap<String, usize> = BTreeMap::new();
        let mut seen = 0;
        while seen < 3 * LINES {
            let line = stream.next().await.unwrap().unwrap();
            let (writer, number) = line.message.split_once(' ').unwrap();
            let expected = next.entry(writer.to_owned()).or_default();
            assert_eq!(number.parse::<usize>().unwrap(), *expected, "writer {writer}");
            *expected += 1;
            seen += 1;
        }
    }
    for writer in writers {
        writer.join().unwrap();
    }
    service.stop().await;
    for mut stream in streams {
        assert!(stream.next().await.is_none(), "nothing comes twice, and a stop ends the stream");
    }
}

#[tokio::test]
async fn a_follower_of_one_call_sees_only_its_lines_and_only_the_newest_of_the_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    let mine = InvocationId::from_parts(5, 5);
    let offer = |i: usize| {
        service.offer(LogLine { invocation: mine, ..line("f", i.to_string()) });
        service.offer(line("f", "of another call"));
    };
    (0..10).for_each(offer);
    let stream = service.follow(Query { invocation: Some(mine), limit: 3, ..all("f") }).await.unwrap();
    (10..1_500).for_each(offer);
    let seen: Vec<String> = stream.take(1_493).map(|line| line.unwrap().message).collect().await;
    assert_eq!(seen, numbers(7..1_500));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config { max_bytes: 256 << 10, ..Config::new(dir.path()) });
    service.offer(line("f", "first"));
    let mut stream = service.follow(all("f")).await.unwrap();
    for i in 0..5_000 {
        service.offer(line("f", format!("{i} {}", "x".repeat(200))));
    }
    drop(service.query(Query { limit: 1, ..all("f") }).await.unwrap());
    assert_eq!(stream.next().await.unwrap().unwrap().message, "first");
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::LimitReached);
    assert!(error.detail.contains("too slow"), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_forgotten_function_has_no_lines_and_its_streams_end() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config::new(dir.path()));
    service.offer(line("f", "old"));
    service.offer(line("g", "stays"));
    let mut stream = service.follow(all("f")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().message, "old");
    service.offer(line("f", "offered before"));
    let function = FunctionName::new("f").unwrap();
    service.forget(&TenantName::default_tenant(), &function).await.unwrap();
    while stream.next().await.is_some() {}
    assert_eq!(messages(&service, all("f")).await, numbers(0..0));
    assert_eq!(messages(&service, all("g")).await, ["stays"]);
    service.offer(line("f", "new"));
    assert_eq!(messages(&service, all("f")).await, ["new"]);
}

#[tokio::test]
async fn followers_are_bounded_and_leave_their_place_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let service = started(Config { max_followers: 2, ..Config::new(dir.path()) });
    let first = service.follow(all("f")).await.unwrap();
    let _second = service.follow(all("g")).await.unwrap();
    let refused = service.follow(all("f")).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    drop(first);
    assert!(service.follow(all("h")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn virtual_time_does_not_run_out_while_lines_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(Timestamp::from_millis(1_700_000_000_000));
    let service = Service::open(Config::new(dir.path()), clock, &Metrics::new()).unwrap();
    service.start().unwrap();
    for i in 0..1_000 {
        service.offer(LogLine { time: Timestamp::from_millis(1_700_000_000_000), ..line("f", i.to_string()) });
    }
    assert_eq!(messages(&service, all("f")).await, numbers(0..1_000));
}
