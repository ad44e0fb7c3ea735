//! Which of the control processes leads: the one that hands out jobs, places instances and clears away.
//!
//! Every control process answers questions and takes changes, which the store keeps apart; what must be done once is the
//! leader's. A standby follows the same records, so there is nothing to learn when it takes over.
//!
//! What must hold: a process makes itself known ([`presence`]) before it may lead; of two terms the later one has the higher
//! epoch; and when a term ends, what belonged to it is told to end before the process stands for election again.

mod presence;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::Clock;
use lyra_store::objects::presence as watched;
use lyra_store::objects::{Election, Leadership, Objects, Presence};
use lyra_types::{Result, Timestamp};
use lyra_wire::control::ControlProcess;
use lyra_wire::registry::Controls;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// What the keys of everything here start with.
const CONTROL: &str = "control/";
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Control processes are listed at least so often.
const ANNOUNCE: Duration = Duration::from_secs(30);
/// Longest wait for the store to take note that this process ends.
const PART: Duration = Duration::from_secs(2);
/// The object that names the leader.
const LEADER: &str = "control/leader";

/// Who a control process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its name, for people.
    pub(crate) name: String,
    /// Where others reach it, `HOST:PORT`; empty where it is alone.
    pub(crate) address: String,
    /// The owner of the jobs that it runs.
    pub(crate) owner: u64,
    /// When it was started.
    pub(crate) since: Timestamp,
}

/// A time for which this process leads.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    /// Higher than that of every term before, of whatever process.
    pub(crate) epoch: u64,
    /// Cancelled when another may lead.
    pub(crate) over: CancellationToken,
}

/// This process among those that could lead.
pub(crate) struct Leader {
    objects: Arc<dyn Objects>,
    process: Process,
    lease: Duration,
    clock: Clock,
    /// The term of this process, while it leads.
    term: watch::Sender<Option<Term>>,
    leadership: Mutex<Option<Leadership>>,
    presence: Presence,
    stopped: CancellationToken,
    /// The control processes, as they were last listed.
    listed: watch::Sender<Vec<ControlProcess>>,
}

impl Leader {
    pub(crate) fn new(deps: &crate::Deps, owner: u64, lease: Duration) -> Leader {
        let process =
            Process { name: deps.name.clone(), address: deps.address.clone(), owner, since: deps.clock.now() };
        let presence = presence::presence(deps, &process, lease);
        Leader {
            objects: Arc::clone(&deps.objects),
            process,
            lease,
            clock: deps.clock.clone(),
            term: watch::Sender::new(None),
            leadership: Mutex::new(None),
            presence,
            stopped: CancellationToken::new(),
            listed: watch::Sender::default(),
        }
    }

    /// Where the process that leads is reached, as they were last listed.
    pub(crate) fn address(&self) -> Option<String> {
        let listed = self.listed.borrow();
        listed.iter().find(|of| of.epoch.is_some()).map(|of| of.address.clone()).filter(|address| !address.is_empty())
    }

    /// Changes when a control process comes or goes.
    pub(crate) fn listed(&self) -> watch::Receiver<Vec<ControlProcess>> {
        self.listed.subscribe()
    }

    /// The term of this process, while it leads.
    pub(crate) fn term(&self) -> watch::Receiver<Option<Term>> {
        self.term.subscribe()
    }

    /// Stands for election, and does `duties` for as long as each term lasts; until [`Leader::resign`]. `duties` must end
    /// soon after its term is over.
    pub(crate) async fn lead<F>(&self, duties: impl Fn(Term) -> F)
    where
        F: Future<Output = ()>,
    {
        while let Some(term) = self.elected().await {
            let Term { epoch, over } = term.clone();
            tracing::info!(epoch, process = self.process.name, "this control process leads");
            self.term.send_replace(Some(term.clone()));
            duties(term).await;
            // Duties that end by themselves do not end the term.
            over.cancelled().await;
            self.term.send_replace(None);
            drop(self.leadership.lock().take());
            tracing::info!(epoch, process = self.process.name, "this control process leads no more");
        }
    }

    /// Waits until this process leads; `None` when it shall not.
    async fn elected(&self) -> Option<Term> {
        let name = Bytes::from(serde_json::to_vec(&self.process).unwrap_or_default());
        let election = Election::new(Arc::clone(&self.objects), LEADER, self.lease);
        let stand = async {
            self.presence.seen().await;
            election.campaign(name).await
        };
        let leadership = tokio::select! {
            biased;
            () = self.stopped.cancelled() => return None,
            leadership = stand => leadership,
        };
        match leadership {
            Ok(leadership) => {
                let term = Term { epoch: leadership.epoch(), over: leadership.lost() };
                *self.leadership.lock() = Some(leadership);
                if self.stopped.is_cancelled() {
                    // Who told this process to stop found nothing to hand over yet.
                    self.hand_over().await;
                    return None;
                }
                Some(term)
            }
            Err(error) => {
                tracing::error!(%error, "this control process can't lead");
                None
            }
        }
    }

    /// Gives up the lead, and stands for it no more.
    pub(crate) async fn resign(&self) {
        self.stopped.cancel();
        self.hand_over().await;
    }

    async fn hand_over(&self) {
        let Some(leadership) = self.leadership.lock().take() else { return };
        let error = match tokio::time::timeout(PART, leadership.resign()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store does not answer".to_owned(),
        };
        tracing::warn!(error, "the lead can't be handed over; another takes it when its lease has ended");
    }

    /// Tells workers of the control processes, for ever.
    pub(crate) async fn announce(&self, registry: &Registry) {
        loop {
            // First, so that no change is missed that comes while they are listed.
            let mut since = self.objects.list(CONTROL, 1, None).await.ok().map(|listing| listing.revision);
            match self.processes().await {
                Ok(processes) => {
                    self.listed.send_if_modified(|listed| {
                        let is_news = *listed != processes;
                        listed.clone_from(&processes);
                        is_news
                    });
                    let leader = processes.iter().find_map(|of| Some((of.epoch?, of.address.clone())));
                    let addresses = processes.into_iter().map(|of| of.address).filter(|of| !of.is_empty()).collect();
                    registry.tell_controls(Controls { leader, addresses });
                }
                Err(error) => {
                    tracing::debug!(%error, "control processes can't be listed");
                    since = None;
                }
            }
            let _ = tokio::time::timeout(ANNOUNCE, self.changed(since)).await;
        }
    }

    /// Waits until a control process has come, gone, or begun to lead since this revision; for a while where that is not
    /// known.
    async fn changed(&self, since: Option<u64>) {
        match since {
            Some(revision) => watched::changed(self.objects.as_ref(), CONTROL, revision, &self.clock).await,
            None => self.clock.sleep(AGAIN).await,
        }
    }

    /// All control processes that are known, by name; the one that leads is marked.
    pub(crate) async fn processes(&self) -> Result<Vec<ControlProcess>> {
        let election = Election::new(Arc::clone(&self.objects), LEADER, self.lease);
        let leader = election.leader().await?;
        let leads = leader.as_ref().and_then(|leader| serde_json::from_slice::<Process>(&leader.name).ok());
        let mut all: Vec<ControlProcess> = self
            .known()
            .await?
            .into_iter()
            .map(|process| {
                let leads = leads.as_ref().is_some_and(|leads| leads.owner == process.owner);
                ControlProcess {
                    epoch: leader.as_ref().filter(|_| leads).map(|leader| leader.epoch),
                    name: process.name,
                    address: process.address,
                    since: process.since,
                }
            })
            .collect();
        all.sort_by(|a, b| (&a.name, a.since).cmp(&(&b.name, b.since)));
        Ok(all)
    }
}
