//! An hour of a site under virtual time, in which workers join, leave and are lost, and functions are deployed and deleted:
//! what control knows is never more than what there is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures::StreamExt;
use lyra_types::api::BackendStatus;
use lyra_types::function::VersionKey;
use lyra_types::{InstanceId, Runtime};
use lyra_wire::Registry as _;
use lyra_wire::registry::{Change, Command, FromNode, Hold, InstanceReport, NodeState, Registration, ToNode, Workload};
use lyra_wire::worker::InstanceState;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{Registry, RegistryConfig};

/// Instances of each function.
const EACH: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// A worker as control sees it: holds what it is told, and says so.
struct Node {
    name: String,
    number: u64,
    revision: u64,
    instances: BTreeMap<VersionKey, Vec<InstanceId>>,
    made: u128,
    say: mpsc::Sender<Result<FromNode>>,
}

/// Begins a worker's conversation; it is lost when the handle is aborted.
fn join(registry: &Registry, number: u64) -> AbortHandle {
    let registry = registry.clone();
    let talk = async move {
        let (say, said) = mpsc::channel(64);
        let name = format!("w{number}");
        let mut node = Node { name, number, revision: 0, instances: BTreeMap::new(), made: 0, say };
        node.tell(FromNode::Register(Box::new(node.registration()), node.workload())).await;
        let mut heard = registry.join(ReceiverStream::new(said).boxed()).await.unwrap();
        let mut beats = tokio::time::interval(Duration::from_secs(3));
        loop {
            tokio::select! {
                _ = beats.tick() => node.tell(FromNode::State(NodeState::default(), node.revision)).await,
                word = heard.next() => match word {
                    Some(Ok(ToNode::Command { id, command, .. })) => node.obey(id, command).await,
                    Some(Ok(ToNode::FullSync)) => node.tell(FromNode::Workload(node.workload())).await,
                    Some(_) => {}
                    None => return,
                },
            }
        }
    };
    lyra_kit::tasks::spawn("node", talk).abort_handle()
}

impl Node {
    async fn tell(&self, message: FromNode) {
        // Nobody listens once control has hung up.
        let _ = self.say.send(Ok(message)).await;
    }

    fn registration(&self) -> Registration {
        let runtimes = vec![Runtime::Js];
        let backend = BackendStatus { name: "wasm".to_owned(), runtimes, ..BackendStatus::default() };
        Registration {
            name: self.name.clone(),
            address: format!("{}:1", self.name),
            incarnation: self.number,
            backends: vec![backend],
            state: NodeState::default(),
        }
    }

    fn workload(&self) -> Workload {
        let all =
            self.instances.iter().flat_map(|(key, ids)| ids.iter().map(|id| report(key, *id, InstanceState::Standby)));
        let hold = |(key, ids): (&VersionKey, &Vec<InstanceId>)| held(key, u32::try_from(ids.len()).unwrap());
        let holds = self.instances.iter().map(hold).collect();
        Workload { node: self.number, revision: self.revision, instances: all.collect(), holds, ..Workload::default() }
    }

    async fn change(&mut self, change: Change) {
        self.revision += 1;
        self.tell(FromNode::Changed(self.revision, change)).await;
    }

    async fn obey(&mut self, id: u64, command: Command) {
        let (key, wanted) = match command {
            Command::Hold { version, instances, .. } => (version.key(), instances),
            Command::Release(key) => (key, 0),
            _ => return self.tell(FromNode::Done(id, Ok(()))).await,
        };
        self.change(Change::Hold(held(&key, wanted))).await;
        self.tell(FromNode::Done(id, Ok(()))).await;
        let mut ids = self.instances.remove(&key).unwrap_or_default();
        while ids.len() > wanted as usize
            && let Some(gone) = ids.pop()
        {
            self.change(Change::Instance(report(&key, gone, InstanceState::Terminated))).await;
        }
        while ids.len() < wanted as usize {
            self.made += 1;
            let id = InstanceId::from_parts(self.number, self.made);
            ids.push(id);
            self.change(Change::Instance(report(&key, id, InstanceState::Standby))).await;
        }
        if wanted > 0 {
            self.instances.insert(key, ids);
        }
    }
}

fn held(key: &VersionKey, instances: u32) -> Hold {
    Hold { version: key.clone(), instances, schedule: false }
}

fn report(key: &VersionKey, id: InstanceId, state: InstanceState) -> InstanceReport {
    InstanceReport { id, version: key.clone(), state, memory: 1 << 20 }
}

#[tokio::test(start_paused = true)]
async fn what_control_knows_is_bounded_by_what_there_is_over_an_hour_of_churn() {
    let dir = tempfile::tempdir().unwrap();
    let forget = 2 * MINUTE;
    let config = Config { registry: RegistryConfig { forget, ..RegistryConfig::default() }, ..Config::default() };
    let leases = lyra_kit::Tasks::new();
    let site = Site::start_with(dir.path(), config, start_of_time(), 1, |jobs| jobs, &leases).await;
    let mut nodes: VecDeque<AbortHandle> = (0..10).map(|number| join(&site.registry, number)).collect();
    let mut functions: VecDeque<String> = VecDeque::new();
    for minute in 0..60u64 {
        for of in 0..3 {
            let name = format!("f-{minute}-{of}");
            site.deploy(&name, |request| (request.reuse, request.min_instances) = (Some(true), Some(EACH))).await;
            functions.push_back(name);
        }
        while functions.len() > 12
            && let Some(oldest) = functions.pop_front()
        {
            site.service.delete_function(&tenant(), &super::name(&oldest)).await.unwrap();
        }
        // Two join and the two oldest are lost, without a word.
        nodes.extend([100, 200].map(|base| join(&site.registry, base * 1_000 + minute)));
        nodes.drain(..2).for_each(|lost| lost.abort());
        tokio::time::sleep(MINUTE).await;

        let seen = site.registry.seen();
        let alive = seen.iter().filter(|of| of.member.state == lyra_wire::registry::MemberState::Ready).count();
        assert_eq!(alive, nodes.len(), "at minute {minute}");
        let lost = usize::try_from(forget.as_secs() / 60).unwrap() * 2 + 2;
        assert!(seen.len() <= nodes.len() + lost, "{} known at minute {minute}", seen.len());
        let living = || seen.iter().filter(|of| of.member.state == lyra_wire::registry::MemberState::Ready);
        let held: u32 = living().flat_map(|of| of.holdings.holds.values().map(|hold| hold.instances)).sum();
        let there: usize = living().map(|of| of.holdings.instances.len()).sum();
        let wanted = u32::try_from(functions.len()).unwrap() * EACH;
        assert_eq!((held, there), (wanted, wanted as usize), "at minute {minute}");
    }
}
