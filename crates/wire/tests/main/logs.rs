//! Lines of several control processes, as a gateway reads them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_kit::Tasks;
use lyra_types::log::{Level, LogLine};
use lyra_types::{Code, FunctionName, InvocationId, Result, TenantName, Timestamp};
use lyra_wire::Logs;
use lyra_wire::grpc::{self, RemoteLogs, Security};
use lyra_wire::logs::Query;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Has lines, and a stream that goes on without any more. It knows nothing of what narrows a query, as an older build.
#[derive(Default)]
struct Kept(Mutex<Vec<LogLine>>);

#[async_trait]
impl Logs for Kept {
    fn offer(&self, line: LogLine) {
        self.0.lock().push(line);
    }
    async fn query(&self, _: Query) -> Result<Vec<LogLine>> {
        Ok(self.0.lock().clone())
    }
    async fn follow(&self, _: Query) -> Result<BoxStream<'static, Result<LogLine>>> {
        let lines: Vec<_> = self.0.lock().iter().cloned().map(Ok).collect();
        Ok(futures::stream::iter(lines).chain(futures::stream::pending()).boxed())
    }
    async fn forget(&self, _: &TenantName, _: &FunctionName) -> Result<()> {
        Ok(())
    }
}

fn line(function: &str, message: &str) -> LogLine {
    LogLine {
        time: Timestamp::from_millis(1),
        level: Level::Info,
        message: message.to_owned(),
        invocation: InvocationId::from_number(1),
        version: 1,
        instance: None,
        tenant: TenantName::default_tenant(),
        function: FunctionName::new(function).unwrap(),
        hosted: None,
    }
}

fn query() -> Query {
    Query::of(TenantName::default_tenant(), FunctionName::new("f").unwrap(), 100)
}

/// A process that has one line of `f`, which says so.
fn process(address: &str, message: &str) -> (Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let kept = Arc::new(Kept::default());
    kept.offer(line("f", message));
    kept.offer(line("g", "of another function"));
    let mut routes = grpc::routes();
    grpc::add_logs(&mut routes, kept);
    let _within = runtime.enter();
    let listener = TcpListener::from_std(listener).unwrap();
    lyra_kit::tasks::spawn("server", async move {
        grpc::serve(listener, routes, &Security::Plain, CancellationToken::new()).await.unwrap();
    });
    (runtime, address)
}

/// The messages of the lines that come at once.
async fn backlog(stream: &mut BoxStream<'static, Result<LogLine>>, lines: usize) -> Vec<String> {
    let mut messages: Vec<String> = stream.take(lines).map(|line| line.unwrap().message).collect().await;
    messages.sort();
    messages
}

#[tokio::test]
async fn a_process_that_goes_or_comes_ends_the_stream_so_that_all_are_asked_anew() {
    let (one, first) = process("127.0.0.1:0", "one");
    let (two, second) = process("127.0.0.1:0", "two");
    let tasks = Tasks::new();
    let logs = RemoteLogs::new(&[first, second.clone()], &Security::Plain, &tasks).unwrap();
    let mut both = logs.follow(query()).await.unwrap();
    assert_eq!(backlog(&mut both, 2).await, ["one", "two"]);
    assert!(tokio::time::timeout(Duration::from_millis(200), both.next()).await.is_err(), "it goes on");

    two.shutdown_background();
    let limit = Duration::from_secs(30);
    let rest: Vec<_> = tokio::time::timeout(limit, both.collect()).await.expect("it ends");
    assert!(rest.iter().all(|item| item.as_ref().is_err_and(|error| error.code == Code::Unavailable)), "{rest:?}");

    let mut one_alone = logs.follow(query()).await.unwrap();
    assert_eq!(backlog(&mut one_alone, 1).await, ["one"]);
    let (two, _) = process(&second, "two");
    let rest: Vec<_> = tokio::time::timeout(limit, one_alone.collect()).await.expect("it ends");
    assert!(rest.is_empty(), "{rest:?}");
    let mut both = logs.follow(query()).await.unwrap();
    assert_eq!(backlog(&mut both, 2).await, ["one", "two"]);

    let narrowed = Query { application: Some("chat".to_owned()), ..query() };
    assert_eq!(logs.query(narrowed).await.unwrap(), [], "what was not asked for is not shown");
    assert_eq!(logs.query(query()).await.unwrap().len(), 2);
    one.shutdown_background();
    two.shutdown_background();
}
