//! A worker that acts by the name of the function.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_types::error::{FieldError, Thrown};
use lyra_types::function::{Contract, Digest};
use lyra_types::invocation::{Phases, Report, Start};
use lyra_types::{Code, Error, FunctionName, FunctionVersion, InstanceId, InvocationId, Result, Runtime};
use lyra_wire::worker::*;
use lyra_wire::{Body, Operated, Worker, full_body};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub struct Scripted {
    /// Lets calls of `gate` go on.
    pub gate: Semaphore,
    /// Calls that run.
    pub running: Arc<AtomicUsize>,
    /// A permit for each call that began, and for each that ended or was cancelled.
    pub begun: Arc<Semaphores>,
    pub calls: Mutex<Vec<Call>>,
    pub forgotten: Mutex<Vec<(u64, Option<u64>)>>,
    pub cordoned: Mutex<Vec<bool>>,
}

impl Default for Scripted {
    fn default() -> Scripted {
        Scripted {
            gate: Semaphore::new(0),
            running: Arc::default(),
            begun: Arc::default(),
            calls: Mutex::default(),
            forgotten: Mutex::default(),
            cordoned: Mutex::default(),
        }
    }
}

pub struct Semaphores {
    pub begun: Semaphore,
    pub ended: Semaphore,
}

impl Default for Semaphores {
    fn default() -> Semaphores {
        Semaphores { begun: Semaphore::new(0), ended: Semaphore::new(0) }
    }
}

/// Counts a call for as long as it runs.
struct Running(Arc<AtomicUsize>, Arc<Semaphores>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.ended.add_permits(1);
    }
}

pub fn version(name: &str, number: u64) -> Arc<FunctionVersion> {
    let function = FunctionName::new(name).unwrap();
    Arc::new(FunctionVersion {
        version: number,
        env: [("KEY".to_owned(), "value".to_owned())].into(),
        ..FunctionVersion::new(function, Runtime::Js, Digest("0".repeat(64)))
    })
}

fn warm() -> Arc<FunctionVersion> {
    version("warm", 1)
}

pub fn call(name: &str, event: impl Into<Bytes>) -> Call {
    Call {
        id: InvocationId::from_parts(1, 2),
        version: version(name, 3),
        event: event.into(),
        timeout: None,
        account: Default::default(),
        trace: None,
    }
}

pub fn report(id: InvocationId, version: u64) -> Report {
    let phases = Phases { queue: Duration::from_micros(5), ..Phases::default() };
    let instance = Some(InstanceId::from_parts(4, 5));
    Report { start: Some(Start::Cold), reused: true, instance, phases, ..Report::new(id, version) }
}

pub fn failure() -> Error {
    let thrown = Thrown { name: "TypeError".into(), message: "no".into(), stack: "at 1:2".into() };
    Error::thrown(thrown).with_retry_after(Duration::from_secs(3)).with_field(FieldError::new("code", "reason"))
}

impl Scripted {
    fn enter(&self) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.begun.begun.add_permits(1);
        Running(Arc::clone(&self.running), Arc::clone(&self.begun))
    }
}

#[async_trait]
impl Worker for Scripted {
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared> {
        if prepare.code.is_empty() {
            return Err(failure());
        }
        assert!(prepare.code.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        Ok(Prepared { contract: Contract::Http })
    }

    async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<()> {
        assert_eq!((version, instances), (warm(), 7));
        Ok(())
    }

    async fn forget(&self, generation: u64, version: Option<u64>) -> Result<()> {
        self.forgotten.lock().push((generation, version));
        Ok(())
    }

    async fn invoke(&self, call: Call) -> Reply {
        let _running = self.enter();
        self.calls.lock().push(call.clone());
        let report = report(call.id, call.version.version);
        let outcome = match call.version.function.as_str() {
            "throw" => Err(failure()),
            "hang" => std::future::pending().await,
            "gate" => {
                self.gate.acquire().await.unwrap().forget();
                Ok(call.event)
            }
            _ => Ok(call.event),
        };
        Reply { report, outcome }
    }

    async fn serve(&self, call: HttpCall) -> HttpReply {
        let running = self.enter();
        let report = report(call.id, call.version.version);
        let (parts, body) = call.request.into_parts();
        let outcome = match parts.uri.path() {
            "/fail" => Err(failure()),
            "/hang" => std::future::pending().await,
            "/endless" => Ok(http::Response::new(endless(running))),
            "/broken" => {
                let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(failure().into())];
                Ok(http::Response::new(Body::new(StreamBody::new(futures::stream::iter(frames)))))
            }
            "/collect" => match body.collect().await {
                Ok(all) => Ok(http::Response::new(full_body(all.to_bytes()))),
                Err(error) => Err(Error::new(Code::BadRequest, error.to_string())),
            },
            _ => {
                let mut response = http::Response::new(body);
                *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
                *response.headers_mut() = parts.headers;
                let seen = format!("{} {}", parts.method, parts.uri).parse().unwrap();
                response.headers_mut().insert("seen", seen);
                Ok(response)
            }
        };
        HttpReply { report, outcome }
    }
}

#[async_trait]
impl Operated for Scripted {
    async fn status(&self) -> Result<Status> {
        let queue_policy = "fcfs".to_owned();
        Ok(Status { running: self.running.load(Ordering::SeqCst), queue_policy, ..Status::default() })
    }

    async fn instances(&self) -> Result<Vec<InstanceStatus>> {
        Err(failure())
    }

    async fn health(&self) -> Result<Health> {
        Ok(Health { healthy: true, checks: Vec::new() })
    }

    async fn cordon(&self) -> Result<()> {
        self.cordoned.lock().push(true);
        Ok(())
    }

    async fn uncordon(&self) -> Result<()> {
        self.cordoned.lock().push(false);
        Ok(())
    }

    async fn drain(&self, limit: Duration) -> Result<Drained> {
        Ok(Drained { ended: true, left: limit.as_secs() as usize, evacuated: 2 })
    }

    async fn instruct(
        &self,
        instance: lyra_types::InstanceId,
        command: lyra_wire::worker::InstanceCommand,
    ) -> Result<()> {
        match command {
            lyra_wire::worker::InstanceCommand::Terminate => Err(Error::not_found("instance", instance)),
            _ => Ok(()),
        }
    }

    async fn clean(&self) -> Result<usize> {
        Ok(9)
    }
}

/// A body that goes on until nobody reads it.
fn endless(running: Running) -> Body {
    let frames = futures::stream::repeat(()).map(move |()| {
        let _runs = &running;
        Ok(Frame::data(Bytes::from_static(&[0; 1024])))
    });
    Body::new(StreamBody::new(frames))
}
