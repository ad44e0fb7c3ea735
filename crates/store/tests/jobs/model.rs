//! Random interleavings of everything that can happen to jobs, held against a model: a job ends exactly once, a
//! stale lease never wins, no job is lost, no job has more tries than it may.

use std::collections::BTreeMap;

use lyra_types::job::JobStatus;
use lyra_types::{Code, Error};
use proptest::prelude::*;

use super::*;
use lyra_store::jobs::{Filter, Held, Jobs, JobsError, Lease, Outcome};

#[derive(Debug, Clone)]
enum Step {
    Accept {
        max_attempts: u32,
    },
    Lease {
        owner: u64,
        limit: u32,
    },
    /// The step's number picks one of the leases that were ever given.
    Heartbeat(usize),
    Succeed(usize),
    Fail(usize),
    Retry(usize, i64),
    Release(usize),
    Cancel(usize),
    Redrive(usize),
    Pass(i64),
    /// The process dies: the store is opened anew and a new owner ends the old ones' leases.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u32..4).prop_map(|max_attempts| Step::Accept { max_attempts }),
        4 => (0u64..2, 1u32..4).prop_map(|(owner, limit)| Step::Lease { owner, limit }),
        1 => any::<usize>().prop_map(Step::Heartbeat),
        2 => any::<usize>().prop_map(Step::Succeed),
        1 => any::<usize>().prop_map(Step::Fail),
        2 => (any::<usize>(), 0i64..20).prop_map(|(lease, wait)| Step::Retry(lease, wait)),
        1 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Redrive),
        2 => (1i64..40).prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ]
}

/// What the model knows of a job.
#[derive(Debug, Clone)]
struct Known {
    status: JobStatus,
    attempts: u32,
    max_attempts: u32,
    run_at: Timestamp,
    /// Of the newest lease: its fence, its owner, its end.
    fence: u64,
    owner: u64,
    until: Timestamp,
    cancel: bool,
}

struct World<S> {
    subject: S,
    now: Timestamp,
    model: BTreeMap<JobId, Known>,
    leases: Vec<(u64, Lease)>,
    /// Owners of the two processes that lease; new ones after a crash.
    owners: [u64; 2],
    accepted: u32,
}

impl<S: Subject> World<S> {
    fn new(subject: S) -> World<S> {
        World { subject, now: at(1_000), model: BTreeMap::new(), leases: Vec::new(), owners: [1, 2], accepted: 0 }
    }

    fn jobs(&self) -> &dyn Jobs {
        self.subject.jobs()
    }

    fn lose(&mut self, lost: impl Fn(&Known) -> bool) {
        for known in self.model.values_mut().filter(|known| known.status == JobStatus::Running && lost(known)) {
            known.status = match (known.cancel, known.attempts < known.max_attempts, known.max_attempts) {
                (true, ..) => JobStatus::Cancelled,
                (_, true, _) => JobStatus::Queued,
                (_, _, 1) => JobStatus::Failed,
                _ => JobStatus::Dead,
            };
            known.cancel = false;
            known.run_at = self.now;
        }
    }

    async fn apply(&mut self, step: Step) {
        match step {
            Step::Accept { max_attempts } => self.accept(max_attempts).await,
            Step::Lease { owner, limit } => self.lease(self.owners[usize::try_from(owner).unwrap()], limit).await,
            Step::Heartbeat(pick) => self.heartbeat(pick).await,
            Step::Succeed(pick) => self.finish(pick, Outcome::Succeeded(Bytes::from_static(b"r"))).await,
            Step::Fail(pick) => self.finish(pick, Outcome::Ended(JobStatus::Dead, error())).await,
            Step::Retry(pick, wait) => {
                let run_at = self.now + Duration::from_secs(wait.unsigned_abs());
                self.finish(pick, Outcome::Retry { run_at, error: error() }).await;
            }
            Step::Release(pick) => self.finish(pick, Outcome::Released { run_at: self.now, error: None }).await,
            Step::Cancel(pick) => self.cancel(pick).await,
            Step::Redrive(pick) => self.redrive(pick).await,
            Step::Pass(seconds) => self.now = self.now + Duration::from_secs(seconds.unsigned_abs()),
            Step::Crash => {
                self.subject.reopen().await;
                self.owners = self.owners.map(|owner| owner + 2);
                self.lose(|_| true);
                for gone in self.jobs().owners().await.unwrap() {
                    self.jobs().recover(gone, self.now, 1_000).await.unwrap();
                }
            }
        }
    }

    async fn accept(&mut self, max_attempts: u32) {
        self.accepted += 1;
        let function = ["f", "g", "h"][self.accepted as usize % 3];
        let job = NewJob { max_attempts, now: self.now, ..new(function, self.accepted) };
        self.jobs().accept(job.clone()).await.unwrap();
        let known = Known {
            status: JobStatus::Queued,
            attempts: 0,
            max_attempts,
            run_at: self.now,
            fence: 0,
            owner: 0,
            until: self.now,
            cancel: false,
        };
        self.model.insert(job.id, known);
    }

    async fn lease(&mut self, owner: u64, limit: u32) {
        let leased = self.jobs().lease(request(owner, self.now, limit)).await.unwrap();
        let now = self.now;
        self.lose(|known| known.until <= now);
        let due = self.model.values().filter(|known| known.status == JobStatus::Queued && known.run_at <= now).count();
        assert_eq!(leased.jobs.len(), due.min(limit as usize), "as many as are due and asked for");
        for leased in leased.jobs {
            let known = self.model.get_mut(&leased.job.id).expect("only accepted jobs are leased");
            assert_eq!(known.status, JobStatus::Queued, "nothing that runs or has ended is leased");
            assert!(known.run_at <= now);
            known.status = JobStatus::Running;
            known.attempts += 1;
            known.fence += 1;
            known.owner = owner;
            known.until = now + TTL;
            assert_eq!((leased.job.attempts, leased.fence), (known.attempts, known.fence));
            assert!(known.attempts <= known.max_attempts);
            self.leases.push((owner, leased.lease()));
        }
    }

    fn pick(&self, pick: usize) -> Option<(u64, Lease)> {
        (!self.leases.is_empty()).then(|| self.leases[pick % self.leases.len()].clone())
    }

    fn pick_job(&self, pick: usize) -> Option<JobId> {
        (!self.model.is_empty()).then(|| *self.model.keys().nth(pick % self.model.len()).unwrap())
    }

    async fn heartbeat(&mut self, pick: usize) {
        let Some((owner, lease)) = self.pick(pick) else { return };
        let held = self.jobs().heartbeat(owner, vec![lease.clone()], self.now, TTL).await.unwrap()[0];
        let until = self.now + TTL;
        let known = self.model.get_mut(&lease.id).unwrap();
        let ours = known.status == JobStatus::Running && known.fence == lease.fence;
        let expected = match (ours, known.cancel) {
            (false, _) => Held::No,
            (true, true) => Held::CancelRequested,
            (true, false) => Held::Yes,
        };
        assert_eq!(held, expected);
        if ours {
            known.until = until;
        }
    }

    async fn finish(&mut self, pick: usize, outcome: Outcome) {
        let Some((_, lease)) = self.pick(pick) else { return };
        let ended = self.jobs().finish(lease.clone(), self.now, outcome.clone()).await;
        let known = self.model.get_mut(&lease.id).unwrap();
        if known.status != JobStatus::Running || known.fence != lease.fence {
            assert!(matches!(ended, Err(JobsError::Stale { .. })), "a stale lease never wins");
            return;
        }
        known.status = match outcome {
            Outcome::Succeeded(_) => JobStatus::Succeeded,
            Outcome::Ended(status, _) => status,
            Outcome::Retry { run_at, .. } => {
                known.run_at = run_at;
                // Callers retry only while tries are left.
                if known.cancel { JobStatus::Cancelled } else { JobStatus::Queued }
            }
            Outcome::Released { run_at, .. } => {
                known.run_at = run_at;
                known.attempts -= u32::from(!known.cancel);
                if known.cancel { JobStatus::Cancelled } else { JobStatus::Queued }
            }
        };
        known.cancel = false;
        assert_eq!(ended.unwrap().status, known.status);
    }

    async fn cancel(&mut self, pick: usize) {
        let Some(id) = self.pick_job(pick) else { return };
        let job = self.jobs().cancel(tenant(), id, self.now).await.unwrap();
        let known = self.model.get_mut(&id).unwrap();
        match known.status {
            JobStatus::Queued => known.status = JobStatus::Cancelled,
            JobStatus::Running => known.cancel = true,
            _ => {}
        }
        assert_eq!((job.status, job.cancel_requested), (known.status, known.cancel));
    }

    async fn redrive(&mut self, pick: usize) {
        let Some(id) = self.pick_job(pick) else { return };
        let redriven = self.jobs().redrive(tenant(), id, self.now).await;
        let known = self.model.get_mut(&id).unwrap();
        assert_eq!(redriven.is_ok(), known.status == JobStatus::Dead);
        if redriven.is_ok() {
            (known.status, known.attempts, known.run_at) = (JobStatus::Queued, 0, self.now);
        }
    }

    /// The record and the model agree on every job.
    async fn compare(&self) {
        let listed = self.jobs().list(tenant(), Filter { limit: 10_000, ..Filter::default() }).await.unwrap();
        assert_eq!(listed.len(), self.model.len(), "no job is lost");
        for job in &listed {
            let known = &self.model[&job.id];
            assert_eq!((job.status, job.attempts), (known.status, known.attempts), "{}", job.id);
            assert_eq!(job.status.is_final(), job.finished_at.is_some());
        }
        let counts = self.jobs().counts().await.unwrap();
        for status in JobStatus::ALL {
            let expected = self.model.values().filter(|known| known.status == status).count();
            assert_eq!(counts.of(status), expected as u64, "{status}");
        }
    }

    /// Runs what is left to its end.
    async fn drain(&mut self) {
        for _ in 0..100 {
            self.now = self.now + TTL + Duration::from_secs(20);
            self.lease(self.owners[0], 1_000).await;
            for pick in 0..self.leases.len() {
                self.finish(pick, Outcome::Succeeded(Bytes::new())).await;
            }
            if self.model.values().all(|known| known.status.is_final()) {
                return;
            }
        }
        panic!("some jobs never end: {:?}", self.model);
    }
}

fn error() -> Error {
    Error::new(Code::FunctionError, "x")
}

/// A retry is recorded only while tries are left: that rule is the dispatcher's, so the steps keep to it.
fn keeps_the_rule<S: Subject>(world: &World<S>, step: &Step) -> bool {
    match step {
        Step::Retry(pick, _) => world.pick(*pick).is_none_or(|(_, lease)| {
            let known = &world.model[&lease.id];
            known.fence != lease.fence || known.attempts < known.max_attempts
        }),
        _ => true,
    }
}

/// Runs random interleavings on stores that `subject` makes from what is left of the one before.
pub fn check<S: Subject>(cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // One set of servers for all cases; each case has a store of its own in it.
    let servers = std::cell::RefCell::new(Some(runtime.block_on(S::start())));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| {
        runtime.block_on(async {
            let mut subject = servers.take().unwrap();
            subject.renew().await;
            let mut world = World::new(subject);
            for step in steps {
                if keeps_the_rule(&world, &step) {
                    world.apply(step).await;
                }
            }
            world.compare().await;
            world.drain().await;
            world.compare().await;
            *servers.borrow_mut() = Some(world.subject);
        });
    });
}
