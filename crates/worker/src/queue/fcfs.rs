//! First come, first served, within each function's concurrency limit. Pure state, no waiting.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

use super::Limits;

/// A place in the queue: the order of arrival, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    order: u64,
    function: u64,
}

impl Ticket {
    pub(super) fn function(self) -> u64 {
        self.function
    }
}

/// What happens with a call that arrives.
#[derive(Debug)]
pub(super) enum Admission {
    Run,
    Wait(Ticket, oneshot::Receiver<()>),
}

/// Why a call can't even wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Function,
    Worker,
    Closed,
}

#[derive(Debug, Default)]
struct Function {
    running: usize,
    limit: usize,
    /// Waits for the function's own limit.
    held: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// Of this function, in the worker's queue: counts towards the limit already.
    eligible: usize,
}

impl Function {
    fn has_room(&self) -> bool {
        self.running + self.eligible < self.limit
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && self.eligible == 0 && self.held.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Fcfs {
    limits: Limits,
    closed: bool,
    next: u64,
    running: usize,
    held: usize,
    functions: HashMap<u64, Function>,
    /// Waits for the worker's limit only.
    eligible: BTreeMap<Ticket, oneshot::Sender<()>>,
}

impl Fcfs {
    pub(super) fn new(limits: Limits) -> Fcfs {
        Fcfs {
            limits,
            closed: false,
            next: 0,
            running: 0,
            held: 0,
            functions: HashMap::new(),
            eligible: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> (usize, usize) {
        (self.running, self.held + self.eligible.len())
    }

    pub(super) fn arrive(&mut self, id: u64, limit: usize) -> Result<Admission, Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        let queued = self.held + self.eligible.len();
        let function = self.functions.entry(id).or_default();
        function.limit = limit.max(1);
        let has_room = function.has_room() && function.held.is_empty();
        if has_room && self.running < self.limits.running && self.eligible.is_empty() {
            function.running += 1;
            self.running += 1;
            return Ok(Admission::Run);
        }
        if !has_room && function.held.len() >= self.limits.queued_per_function {
            return Err(Refusal::Function);
        }
        if queued >= self.limits.queued {
            self.drop_if_idle(id);
            return Err(Refusal::Worker);
        }
        let ticket = Ticket { order: self.next, function: id };
        self.next += 1;
        let (grant, granted) = oneshot::channel();
        if has_room {
            function.eligible += 1;
            self.eligible.insert(ticket, grant);
        } else {
            function.held.insert(ticket, grant);
            self.held += 1;
        }
        Ok(Admission::Wait(ticket, granted))
    }

    /// A call has ended.
    pub(super) fn leave(&mut self, id: u64) {
        self.running -= 1;
        if let Some(function) = self.functions.get_mut(&id) {
            function.running -= 1;
        }
        self.promote(id);
        self.grant();
    }

    /// Takes a call out of the queue; false when it is not in it (any more).
    pub(super) fn give_up(&mut self, ticket: Ticket) -> bool {
        if self.eligible.remove(&ticket).is_some() {
            if let Some(function) = self.functions.get_mut(&ticket.function) {
                function.eligible -= 1;
            }
            self.promote(ticket.function);
            self.grant();
            return true;
        }
        let held =
            self.functions.get_mut(&ticket.function).is_some_and(|function| function.held.remove(&ticket).is_some());
        if held {
            self.held -= 1;
            self.drop_if_idle(ticket.function);
        }
        held
    }

    /// Refuses all that wait: their senders are dropped.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.eligible.clear();
        self.held = 0;
        for function in self.functions.values_mut() {
            function.held.clear();
            function.eligible = 0;
        }
        self.functions.retain(|_, function| !function.is_idle());
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.eligible.is_empty() && self.running == 0 && self.held == 0
    }

    /// Lets the function's longest waiting calls through its own limit.
    fn promote(&mut self, id: u64) {
        let Some(function) = self.functions.get_mut(&id) else { return };
        while function.has_room() {
            let Some((ticket, grant)) = function.held.pop_first() else { break };
            function.eligible += 1;
            self.held -= 1;
            self.eligible.insert(ticket, grant);
        }
        self.drop_if_idle(id);
    }

    /// Lets the longest waiting calls run while there is room.
    fn grant(&mut self) {
        while self.running < self.limits.running {
            let Some((ticket, grant)) = self.eligible.pop_first() else { break };
            let Some(function) = self.functions.get_mut(&ticket.function) else { continue };
            function.eligible -= 1;
            // The receiver lives as long as its ticket is in the queue, so this fails only for a call that is
            // being dropped at this moment; its place goes to the next one.
            if grant.send(()).is_ok() {
                function.running += 1;
                self.running += 1;
            }
        }
    }

    fn drop_if_idle(&mut self, id: u64) {
        if self.functions.get(&id).is_some_and(Function::is_idle) {
            self.functions.remove(&id);
        }
    }
}
