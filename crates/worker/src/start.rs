//! Instances that are started, looked at and ended apart from calls: the worker's watch, pre-warming, draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use lyra_isolation::{Grant, Sandbox, Template};
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use lyra_wire::worker::Drained;
use tokio::time::Instant;

use crate::error;
use crate::pool::watch::Ahead;
use crate::pool::{Instance, Lease, Reason, Told};
use crate::resources::Need;
use crate::service::Inner;
use crate::templates::key_of;

/// Instances that are probed, hibernated or ended at the same time.
const AT_ONCE: usize = 64;

/// How long an instance has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Whether new calls are taken.
#[derive(Debug, Default)]
pub(crate) struct Cordon(AtomicBool);

impl Cordon {
    pub(crate) fn set(&self, cordoned: bool) {
        self.0.store(cordoned, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Refuses while the worker is cordoned.
    ///
    /// # Errors
    /// [`Code::Unavailable`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.is_set() {
            return Ok(());
        }
        Err(Error::new(Code::Unavailable, "this worker is cordoned: it takes no new calls; try again, or uncordon it")
            .with_retry_after(Duration::from_secs(1)))
    }
}

impl Inner {
    /// Starts a sandbox with resources that are charged already. Gives them back when that fails. `begun`: when
    /// the start began, loading of code counted in.
    pub(crate) async fn start_instance(
        &self,
        version: &Arc<FunctionVersion>,
        template: &dyn Template,
        lease: Lease,
        begun: Instant,
    ) -> Result<Instance, Error> {
        let sandbox = self.start_sandbox(version, template, lease.id(), lease.devices()).await?;
        Ok(Instance::new(sandbox, lease, self.clock.instant() - begun))
    }

    /// Starts a sandbox with what it is granted.
    pub(crate) async fn start_sandbox(
        &self,
        version: &Arc<FunctionVersion>,
        template: &dyn Template,
        id: InstanceId,
        devices: Option<&Grant>,
    ) -> Result<Box<dyn Sandbox>, Error> {
        let Some(secrets) = self.secrets.of(version).await? else {
            return match devices {
                Some(devices) => template.start_with(id, version, devices).await,
                None => template.start(id, version).await,
            };
        };
        let grant = Grant { secrets: Some(secrets), ..devices.cloned().unwrap_or_default() };
        let started = template.start_with(id, version, &grant).await;
        // It may say what the program wrote before it ended.
        started.map_err(|error| match self.secrets.masks(version) {
            Some(masks) => masks.apply_to(error),
            None => error,
        })
    }

    /// Loads a version's code and starts instances of it until `instances` are idle, waiting for resources as calls do.
    pub(crate) async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<(), Error> {
        self.cordon.check()?;
        let template = self.templates.load(&version).await?;
        let Some(need) = Need::of(&version).filter(|_| version.reuse) else { return Ok(()) };
        self.pool.hold_up(&version, need);
        let key = key_of(&version);
        // So many starts and no more: where they don't fit beside each other, a new one makes an older one go.
        for _ in 0..instances {
            if self.pool.count(key) >= instances as usize
                || self.pool.is_full(key)
                || self.pool.total() >= self.config.max_idle_instances
            {
                break;
            }
            let limit = self.config.queue_timeout;
            let lease = tokio::time::timeout(limit, self.pool.claim_ahead(&version, need))
                .await
                .map_err(|_| error::no_room(&version, &self.config))?
                .map_err(|_| error::closing())?;
            let starting = self.start_instance(&version, &*template, lease, self.clock.instant());
            let instance = tokio::time::timeout(self.config.start_timeout, starting)
                .await
                .map_err(|_| error::start_too_slow(&version, &self.config))??;
            self.pool.put(instance, self.clock.instant());
            self.pool.prewarmed("request");
        }
        Ok(())
    }

    /// Holds so many instances of a version up from now on, and starts those that are missing in the background.
    pub(crate) fn hold(self: &Arc<Inner>, version: &Arc<FunctionVersion>, told: Told) {
        let need = Need::of(version).filter(|_| version.reuse);
        if let Some(need) = need {
            self.pool.tell(version, need, told);
        }
        let (worker, version) = (self.clone(), version.clone());
        drop(lyra_kit::tasks::spawn("hold-up", async move {
            // What fails here is tried again by the watch, which also says so.
            let template = worker.templates.load(&version).await;
            if template.is_err() || worker.cordon.is_set() {
                return worker.pool.could_not_refill(&version);
            }
            if need.is_none() {
                // Instances are made for each call; its code is here, and that is all that there is to hold up.
                return;
            }
            let instances = told.instances as usize;
            worker.start_ahead(Ahead { version, instances, up_to: instances, why: "minimum" }).await;
        }));
    }

    /// Ends an idle instance.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::Conflict`] while it is not idle.
    pub(crate) async fn terminate(&self, id: InstanceId) -> Result<(), Error> {
        let instance = self.pool.take_out(id)?;
        end(vec![instance]).await;
        Ok(())
    }

    /// Hibernates an idle instance.
    ///
    /// # Errors
    /// As [`Inner::terminate`]; [`Code::Conflict`] also for one that can't be hibernated.
    pub(crate) async fn hibernate_one(&self, id: InstanceId) -> Result<(), Error> {
        let mut instance = self.pool.set_aside(id)?;
        if instance.lease.hibernated {
            self.pool.proved(instance);
            return Ok(());
        }
        match tokio::time::timeout(self.config.watchdog, instance.sandbox.hibernate()).await {
            Ok(true) => {
                let memory = instance.sandbox.usage().memory;
                self.pool.rests(instance, Some(memory));
                Ok(())
            }
            Ok(false) => {
                self.pool.rests(instance, None);
                Err(Error::new(Code::Conflict, format!("instance {id} is of a kind that can't be hibernated")))
            }
            Err(_) => {
                self.pool.failed_probe(instance);
                Err(Error::new(Code::InstanceCrashed, format!("instance {id} did not hibernate in time and is ended")))
            }
        }
    }

    /// Wakes a hibernated instance; nothing is done to one that is awake.
    ///
    /// # Errors
    /// As [`Inner::terminate`]; [`Code::Overloaded`] where there is no memory for it.
    pub(crate) async fn wake_one(&self, id: InstanceId) -> Result<(), Error> {
        let mut instance = self.pool.set_aside(id)?;
        if !instance.lease.hibernated {
            self.pool.proved(instance);
            return Ok(());
        }
        if let Err(error) = self.pool.charge_awake(&mut instance) {
            self.pool.proved(instance);
            return Err(error);
        }
        let woke = tokio::time::timeout(self.config.start_timeout, instance.sandbox.wake()).await.unwrap_or(false);
        self.pool.woke(woke);
        if !woke {
            self.pool.failed_probe(instance);
            return Err(Error::new(Code::InstanceCrashed, format!("instance {id} did not wake and is ended")));
        }
        instance.lease.hibernated = false;
        self.pool.proved(instance);
        Ok(())
    }

    /// One round of the worker's watch.
    pub(crate) async fn watch(self: &Arc<Inner>) {
        let period = self.config.watchdog;
        let (expired, ahead) = self.pool.tend(self.config.resources.memory_buffer);
        self.end_in_background(expired);
        // Instances of applications may have given processors back.
        self.queue.look_again();
        if !self.cordon.is_set() {
            for ahead in ahead {
                let worker = self.clone();
                drop(lyra_kit::tasks::spawn("start-ahead", async move { worker.start_ahead(ahead).await }));
            }
        }
        self.probe(period / 2).await;
        if let Some(after) = self.config.hibernate_after {
            self.hibernate(after).await;
        }
        self.watch_beat.beat(self.clock.instant());
    }

    /// Brings a version up to what it should have, with resources that are free; the next round tries again.
    async fn start_ahead(&self, ahead: Ahead) {
        let Ahead { version, instances, up_to, why } = ahead;
        let mut started = 0;
        while started < instances
            && let Some(lease) = self.pool.try_claim_ahead(&version, up_to)
        {
            let begun = self.clock.instant();
            let start = async {
                let template = self.templates.load(&version).await?;
                self.start_instance(&version, &*template, lease, begun).await
            };
            match tokio::time::timeout(self.config.start_timeout, start).await {
                Ok(Ok(instance)) => {
                    self.pool.put(instance, self.clock.instant());
                    self.pool.prewarmed(why);
                    started += 1;
                }
                // The pool has counted the failure, when what was charged came back.
                Ok(Err(error)) => {
                    tracing::warn!(version = %version.key(), %error, why, "an instance can't be started ahead");
                    return;
                }
                Err(_) => {
                    tracing::warn!(version = %version.key(), why, "an instance did not start ahead in time");
                    return;
                }
            }
        }
    }

    /// Asks idle instances whether they still serve. One that does not answer in time does not.
    async fn probe(&self, half: Duration) {
        let aside = self.pool.take_aside_to_probe(half);
        let probe = |mut instance: Instance| async move {
            let answer = tokio::time::timeout(half, instance.sandbox.probe()).await;
            if !answer.unwrap_or(false) {
                return self.pool.failed_probe(instance);
            }
            self.note_memory(&instance);
            self.pool.proved(instance)
        };
        futures::stream::iter(aside).for_each_concurrent(AT_ONCE, probe).await;
    }

    /// Notes what a proved instance of the version holds; a back end that does not measure it says 0.
    fn note_memory(&self, instance: &Instance) {
        let memory = instance.sandbox.usage().memory;
        if memory > 0
            && let Some(record) = self.characteristics.get(key_of(&instance.lease.record.version))
        {
            record.needed(memory);
        }
    }

    async fn hibernate(&self, after: Duration) {
        let aside = self.pool.take_aside_to_hibernate(after);
        let limit = self.config.watchdog;
        let hibernate = |mut instance: Instance| async move {
            match tokio::time::timeout(limit, instance.sandbox.hibernate()).await {
                Ok(true) => {
                    let memory = instance.sandbox.usage().memory;
                    self.pool.rests(instance, Some(memory));
                }
                Ok(false) => self.pool.rests(instance, None),
                // Neither asleep nor awake: nobody can tell what it is.
                Err(_) => self.pool.failed_probe(instance),
            }
        };
        futures::stream::iter(aside).for_each_concurrent(AT_ONCE, hibernate).await;
    }

    /// Ends instances that nobody waits for: they are asked first.
    fn end_in_background(&self, instances: Vec<Instance>) {
        if !instances.is_empty() {
            drop(lyra_kit::tasks::spawn("end-instances", end(instances)));
        }
    }

    /// Cordons, waits for the calls and the sessions, ends the idle instances. Sessions that have not ended by then are
    /// closed, each with its own grace.
    pub(crate) async fn drain(&self, limit: Duration) -> Drained {
        self.cordon.set(true);
        let (calls_ended, (sessions_ended, sessions_left, standing)) =
            tokio::join!(self.calls_end(limit), self.sessions.drain(limit));
        let idle = self.pool.take_all(Reason::Drained);
        let evacuated = idle.len() + standing;
        end(idle).await;
        let (ended, left) = (calls_ended && sessions_ended, self.calls() + sessions_left);
        Drained { ended, left, evacuated }
    }

    /// Calls that run or wait.
    fn calls(&self) -> usize {
        let lengths = self.queue.lengths();
        lengths.running + lengths.held + lengths.eligible
    }

    /// Waits up to `limit` for all calls to end; says whether they have.
    pub(crate) async fn calls_end(&self, limit: Duration) -> bool {
        let ended = async {
            while self.calls() > 0 {
                self.clock.sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }

    /// Ends the idle instances and drops the loaded code.
    pub(crate) async fn clean(&self) -> usize {
        let idle = self.pool.take_all(Reason::Cleaned);
        let cleaned = idle.len();
        end(idle).await;
        self.templates.clear();
        cleaned
    }
}

async fn end(instances: Vec<Instance>) {
    let end = |instance: Instance| async move {
        let Instance { sandbox, lease, .. } = instance;
        sandbox.stop(GRACE).await;
        drop(lease);
    };
    futures::stream::iter(instances).for_each_concurrent(AT_ONCE, end).await;
}
