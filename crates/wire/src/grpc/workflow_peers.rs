//! The processes that run workflows, as whoever asks them knows them: told by control, and kept while control is away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, future};
use lyra_kit::Clock;
use lyra_types::{Code, Error, Result};
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::asking::Peers;
use super::messages::Nothing;
use super::security::{Peer, Security, Target};
use super::services::workflows_client::WorkflowsClient;
use crate::workflows::{WorkflowMember, WorkflowProcess};
use crate::{Control, Role};

/// What the processes are, for errors.
const WHAT: &str = "workflows";
/// Wait before control is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for what a process says of itself.
const LOOK: Duration = Duration::from_secs(2);

/// Where a process is, and the role that it has to have.
type Place = (String, Role);

/// The processes that are known, and the lines to them.
#[derive(Debug)]
pub(super) struct Known {
    security: Security,
    /// Processes of control: asked while no other is known, and for those that do not know where they are reached.
    control_at: Vec<Place>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    /// Those that were told of last.
    processes: Vec<WorkflowProcess>,
    /// Lines by place, for as long as somebody is there.
    channels: HashMap<Place, Channel>,
    /// None where there is nobody to ask.
    peers: Option<Arc<Peers>>,
}

impl Known {
    /// Nobody is known but control.
    ///
    /// # Errors
    /// When an address is none.
    pub(super) fn new(control_at: &[String], security: &Security) -> Result<Known> {
        let control_at: Vec<Place> = control_at.iter().map(|address| (address.clone(), Role::Control)).collect();
        let nobody = Now { processes: Vec::new(), channels: HashMap::new(), peers: None };
        let known = Known { security: security.clone(), control_at, now: Mutex::new(nobody) };
        // What is wrong with an address is said at once.
        for place in &known.control_at {
            known.reach(place)?;
        }
        known.tell(Vec::new());
        Ok(known)
    }

    /// Those that may be asked now.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where there is none.
    pub(super) fn peers(&self) -> Result<Arc<Peers>> {
        self.now.lock().peers.clone().ok_or_else(|| {
            let detail = "no process runs workflows now; start one with `lyra node --role workflow`";
            Error::new(Code::Unavailable, detail).with_retry_after(AGAIN)
        })
    }

    /// Learns from control who there is, for ever.
    pub(super) async fn follow(&self, control: &dyn Control, clock: &Clock) {
        loop {
            match control.watch_workflows().await {
                Ok(mut lists) => {
                    while let Some(Ok(list)) = lists.next().await {
                        self.tell(list);
                    }
                }
                // Who was there last is asked.
                Err(error) => tracing::debug!(%error, "control does not tell who runs workflows"),
            }
            clock.sleep(AGAIN).await;
        }
    }

    /// From now on these are known. Who ends is not asked any more.
    fn tell(&self, processes: Vec<WorkflowProcess>) {
        let mut now = self.now.lock();
        let places = self.places(&processes);
        let same = now.peers.is_some() && now.channels.len() == places.len();
        if !same || !places.iter().all(|place| now.channels.contains_key(place)) {
            let mut channels = HashMap::new();
            for place in &places {
                match now.channels.get(place).map_or_else(|| self.reach(place), |channel| Ok(channel.clone())) {
                    Ok(channel) => drop(channels.insert(place.clone(), channel)),
                    Err(error) => tracing::warn!(%error, "a process that runs workflows has no good address"),
                }
            }
            let all: Vec<Channel> = places.iter().filter_map(|place| channels.get(place).cloned()).collect();
            now.peers = (!all.is_empty()).then(|| Arc::new(Peers::over(WHAT, all)));
            now.channels = channels;
        }
        now.processes = processes;
    }

    fn places(&self, processes: &[WorkflowProcess]) -> Vec<Place> {
        let asked = processes.iter().filter(|process| !process.leaving);
        let (somewhere, anywhere): (Vec<_>, Vec<_>) = asked.partition(|process| !process.address.is_empty());
        let mut places: Vec<Place> =
            somewhere.into_iter().map(|process| (process.address.clone(), process.role)).collect();
        if processes.is_empty() || !anywhere.is_empty() {
            places.extend(self.control_at.iter().cloned());
        }
        places.sort();
        places.dedup();
        places
    }

    fn reach(&self, (address, role): &Place) -> Result<Channel> {
        Ok(Target::new(address, Peer { role: *role, name: None }, &self.security)?.connect_lazy())
    }

    /// The processes with what each has now. One that does not answer is shown without.
    pub(super) async fn members(&self) -> Result<Vec<WorkflowMember>> {
        let (processes, channels) = {
            let now = self.now.lock();
            (now.processes.clone(), now.channels.clone())
        };
        let told = future::join_all(channels.into_values().map(|channel| async move {
            let mut client = WorkflowsClient::new(channel);
            let answer = tokio::time::timeout(LOOK, client.members(Nothing)).await;
            answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().members).unwrap_or_default()
        }));
        let mut members: HashMap<u64, WorkflowMember> =
            told.await.into_iter().flatten().map(|member| (member.process.owner, member)).collect();
        for process in processes {
            // What is told of it is what others go by, also of one that ends.
            let load = members.get(&process.owner).and_then(|member| member.load);
            members.insert(process.owner, WorkflowMember { process, load });
        }
        let mut members: Vec<WorkflowMember> = members.into_values().collect();
        members.sort_by(|a, b| (&a.process.name, a.process.since).cmp(&(&b.process.name, b.process.since)));
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::Timestamp;

    use super::*;

    fn process(address: &str, role: Role, leaving: bool) -> WorkflowProcess {
        let since = Timestamp::from_millis(1);
        WorkflowProcess { name: "f".to_owned(), address: address.to_owned(), role, owner: 1, since, leaving }
    }

    fn places(known: &Known, processes: &[WorkflowProcess]) -> Vec<String> {
        known.places(processes).into_iter().map(|(address, role)| format!("{} {address}", role.as_str())).collect()
    }

    #[tokio::test]
    async fn those_that_are_known_are_asked_else_control() {
        let known = Known::new(&["c1:1".to_owned(), "c2:1".to_owned()], &Security::Plain).unwrap();
        assert_eq!(places(&known, &[]), ["control c1:1", "control c2:1"]);
        let apart = [process("f1:1", Role::Workflow, false), process("f2:1", Role::Workflow, false)];
        assert_eq!(places(&known, &apart), ["workflow f1:1", "workflow f2:1"]);
        // One that does not know where it is, is one of those at the addresses of control.
        let mixed = [process("f1:1", Role::Workflow, false), process("", Role::Control, false)];
        assert_eq!(places(&known, &mixed), ["control c1:1", "control c2:1", "workflow f1:1"]);
        // Control would only pass the question on to the one that ends.
        let ending = [process("f1:1", Role::Workflow, true), process("f2:1", Role::Workflow, false)];
        assert_eq!(places(&known, &ending), ["workflow f2:1"]);
        assert!(places(&known, &ending[..1]).is_empty());
    }

    #[tokio::test]
    async fn where_there_is_nobody_a_question_says_so() {
        let known = Known::new(&[], &Security::Plain).unwrap();
        assert_eq!(known.peers().unwrap_err().code, Code::Unavailable);
        known.tell(vec![process("127.0.0.1:1", Role::Workflow, false)]);
        assert_eq!(known.peers().unwrap().all().len(), 1);
        // Who is there but does not answer is shown all the same.
        let members = known.members().await.unwrap();
        assert_eq!((members.len(), members[0].load), (1, None));
        known.tell(vec![process("127.0.0.1:1", Role::Workflow, true)]);
        assert!(known.peers().is_err());
    }
}
