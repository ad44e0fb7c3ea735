//! What all instances of handlers have in common, whichever way they are called: [`super::handler`] and
//! [`super::native`] say how one call is made, the rest is here.
//!
//! What must hold: an instance that did not get ready tells why to its first call, whose log has what was written until
//! then; one that failed, or whose call was given up, is not called again.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::Error;

use super::instance::{Instance, gone};
use crate::{Body, CallContext, Sandbox, Served, Usage};

/// How a call ended.
pub(super) struct Called {
    pub(super) outcome: Result<Bytes, Error>,
    /// The instance may be called again.
    pub(super) usable: bool,
}

/// A way to call an instance.
pub(super) trait Caller: Send + Sync + 'static {
    /// Makes a call. Ends by its deadline, with the instance killed.
    fn call(&mut self, instance: &Instance, context: &CallContext, event: Bytes)
    -> impl Future<Output = Called> + Send;

    /// Nothing has come from an idle instance that nobody asked for.
    fn is_quiet(&self) -> bool {
        true
    }

    /// Asks an idle instance for a sign of life.
    fn probe(&mut self) -> impl Future<Output = bool> + Send;

    /// Asks an idle instance to end, and kills it when it has not gone by `limit`.
    fn stop(&mut self, instance: &Instance, limit: Duration) -> impl Future<Output = ()> + Send;
}

/// An instance with the way to call it.
pub(super) struct Kept<C> {
    instance: Instance,
    caller: C,
    /// Why it did not get ready.
    failed: Option<Error>,
    usable: bool,
}

impl<C> Kept<C> {
    /// An instance that has got ready, or has not.
    pub(super) fn new(instance: Instance, caller: C, ready: Result<(), Error>) -> Kept<C> {
        let failed = ready.err();
        Kept { instance, caller, usable: failed.is_none(), failed }
    }
}

#[async_trait]
impl<C: Caller> Sandbox for Kept<C> {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        self.instance.begin(&context.logs, &mut self.failed)?;
        // It stays so when the call is given up.
        if !std::mem::replace(&mut self.usable, false) {
            return Err(gone());
        }
        self.instance.begin_metering();
        let called = self.caller.call(&self.instance, &context, event).await;
        self.instance.meter(&context.cpu);
        self.instance.output().drain();
        self.usable = called.usable;
        called.outcome
    }

    async fn serve(self: Box<Self>, _: CallContext, _: http::Request<Body>) -> Result<Served, Error> {
        Err(Error::internal("a handler was given an HTTP request"))
    }

    fn is_reusable(&self) -> bool {
        self.usable && self.instance.is_alive() && self.caller.is_quiet()
    }

    fn usage(&self) -> Usage {
        self.instance.usage()
    }

    async fn probe(&mut self) -> bool {
        if !std::mem::replace(&mut self.usable, false) || !self.instance.is_alive() {
            return false;
        }
        self.usable = self.caller.probe().await;
        self.usable
    }

    async fn hibernate(&mut self) -> bool {
        self.instance.hibernate().await
    }

    async fn wake(&mut self) -> bool {
        self.instance.wake().await
    }

    async fn stop(mut self: Box<Self>, limit: Duration) {
        if self.usable {
            self.caller.stop(&self.instance, limit).await;
        }
    }
}
