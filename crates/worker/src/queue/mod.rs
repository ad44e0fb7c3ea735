//! The invocation queue: which call runs now, which waits, which is refused.
//!
//! Two limits hold at once: calls that run on this worker, and calls that run of one function (its
//! `concurrency`). A call that finds both free runs at once and touches no queue. Otherwise it waits in the order of
//! arrival: behind its own function's limit, then behind the worker's. A function at its limit never holds up
//! another function. Both queues are bounded; the wait has a deadline, which the caller enforces by dropping the
//! future of [`Queue::admit`].

mod fcfs;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use fcfs::{Admission, Fcfs, Refusal, Ticket};

/// Sizes of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls that run at once.
    pub running: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Calls of one function that wait.
    pub queued_per_function: usize,
}

/// Why a call was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many calls of the function wait behind its concurrency limit.
    #[error("too many calls of the function wait")]
    FunctionFull,
    /// Too many calls wait on this worker.
    #[error("too many calls wait on the worker")]
    WorkerFull,
    /// The worker takes no more calls.
    #[error("the worker is draining")]
    Closed,
}

/// The queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    state: Arc<Mutex<Fcfs>>,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Queue {
        Queue { state: Arc::new(Mutex::new(Fcfs::new(limits))) }
    }

    /// Waits for a place. `function` tells functions apart; `concurrency` is its limit.
    ///
    /// Dropping the future gives the place in the queue up.
    ///
    /// # Errors
    /// At once, when a queue is full or closed.
    pub async fn admit(&self, function: u64, concurrency: usize) -> Result<Permit, Refused> {
        let admission = self.state.lock().arrive(function, concurrency);
        match admission {
            Ok(Admission::Run) => Ok(Permit { state: self.state.clone(), function }),
            Ok(Admission::Wait(ticket, granted)) => {
                Waiting { state: &self.state, ticket, granted, done: false }.admitted().await
            }
            Err(Refusal::Function) => Err(Refused::FunctionFull),
            Err(Refusal::Worker) => Err(Refused::WorkerFull),
            Err(Refusal::Closed) => Err(Refused::Closed),
        }
    }

    /// Refuses further calls and those that wait; the ones that run go on.
    pub fn close(&self) {
        self.state.lock().close();
    }

    /// Calls that run, calls that wait.
    pub fn len(&self) -> (usize, usize) {
        self.state.lock().len()
    }
}

/// A place to run. Dropping it lets the next call in.
#[derive(Debug)]
pub struct Permit {
    state: Arc<Mutex<Fcfs>>,
    function: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.lock().leave(self.function);
    }
}

/// Keeps the count right when a waiting call is dropped, before or after it was let in.
struct Waiting<'a> {
    state: &'a Arc<Mutex<Fcfs>>,
    ticket: Ticket,
    granted: oneshot::Receiver<()>,
    done: bool,
}

impl Waiting<'_> {
    async fn admitted(mut self) -> Result<Permit, Refused> {
        let outcome = (&mut self.granted).await;
        self.done = true;
        match outcome {
            Ok(()) => Ok(Permit { state: self.state.clone(), function: self.ticket.function() }),
            Err(_) => Err(Refused::Closed),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.state.lock();
        let was_let_in = !state.give_up(self.ticket) && self.granted.try_recv().is_ok();
        if was_let_in {
            state.leave(self.ticket.function());
        }
    }
}

#[cfg(test)]
mod tests;
