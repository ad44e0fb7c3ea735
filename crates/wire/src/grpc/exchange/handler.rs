//! The worker's end of an exchange: reads calls, runs each in a task of its own, sends answers as they come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lyra_types::{Code, Error, FunctionVersion, InvocationId};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::super::calls::{
    Begin, Closing, End, FromCaller, FromWorker, Introduce, Part, Report, end, from_caller, from_worker,
};
use super::super::fields::{from_error, from_report, id_number};
use super::super::packed::unpack;
use super::parts::Pieces;
use super::{Map, WAITING, cut};
use crate::Worker;
use crate::worker::{Account, Call, Reply};

/// Calls of one exchange that run or wait at once. The worker's own queue is what should be full before.
const MAX_CALLS: usize = 65_536;
/// Events of one exchange of which more comes.
const MAX_BEGUN: usize = 64;
/// See `Caller`; a peer that does not keep to it is at fault.
const MAX_VERSIONS: usize = 20_000;

type Out = mpsc::Sender<Result<FromWorker, Status>>;

/// Starts to serve an exchange; what it returns are the answers. When the caller's stream ends, or nobody reads the
/// answers any more, every call is cancelled. Once `closing` is cancelled the caller is told to begin no more.
pub(crate) fn exchange(
    worker: Arc<dyn Worker>,
    mut messages: Streaming<FromCaller>,
    closing: CancellationToken,
) -> mpsc::Receiver<Result<FromWorker, Status>> {
    let (out, answers) = mpsc::channel(WAITING);
    let mut exchange =
        Exchange { worker, out: out.clone(), versions: Map::default(), running: Arc::default(), begun: Map::default() };
    lyra_kit::tasks::spawn("exchange", async move {
        let mut told = false;
        loop {
            let next = tokio::select! {
                next = messages.next() => next,
                () = out.closed() => None,
                () = closing.cancelled(), if !told => {
                    told = true;
                    let closing = FromWorker { what: Some(from_worker::What::Closing(Closing {})) };
                    if out.send(Ok(closing)).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let Some(Ok(message)) = next else { return };
            if let Err(status) = exchange.take(message) {
                // The caller sees its exchange end, whether it reads why or not.
                let _ = out.send(Err(status)).await;
                return;
            }
        }
    });
    answers
}

struct Exchange {
    worker: Arc<dyn Worker>,
    out: Out,
    versions: Map<u32, Arc<FunctionVersion>>,
    running: Arc<Mutex<Map<u64, AbortHandle>>>,
    /// Calls whose events are not complete yet.
    begun: Map<u64, (Call, Pieces)>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        for call in self.running.lock().values() {
            call.abort();
        }
    }
}

impl Exchange {
    /// Acts on a message.
    ///
    /// # Errors
    /// When the caller does not keep to the protocol.
    fn take(&mut self, message: FromCaller) -> Result<(), Status> {
        match message.what {
            Some(from_caller::What::Begin(begin)) => self.begin(begin),
            Some(from_caller::What::Part(part)) => self.part(part),
            Some(from_caller::What::Introduce(introduce)) => self.introduce(&introduce),
            Some(from_caller::What::Forget(_)) => {
                self.versions.clear();
                Ok(())
            }
            Some(from_caller::What::Cancel(cancel)) => {
                self.begun.remove(&cancel.call);
                if let Some(call) = self.running.lock().remove(&cancel.call) {
                    call.abort();
                }
                Ok(())
            }
            // Something that a newer caller may say.
            None => Ok(()),
        }
    }

    fn introduce(&mut self, introduce: &Introduce) -> Result<(), Status> {
        if self.versions.len() >= MAX_VERSIONS {
            return Err(Status::resource_exhausted("too many versions"));
        }
        let version = unpack::<FunctionVersion>(&introduce.specification)
            .map_err(|error| Status::invalid_argument(format!("not a function version: {error}")))?;
        self.versions.insert(introduce.version, Arc::new(version));
        Ok(())
    }

    fn begin(&mut self, begin: Begin) -> Result<(), Status> {
        let version =
            self.versions.get(&begin.version).ok_or_else(|| Status::invalid_argument("an unknown version"))?;
        let id = id_number(&begin.invocation).ok_or_else(|| Status::invalid_argument("not an invocation's id"))?;
        let call = Call {
            id: InvocationId::from_number(id),
            version: Arc::clone(version),
            event: begin.event,
            timeout: (begin.timeout_us > 0).then(|| Duration::from_micros(begin.timeout_us)),
            account: Account {
                user: (!begin.user.is_empty()).then(|| begin.user.into()),
                by_caller: begin.counted_by_caller,
            },
            trace: (!begin.traceparent.is_empty()).then(|| begin.traceparent.into()),
        };
        if !begin.more {
            self.run(begin.call, call);
        } else if self.begun.len() < MAX_BEGUN {
            let pieces = Pieces::new(&call.event);
            self.begun.insert(begin.call, (call, pieces));
        } else {
            self.refuse(begin.call, "too many large events are on their way");
        }
        Ok(())
    }

    fn part(&mut self, part: Part) -> Result<(), Status> {
        // Of a call that was cancelled or refused meanwhile there is nothing to add to.
        let Some((_, pieces)) = self.begun.get_mut(&part.call) else { return Ok(()) };
        pieces.add(&part.data).map_err(|_| Status::resource_exhausted("an event without end"))?;
        if !part.more
            && let Some((mut call, pieces)) = self.begun.remove(&part.call)
        {
            call.event = pieces.whole();
            self.run(part.call, call);
        }
        Ok(())
    }

    fn run(&self, number: u64, call: Call) {
        let mut running = self.running.lock();
        if running.len() >= MAX_CALLS {
            drop(running);
            return self.refuse(number, "too many calls at once");
        }
        let (worker, out, calls) = (Arc::clone(&self.worker), self.out.clone(), Arc::clone(&self.running));
        // The lock is held until the call is entered, and the task takes it to leave: in that order.
        let task = lyra_kit::tasks::spawn("exchanged-call", async move {
            let reply = worker.invoke(call).await;
            send(&out, number, reply).await;
            calls.lock().remove(&number);
        });
        running.insert(number, task.abort_handle());
    }

    fn refuse(&self, number: u64, why: &str) {
        let error = Error::new(Code::Overloaded, why).with_retry_after(Duration::from_secs(1));
        let (out, report) = (self.out.clone(), Report::default());
        lyra_kit::tasks::spawn("refused-call", async move {
            let outcome = Some(end::Outcome::Error(from_error(&error)));
            let end = End { call: number, report: Some(report), outcome, more: false };
            let _ = out.send(Ok(FromWorker { what: Some(from_worker::What::End(end)) })).await;
        });
    }
}

/// Sends an answer, a large one in parts. Nobody may be there any more to read it.
async fn send(out: &Out, call: u64, reply: Reply) {
    let report = Some(from_report(&reply.report));
    let mut rest = Bytes::new();
    let (outcome, mut more) = match reply.outcome {
        Ok(result) => {
            rest = result;
            let (first, more) = cut(&mut rest);
            (end::Outcome::Result(first), more)
        }
        Err(error) => (end::Outcome::Error(from_error(&error)), false),
    };
    let end = End { call, report, outcome: Some(outcome), more };
    let mut message = from_worker::What::End(end);
    while out.send(Ok(FromWorker { what: Some(message) })).await.is_ok() && more {
        let (data, left) = cut(&mut rest);
        message = from_worker::What::Part(Part { call, data, more: left });
        more = left;
    }
}
