//! [`NatsRuns`] keeps the promises, also over restarts of NATS and with several processes at once.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_store::runs::{Append, CreatedRun, NatsSettings, NewRunRecord};
use lyra_store::{NatsRuns, Runs, RunsError};
use lyra_testkit::engines::Nats as Server;
use lyra_types::workflow::RunStatus;

use super::{Subject, TTL, at, batch, bodies, end, everything, id, new, tenant};

struct Nats {
    server: Server,
    runs: Option<NatsRuns>,
    settings: NatsSettings,
}

fn settings(server: &Server) -> NatsSettings {
    let mut settings = NatsSettings::new(vec![server.address()]);
    // On a loaded machine a request can take long without anything being wrong.
    settings.deadline = Duration::from_secs(60);
    settings.bucket = "lyra-runs".to_owned();
    settings
}

async fn connect(settings: &NatsSettings) -> NatsRuns {
    NatsRuns::connect(settings).await.expect("NATS answers")
}

#[async_trait]
impl Subject for Nats {
    async fn start() -> Nats {
        let server = Server::start().await.expect("NATS starts");
        let settings = settings(&server);
        let runs = Some(connect(&settings).await);
        Nats { server, runs, settings }
    }

    fn runs(&self) -> &dyn Runs {
        self.runs.as_ref().expect("it is open")
    }

    async fn reopen(&mut self) {
        self.runs = None;
        self.runs = Some(connect(&self.settings).await);
    }

    async fn crash(&mut self) {
        self.server.kill().await.expect("it runs");
        self.server.restart().await.expect("it starts again");
    }
}

keeps_the_promises!(Nats);

/// Messages of a stream.
async fn messages(server: &Server, stream: &str) -> u64 {
    let streams = async_nats::jetstream::new(async_nats::connect(server.address()).await.unwrap());
    streams.get_stream(stream).await.unwrap().cached_info().state.messages
}

/// Waits until a process has heard of so many runs.
async fn heard(runs: &NatsRuns, wanted: usize) {
    while runs.list(tenant(), everything()).await.unwrap().len() != wanted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn processes_share_the_runs_and_the_newest_owner_alone_appends() {
    let server = Server::start().await.unwrap();
    let settings = settings(&server);
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    one.renew(1, at(1), TTL).await.unwrap();
    one.create(new("a", 1)).await.unwrap();
    one.append(batch("a", 1, 1)).await.unwrap();
    assert_eq!(two.create(new("a", 2)).await.unwrap(), CreatedRun::Known);
    assert_eq!(two.journal(tenant(), id("a")).await.unwrap().1, bodies(2), "at once, whatever it has heard");
    heard(&two, 1).await;
    assert!(two.take(2, at(5), false, 10).await.unwrap().is_empty(), "its owner lives");
    let taken = two.take(2, at(12), false, 10).await.unwrap();
    assert_eq!((taken.len(), taken[0].fence, taken[0].batches.len()), (1, 2, 2));
    // The first has not heard of it, and would write what it remembers.
    assert!(matches!(one.append(batch("a", 1, 2)).await, Err(RunsError::Fenced(_))));
    assert!(matches!(one.append(end("a", 1, 2)).await, Err(RunsError::Fenced(_))));
    two.append(end("a", 2, 2)).await.unwrap();
    let (record, _) = one.get(tenant(), id("a"), false).await.unwrap();
    assert_eq!(record.status, RunStatus::Succeeded, "what one has written the other reads");
}

#[tokio::test]
async fn of_two_processes_that_write_at_once_one_is_fenced_and_no_batch_is_lost_or_doubled() {
    let server = Server::start().await.unwrap();
    let settings = settings(&server);
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    for round in 0..10 {
        let name = format!("r{round}");
        one.create(new(&name, 1)).await.unwrap();
        heard(&two, round + 1).await;
        let first = async {
            let mut number = 1;
            loop {
                // It does something beside writing, too.
                one.memo(tenant(), [1; 32], at(1)).await.unwrap();
                match one.append(batch(&name, 1, number)).await {
                    Ok(()) => number += 1,
                    Err(RunsError::Fenced(_)) => return number,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let second = async {
            let taken = two.take(2, at(5), false, 10).await.unwrap().remove(0);
            let begun = taken.batches.len() as u64;
            for number in begun..begun + 3 {
                two.append(batch(&name, taken.fence, number)).await.unwrap();
            }
            two.append(end(&name, taken.fence, begun + 3)).await.unwrap();
            begun
        };
        let (written, begun) = tokio::join!(first, second);
        assert_eq!(written, begun, "the second begins where the first was stopped");
        assert_eq!(one.journal(tenant(), id(&name)).await.unwrap().1, bodies(begun + 4));
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled_while_nats_is_killed_again_and_again() {
    let mut server = Server::start().await.unwrap();
    let settings = settings(&server);
    let runs = connect(&settings).await;
    let working = async {
        for run in 0..20 {
            let name = format!("r{run}");
            assert_eq!(runs.create(new(&name, 1)).await.unwrap(), CreatedRun::New { fence: 1 });
            for number in 1..15 {
                // An answer that was lost is found out about, and never means a second batch.
                runs.append(batch(&name, 1, number)).await.expect("it is written once NATS is back");
            }
            runs.append(end(&name, 1, 15)).await.expect("ended");
        }
    };
    let killing = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.kill().await.unwrap();
            server.restart().await.unwrap();
        }
    };
    tokio::join!(working, killing);
    drop(runs);
    let runs = connect(&settings).await;
    assert_eq!(runs.counts().await.unwrap(), [0, 0, 20, 0, 0]);
    for run in 0..20 {
        assert_eq!(runs.journal(tenant(), id(&format!("r{run}"))).await.unwrap().1, bodies(16));
    }
}

/// The server is stopped, so that a request is given up by its caller and written after all, when the server goes on.
#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_repeated_and_there_once() {
    let server = Server::start().await.unwrap();
    let runs = connect(&settings(&server)).await;
    runs.create(new("a", 1)).await.unwrap();
    for number in 1..6 {
        server.signal("STOP").await.unwrap();
        let given_up = runs.append(batch("a", 1, number));
        tokio::time::timeout(Duration::from_millis(100), given_up).await.unwrap_err();
        server.signal("CONT").await.unwrap();
        runs.append(batch("a", 1, number)).await.unwrap();
    }
    runs.append(end("a", 1, 6)).await.unwrap();
    assert_eq!(runs.journal(tenant(), id("a")).await.unwrap().1, bodies(7));
}

#[tokio::test]
async fn a_run_whose_creation_was_given_up_in_the_middle_finds_an_owner() {
    let server = Server::start().await.unwrap();
    let runs = connect(&settings(&server)).await;
    // On a slow machine one may be given up before it was sent.
    let mut tries = 0..20;
    let name = loop {
        let name = format!("r{}", tries.next().expect("one of many is sent in time"));
        server.signal("STOP").await.unwrap();
        tokio::time::timeout(Duration::from_millis(200), runs.create(new(&name, 1))).await.unwrap_err();
        server.signal("CONT").await.unwrap();
        match runs.create(new(&name, 1)).await.unwrap() {
            CreatedRun::Known => break name,
            CreatedRun::New { fence } => runs.append(end(&name, fence, 1)).await.unwrap(),
        }
    };
    let taken = runs.take(1, at(2), false, 10).await.unwrap();
    assert_eq!((taken.len(), taken[0].fence), (1, 2), "though its owner lives");
    assert!(runs.take(1, at(2), false, 10).await.unwrap().is_empty());
    runs.append(end(&name, 2, 1)).await.unwrap();
}

#[tokio::test]
async fn others_go_on_hearing_of_runs_after_nats_was_killed() {
    let mut server = Server::start().await.unwrap();
    let settings = settings(&server);
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    one.create(new("a", 1)).await.unwrap();
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    one.create(new("b", 1)).await.unwrap();
    heard(&two, 2).await;
    one.append(end("a", 1, 1)).await.unwrap();
    assert_eq!(one.sweep(at(3), 10).await.unwrap(), 1);
    heard(&two, 1).await;
}

#[tokio::test]
async fn large_payloads_go_with_their_runs_and_kept_results() {
    let server = Server::start().await.unwrap();
    let runs = connect(&settings(&server)).await;
    let large = Bytes::from(vec![b'x'; 1_300 << 10]);
    runs.create(NewRunRecord { head: large.clone(), ..new("a", 1) }).await.unwrap();
    runs.append(Append { batch: large.clone(), ..batch("a", 1, 1) }).await.unwrap();
    runs.append(end("a", 1, 2)).await.unwrap();
    runs.keep_memo(tenant(), [1; 32], large.clone(), at(5)).await.unwrap();
    runs.keep_memo(tenant(), [1; 32], large.clone(), at(6)).await.unwrap();
    runs.renew(1, at(1), TTL).await.unwrap();
    // A second run of the id writes nothing.
    assert_eq!(runs.create(NewRunRecord { head: large, ..new("a", 1) }).await.unwrap(), CreatedRun::Known);
    assert_eq!(messages(&server, "RUNS_lyra-runs-data").await, 3 + 3 + 3 + 1 + 1);
    assert_eq!(messages(&server, "RUNS_lyra-runs").await, 3);
    assert_eq!(runs.sweep(at(20), 10).await.unwrap(), 1);
    assert_eq!(messages(&server, "RUNS_lyra-runs-data").await, 0);
    assert_eq!(messages(&server, "RUNS_lyra-runs").await, 1, "the mark");
}

#[tokio::test]
async fn a_damaged_journal_is_told_of_and_its_run_is_owned() {
    let server = Server::start().await.unwrap();
    let runs = connect(&settings(&server)).await;
    let large = Bytes::from(vec![b'x'; 64 << 10]);
    runs.create(new("a", 1)).await.unwrap();
    runs.create(new("b", 1)).await.unwrap();
    runs.append(Append { batch: large, ..batch("a", 1, 1) }).await.unwrap();
    let streams = async_nats::jetstream::new(async_nats::connect(server.address()).await.unwrap());
    streams.get_stream("RUNS_lyra-runs-data").await.unwrap().purge().await.unwrap();
    heard(&runs, 2).await;
    let mut taken = runs.take(2, at(60), false, 10).await.unwrap();
    taken.sort_by(|a, b| a.record.id.cmp(&b.record.id));
    let [damaged, whole] = &taken[..] else { panic!("both: {taken:?}") };
    assert!(damaged.damage.as_ref().is_some_and(|damage| damage.contains("missing")), "{damaged:?}");
    assert!(damaged.batches.is_empty());
    assert_eq!((whole.damage.as_ref(), whole.batches.len()), (None, 1));
    assert!(runs.take(2, at(61), false, 10).await.unwrap().is_empty(), "it has its owner, who knows");
    // What its owner says of it is written.
    runs.append(Append { number: 0, batch: Bytes::new(), ..end("a", damaged.fence, 2) }).await.unwrap();
    assert_eq!(runs.get(tenant(), id("a"), false).await.unwrap().0.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_in_time() {
    let mut settings = NatsSettings::new(vec!["127.0.0.1:1".into()]);
    settings.deadline = Duration::from_millis(500);
    assert!(NatsRuns::connect(&settings).await.is_err());
}
