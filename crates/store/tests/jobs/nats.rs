//! [`NatsJobs`] keeps the promises, also over restarts of NATS and with several processes at once.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::Clock;
use lyra_store::jobs::{
    Changed, Filter, Held, Idempotency, LeaseRequest, LeasedJob, NatsSettings, NewJob, Outcome, Retention,
};
use lyra_store::{Jobs, NatsJobs};
use lyra_testkit::engines::Nats as Server;
use lyra_types::Error;
use lyra_types::job::JobStatus;
use tokio::sync::broadcast;

use super::{Subject, TTL, at, new, request, tenant};

struct Nats {
    server: Server,
    jobs: Option<NatsJobs>,
    settings: NatsSettings,
    stores: u32,
}

fn settings(server: &Server) -> NatsSettings {
    let mut settings = NatsSettings::new(vec![server.address()]);
    // On a loaded machine a request can take long without anything being wrong.
    settings.deadline = Duration::from_secs(60);
    settings
}

async fn connect(settings: &NatsSettings) -> NatsJobs {
    NatsJobs::connect(settings).await.expect("NATS answers")
}

#[async_trait]
impl Subject for Nats {
    async fn start() -> Nats {
        let server = Server::start().await.expect("NATS starts");
        let settings = settings(&server);
        let jobs = Some(connect(&settings).await);
        Nats { server, jobs, settings, stores: 0 }
    }

    fn jobs(&self) -> &dyn Jobs {
        self.jobs.as_ref().expect("it is open")
    }

    async fn reopen(&mut self) {
        self.jobs = None;
        self.jobs = Some(connect(&self.settings).await);
    }

    async fn crash(&mut self) {
        self.server.kill().await.expect("it runs");
        self.server.restart().await.expect("it starts again");
    }

    async fn renew(&mut self) {
        self.stores += 1;
        self.settings.bucket = format!("case-{}", self.stores);
        self.reopen().await;
    }

    async fn payloads(&self) -> usize {
        // Small ones stand in the records.
        self.jobs().list(tenant(), Filter { limit: 100, ..Filter::default() }).await.expect("listed").len()
    }
}

keeps_the_promises!(Nats, 64);

#[tokio::test]
async fn processes_share_the_jobs_and_each_is_leased_once() {
    let server = Server::start().await.unwrap();
    let settings = settings(&server);
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    for number in 0..40 {
        one.accept(new("f", number)).await.unwrap();
    }
    known(&two, JobStatus::Queued, 40).await;
    // In a race one may win each time: that both have a part is seen without one.
    let theirs = two.lease(request(2, at(100), 8)).await.unwrap().jobs;
    assert_eq!(theirs.len(), 8, "what another accepted");
    for job in &theirs {
        two.finish(job.lease(), at(101), Outcome::Succeeded(Bytes::new())).await.unwrap();
    }
    let mut leased: BTreeSet<_> = theirs.iter().map(|job| job.job.id).collect();
    while leased.len() < 40 {
        let (first, second) = tokio::join!(one.lease(request(1, at(100), 8)), two.lease(request(2, at(100), 8)));
        for job in first.unwrap().jobs.into_iter().chain(second.unwrap().jobs) {
            assert!(leased.insert(job.job.id), "leased twice");
            two.finish(job.lease(), at(101), Outcome::Succeeded(Bytes::new())).await.unwrap();
        }
    }
    let job = one.get(tenant(), new("f", 0).id, false).await.unwrap().0;
    assert_eq!(job.status, JobStatus::Succeeded, "what one has written the other reads");
}

#[tokio::test]
async fn processes_that_make_the_streams_at_the_same_time_all_get_them() {
    let server = Server::start().await.unwrap();
    for round in 0..5 {
        let settings = NatsSettings { bucket: format!("new-{round}"), ..settings(&server) };
        futures::future::join_all((0..6).map(|_| connect(&settings))).await;
    }
}

/// A process whose clock shows another time than the machine's.
async fn with_clock(settings: &NatsSettings, clock: Clock) -> (NatsJobs, Clock) {
    let settings = NatsSettings { clock: clock.clone(), ..settings.clone() };
    (connect(&settings).await, clock)
}

/// Waits until this process knows of so many jobs in this status.
async fn known(jobs: &NatsJobs, status: JobStatus, count: usize) {
    let filter = || Filter { status: Some(status), limit: 100, ..Filter::default() };
    while jobs.list(tenant(), filter()).await.unwrap().len() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The second process takes what both handed in, gives it back, the first takes it; and the second, which leads, sees that it is held.
async fn hand_over((one, first): &(NatsJobs, Clock), (two, second): &(NatsJobs, Clock), number: u32) {
    let (mine, theirs) = (new("mine", number), new("theirs", number + 1));
    one.accept(NewJob { now: first.now(), ..mine }).await.unwrap();
    two.accept(NewJob { now: second.now(), ..theirs }).await.unwrap();
    known(two, JobStatus::Queued, 2).await;
    let leased = two.lease(request(2, second.now(), 8)).await.unwrap().jobs;
    assert_eq!(leased.len(), 2, "what was handed in by another clock is due, too");
    for job in &leased {
        let outcome = Outcome::Released { run_at: second.now(), error: None };
        two.finish(job.lease(), second.now(), outcome).await.unwrap();
    }
    let mut held = Vec::new();
    while held.len() < 2 {
        held.extend(one.lease(request(1, first.now(), 8)).await.unwrap().jobs);
    }
    known(two, JobStatus::Running, 2).await;
    let leased = two.lease(request(2, second.now(), 8)).await.unwrap();
    assert!(leased.jobs.is_empty() && leased.ended.is_empty(), "their leases hold");
    let beats = held.iter().map(LeasedJob::lease).collect();
    let beats = one.heartbeat(1, beats, first.now(), TTL).await.unwrap();
    assert_eq!(beats, [Held::Yes, Held::Yes]);
    // One is tried again later: not before its time, whose clock ever says so.
    let [first_job, second_job] = &held[..] else { panic!("two are held") };
    one.finish(first_job.lease(), first.now(), Outcome::Succeeded(Bytes::new())).await.unwrap();
    let later = Outcome::Retry { run_at: first.now() + Duration::from_secs(60), error: Error::internal("try later") };
    one.finish(second_job.lease(), first.now(), later).await.unwrap();
    let queued = || Filter { status: Some(JobStatus::Queued), limit: 9, ..Filter::default() };
    while two.list(tenant(), queued()).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let leased = two.lease(request(2, second.now(), 8)).await.unwrap();
    assert!(leased.jobs.is_empty(), "its time has not come");
    let wait = leased.next.expect("one waits").since(second.now());
    assert!(wait <= Duration::from_secs(61), "it waits for as long as was said: {wait:?}");
    two.cancel(tenant(), second_job.job.id, second.now()).await.unwrap();
}

/// Processes whose clocks show times that lie minutes apart.
#[tokio::test]
async fn clocks_that_differ_hold_up_no_job_and_end_no_lease() {
    let server = Server::start().await.unwrap();
    let settings = settings(&server);
    let (now, apart) = (Clock::system().now(), Duration::from_secs(300));
    let ahead = with_clock(&settings, Clock::simulated(now + apart)).await;
    let behind = with_clock(&settings, Clock::simulated(now - apart)).await;
    hand_over(&ahead, &behind, 1).await;
    hand_over(&behind, &ahead, 3).await;
}

#[tokio::test]
async fn concurrent_uses_of_a_key_by_several_processes_make_one_job() {
    let server = Server::start().await.unwrap();
    let settings = settings(&server);
    let processes = [connect(&settings).await, connect(&settings).await, connect(&settings).await];
    let accepts = (0..30u32).map(|number| {
        let idempotency = Idempotency { key: "k".into(), request: [1; 32], expires_at: at(1_000) };
        processes[number as usize % 3].accept(NewJob { idempotency: Some(idempotency), ..new("f", number) })
    });
    let accepted = futures::future::try_join_all(accepts).await.unwrap();
    assert_eq!(accepted.iter().filter(|accepted| accepted.created).count(), 1);
    assert!(accepted.iter().all(|other| other.id == accepted[0].id));
    for process in &processes {
        assert_eq!(process.get(tenant(), accepted[0].id, false).await.unwrap().0.id, accepted[0].id);
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_while_nats_is_killed_again_and_again() {
    let mut server = Server::start().await.unwrap();
    let settings = settings(&server);
    let jobs = connect(&settings).await;
    let working = async {
        for number in 0..300 {
            let accepted = jobs.accept(new("f", number)).await.expect("it is accepted once NATS is back");
            assert!(accepted.created);
            let mut leased = jobs.lease(request(1, at(1_000), 1)).await.expect("leased");
            let job = leased.jobs.pop().expect("one is due");
            assert_eq!(job.job.id, accepted.id, "the oldest, and the only one");
            let ended = jobs.finish(job.lease(), at(1_000), Outcome::Succeeded(Bytes::new())).await;
            assert_eq!(ended.expect("recorded").status, JobStatus::Succeeded);
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
    drop(jobs);
    let jobs = connect(&settings).await;
    let listed = jobs.list(tenant(), Filter { limit: 1_000, ..Filter::default() }).await.unwrap();
    assert_eq!(listed.len(), 300);
    assert!(listed.iter().all(|job| job.status == JobStatus::Succeeded && job.attempts == 1));
}

#[tokio::test]
async fn others_go_on_hearing_of_jobs_after_nats_was_killed() {
    let mut server = Server::start().await.unwrap();
    let settings = settings(&server);
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    one.accept(new("f", 1)).await.unwrap();
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    one.accept(new("f", 2)).await.unwrap();
    loop {
        let heard = two.list(tenant(), Filter { limit: 10, ..Filter::default() }).await.unwrap();
        if heard.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a change is told that is as `wanted`; a process may be told of its own, too.
async fn told(others: &mut broadcast::Receiver<Changed>, wanted: impl Fn(&Changed) -> bool) {
    while !wanted(&others.recv().await.unwrap()) {}
}

#[tokio::test]
async fn changes_by_another_process_are_told() {
    let server = Server::start().await.unwrap();
    let settings = settings(&server);
    let (one, two) = (connect(&settings).await, connect(&settings).await);
    let (mut by_two, mut by_one) = (one.others().unwrap(), two.others().unwrap());
    let id = new("f", 1).id;
    one.accept(new("f", 1)).await.unwrap();
    told(&mut by_one, |job| job.id == id && job.status == JobStatus::Queued).await;
    let leased = two.lease(request(2, at(5), 1)).await.unwrap().jobs.remove(0);
    told(&mut by_two, |job| job.status == JobStatus::Running).await;
    one.cancel(tenant(), id, at(6)).await.unwrap();
    told(&mut by_one, |job| job.cancel_requested).await;
    let retry = Outcome::Retry { run_at: at(9), error: lyra_types::Error::internal("no") };
    two.finish(leased.lease(), at(7), retry).await.unwrap();
    told(&mut by_two, |job| job.status == JobStatus::Cancelled).await;
}

#[tokio::test]
async fn a_server_without_jetstream_or_none_at_all_is_an_error_in_time() {
    let mut settings = NatsSettings::new(vec!["127.0.0.1:1".into()]);
    settings.deadline = Duration::from_millis(500);
    assert!(NatsJobs::connect(&settings).await.is_err());
}

#[tokio::test]
async fn large_payloads_and_keys_go_with_their_jobs() {
    let server = Server::start().await.unwrap();
    let settings = settings(&server);
    let jobs = connect(&settings).await;
    let large = Bytes::from(vec![b'x'; 1_300 << 10]);
    let idempotency = Some(Idempotency { key: "k".into(), request: [1; 32], expires_at: at(5_000) });
    jobs.accept(NewJob { event: large.clone(), idempotency, ..new("f", 1) }).await.unwrap();
    let leased = jobs.lease(LeaseRequest { max_bytes: 8 << 20, ..request(1, at(5), 1) }).await.unwrap().jobs.remove(0);
    assert_eq!(leased.event, large);
    jobs.finish(leased.lease(), at(6), Outcome::Succeeded(large.clone())).await.unwrap();
    assert_eq!(jobs.get(tenant(), leased.job.id, true).await.unwrap().1, Some(large));
    let streams = async_nats::jetstream::new(async_nats::connect(server.address()).await.unwrap());
    let parts = async || {
        let data = streams.get_stream("KV_lyra-jobs-data").await.unwrap();
        data.cached_info().state.messages
    };
    assert_eq!(parts().await, 3, "of the result alone");
    let retention = Retention { finished_before: at(7), dead_before: at(7), now: at(7), limit: 10 };
    assert_eq!(jobs.sweep(retention).await.unwrap(), 1);
    assert_eq!(parts().await, 0);
    assert!(
        jobs.accept(NewJob {
            idempotency: Some(Idempotency { key: "k".into(), request: [2; 32], expires_at: at(9) }),
            ..new("f", 2)
        })
        .await
        .unwrap()
        .created
    );
}
