//! Functions in memory and their instances.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::{Clock, Random};
use lyra_types::function::Contract;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use wasmtime::Trap;

use super::base::Base;
use super::guest::{Ended, Guest};
use super::host::Host;
use super::image::Image;
use crate::session::Called;
use crate::wasm::governor::Governor;
use crate::wasm::hosting::{self, Hosts};
use crate::{Body, CallContext, Grant, Hosted, Hosting, Sandbox, Served, Template};

/// Longest text of what is thrown, in bytes, where texts are results.
const MAX_THROWN: usize = 16 << 10;

/// A function, ready to be started.
pub(super) struct Function {
    pub(super) base: Arc<Base>,
    pub(super) image: Image,
    pub(super) hosts: Arc<Hosts>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    /// Results are texts, and what is thrown is one of them.
    pub(super) texts: bool,
}

#[async_trait]
impl Template for Function {
    fn contract(&self) -> Contract {
        Contract::Handler
    }

    fn weight(&self) -> usize {
        self.image.weight()
    }

    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        self.start_with(id, version, &Grant::default()).await
    }

    async fn start_with(
        &self,
        _id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
    ) -> Result<Box<dyn Sandbox>, Error> {
        let governor = Governor::new(&self.base.engine, version.memory_bytes());
        let mut host = Host::new(governor, self.clock.clone(), self.random.clone());
        host.secrets = grant.secrets.clone();
        let mut guest = Guest::start(&self.base, host).await?;
        guest.restore(&self.image)?;
        Ok(Box::new(Instance { guest, reusable: true, texts: self.texts }))
    }

    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        let (calls, contract) = (&self.hosts.calls, self.contract());
        calls.check(version, contract, &hosting)?;
        let version = hosting::hosted(id, version, &hosting);
        let sandbox = self.start_with(id, &version, grant).await?;
        Ok(Box::new(Called::new(id, &version, contract, sandbox, hosting, None, calls)))
    }
}

/// One instance of a function.
struct Instance {
    guest: Guest,
    reusable: bool,
    texts: bool,
}

#[async_trait]
impl Sandbox for Instance {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        // A call that is given up leaves the guest in the middle of something.
        self.reusable = false;
        let (deadline, limit, version) = (context.deadline, context.max_result, Arc::clone(&context.version));
        let (share, cpu) = (self.guest.share(), context.cpu.clone());
        let call = share.run_metered(&cpu, self.guest.call(context, &event));
        let ended = tokio::time::timeout_at(deadline, call).await;
        let host = self.guest.host();
        host.call = None;
        let starved = host.governor.starved();
        let Ok(ended) = ended else {
            let limit = version.timeout_ms;
            let detail = match self.texts {
                // What the classic system said.
                true => format!("Error: Script execution timed out after {limit}ms"),
                false => format!("the function did not end within {limit} ms"),
            };
            return Err(Error::new(Code::Timeout, detail));
        };
        match ended {
            Ok(Ended::Done { at, length }) => {
                self.reusable = starved.is_none();
                Ok(Bytes::copy_from_slice(&self.guest.bytes()[at..at + length]))
            }
            Ok(Ended::TooLarge) => {
                self.reusable = starved.is_none();
                let detail = format!("the result has more than {limit} bytes, the limit for results");
                Err(Error::new(Code::ResultTooLarge, detail))
            }
            Ok(Ended::BadEvent(thrown)) if starved.is_none() => {
                self.reusable = true;
                Err(Error::new(Code::BadRequest, format!("the event is not JSON: {}", thrown.message)))
            }
            // Memory was refused and then something failed: that is why.
            Ok(_) | Err(_) if let Some(why) = starved => Err(why.error(version.memory_mb)),
            Ok(ended) => {
                self.reusable = !matches!(ended, Ended::Stuck);
                let threw = matches!(ended, Ended::Threw(_));
                let mut error = failure(ended);
                if self.texts && threw {
                    error.detail = self.guest.text_of_thrown(limit.min(MAX_THROWN)).map_err(|error| crash(&error))?;
                }
                Err(error)
            }
            Err(error) => Err(crash(&error)),
        }
    }

    async fn serve(self: Box<Self>, _: CallContext, _: http::Request<Body>) -> Result<Served, Error> {
        Err(Error::internal("a js function takes events, not HTTP requests"))
    }

    fn is_reusable(&self) -> bool {
        self.reusable
    }
}

/// The error for a handler that ended without a result.
fn failure(ended: Ended) -> Error {
    match ended {
        Ended::Threw(thrown) => Error::thrown(thrown),
        Ended::Stuck => Error::thrown(lyra_types::error::Thrown {
            name: "Error".into(),
            message: "the handler waits for a promise that can never settle: no timer and no job is left to settle it"
                .into(),
            stack: String::new(),
        }),
        Ended::BadResult(thrown) => Error::new(
            Code::InvalidResult,
            format!("the result can't be written as JSON: {}: {}", thrown.name, thrown.message),
        ),
        other => Error::internal(format!("the js guest answered a call with {other:?}")),
    }
}

/// The error for a guest that trapped.
fn crash(error: &wasmtime::Error) -> Error {
    let why = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    tracing::debug!(error = format!("{error:#}"), "a js instance crashed");
    Error::new(Code::InstanceCrashed, format!("the instance crashed: {why}"))
}
