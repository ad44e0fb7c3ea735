//! Workers that answer as they are told, and a registry that says what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::BodyExt;
use lyra_types::function::{Contract, Digest};
use lyra_types::invocation::{Report, Start};
use lyra_types::{Code, Error, FunctionName, FunctionVersion, InvocationId, Result, Runtime};
use lyra_wire::registry::*;
use lyra_wire::worker::*;
use lyra_wire::{Operated, Registry, Worker};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What a worker does with calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    Answer,
    /// Fails with this code, before the call has begun.
    Refuse(Code),
    /// Fails with this code after it has begun.
    Fail(Code),
    /// Reads all of the request's body, then fails with this code, before the call has begun.
    ReadAndRefuse(Code),
    /// Never answers.
    Hang,
}

/// All scripted workers by address.
#[derive(Clone, Default)]
pub struct Script {
    pub acts: Arc<Mutex<BTreeMap<String, Act>>>,
    /// Addresses that were called, in order.
    pub called: Arc<Mutex<Vec<String>>>,
}

pub struct One {
    address: String,
    script: Script,
}

impl Script {
    pub fn worker(&self, address: &str) -> Arc<dyn Operated> {
        Arc::new(One { address: address.to_owned(), script: self.clone() })
    }

    pub fn set(&self, address: &str, act: Act) {
        self.acts.lock().insert(address.to_owned(), act);
    }

    pub fn take_called(&self) -> Vec<String> {
        std::mem::take(&mut self.called.lock())
    }
}

impl One {
    async fn act(&self) -> (Option<Start>, Result<Bytes>) {
        self.script.called.lock().push(self.address.clone());
        let act = self.script.acts.lock().get(&self.address).copied().unwrap_or(Act::Answer);
        match act {
            Act::Answer => (Some(Start::Warm), Ok(Bytes::from(self.address.clone()))),
            Act::Refuse(code) | Act::ReadAndRefuse(code) => (None, Err(Error::new(code, "refused"))),
            Act::Fail(code) => (Some(Start::Cold), Err(Error::new(code, "failed"))),
            Act::Hang => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Worker for One {
    async fn prepare(&self, _: Prepare) -> Result<Prepared> {
        self.act().await.1.map(|_| Prepared { contract: Contract::Handler })
    }
    async fn prewarm(&self, _: Arc<FunctionVersion>, _: u32) -> Result<()> {
        self.act().await.1.map(drop)
    }
    async fn forget(&self, _: u64, _: Option<u64>) -> Result<()> {
        self.act().await.1.map(drop)
    }
    async fn invoke(&self, call: Call) -> Reply {
        let (start, outcome) = self.act().await;
        Reply { report: Report { start, ..Report::new(call.id, call.version.version) }, outcome }
    }
    async fn serve(&self, call: HttpCall) -> HttpReply {
        let act = self.script.acts.lock().get(&self.address).copied();
        let (start, outcome) = self.act().await;
        let body = call.request.into_body();
        let outcome = match (outcome, act) {
            (Err(error), Some(Act::ReadAndRefuse(_))) => {
                let _ = body.collect().await;
                Err(error)
            }
            (Err(error), _) => Err(error),
            // Its address, then what it was sent.
            (Ok(address), _) => {
                let sent = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
                Ok(http::Response::new(lyra_wire::full_body([address, sent].concat())))
            }
        };
        HttpReply { report: Report { start, ..Report::new(call.id, call.version.version) }, outcome }
    }
}

#[async_trait]
impl Operated for One {
    async fn status(&self) -> Result<Status> {
        Ok(Status::default())
    }
    async fn instances(&self) -> Result<Vec<InstanceStatus>> {
        Ok(Vec::new())
    }
    async fn health(&self) -> Result<Health> {
        Ok(Health::default())
    }
    async fn cordon(&self) -> Result<()> {
        Ok(())
    }
    async fn uncordon(&self) -> Result<()> {
        Ok(())
    }
    async fn drain(&self, _: Duration) -> Result<Drained> {
        Ok(Drained::default())
    }
    async fn instruct(&self, _: lyra_types::InstanceId, _: lyra_wire::worker::InstanceCommand) -> Result<()> {
        Ok(())
    }
    async fn clean(&self) -> Result<usize> {
        Ok(0)
    }
}

/// Says what it is told to whoever watches.
#[derive(Default)]
pub struct Teller {
    watches: Mutex<Vec<mpsc::UnboundedReceiver<Result<MemberEvent>>>>,
}

/// The registry's end of a watch. Dropping it breaks the watch.
pub type Voice = mpsc::UnboundedSender<Result<MemberEvent>>;

impl Teller {
    /// The next watch will be told what is said here.
    pub fn expect_watch(&self) -> Voice {
        let (voice, watch) = mpsc::unbounded_channel();
        self.watches.lock().insert(0, watch);
        voice
    }
}

#[async_trait]
impl Registry for Teller {
    async fn join(&self, _: BoxStream<'static, Result<FromNode>>) -> Result<BoxStream<'static, Result<ToNode>>> {
        Err(Error::internal("nobody joins here"))
    }

    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
        let watch = self.watches.lock().pop();
        watch
            .map(|watch| UnboundedReceiverStream::new(watch).boxed())
            .ok_or_else(|| Error::new(Code::Unavailable, "away"))
    }
}

pub fn member(name: &str, state: MemberState) -> MemberEvent {
    let backend =
        lyra_types::api::BackendStatus { name: "wasm".to_owned(), runtimes: vec![Runtime::Js], ..Default::default() };
    let registration = Registration {
        name: name.to_owned(),
        address: format!("{name}:1"),
        incarnation: 1,
        backends: vec![backend],
        state: NodeState::default(),
    };
    MemberEvent::Put(Box::new(Member { state, registration }))
}

/// A worker that is ready and has one back end, of this name, for this runtime.
pub fn member_by(name: &str, backend: &str, runtime: Runtime) -> MemberEvent {
    let MemberEvent::Put(mut put) = member(name, MemberState::Ready) else { unreachable!("it is one") };
    let backend =
        lyra_types::api::BackendStatus { name: backend.to_owned(), runtimes: vec![runtime], ..Default::default() };
    put.registration.backends = vec![backend];
    MemberEvent::Put(put)
}

/// A worker that is ready and tells this of itself.
pub fn member_with(name: &str, state: NodeState) -> MemberEvent {
    let MemberEvent::Put(mut put) = member(name, MemberState::Ready) else { unreachable!("it is one") };
    put.registration.state = state;
    MemberEvent::Put(put)
}

pub fn version(version: u64) -> FunctionVersion {
    let function = FunctionName::new("f").unwrap();
    FunctionVersion { version, ..FunctionVersion::new(function, Runtime::Js, Digest("0".repeat(64))) }
}

/// A request with this body.
pub fn request(body: lyra_wire::Body) -> HttpCall {
    HttpCall {
        id: InvocationId::from_parts(1, 2),
        version: Arc::new(version(1)),
        request: http::Request::new(body),
        user: None,
    }
}

pub fn call(number: u64) -> Call {
    let version = version(number);
    Call {
        id: InvocationId::from_parts(1, 1),
        version: Arc::new(version),
        event: Bytes::new(),
        timeout: None,
        account: Default::default(),
        trace: None,
    }
}
