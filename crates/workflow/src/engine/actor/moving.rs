//! How far a run moves before others get their turn.
//!
//! What must hold: however much follows from one entry (a loop in a loop of which no iteration calls anything), the run gives
//! way after some milliseconds, sees that it is cancelled or out of time, and goes on where it was; no entry but the one that
//! ends the run comes before all has been done that follows from the one before, since whoever reads the journal back knows
//! nothing of turns.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use lyra_wire::workflows::RunCommand;

use super::{Actor, Answer, Answered, BATCH, BATCH_BYTES, INTAKE, MAILBOX, Message};
use crate::core::{Effect, Enact, Extent};
use crate::enact::Failure;
use crate::engine::journal::TURN;
use crate::engine::values;

impl Actor {
    /// Moves the core as far as this turn goes.
    pub(super) fn advance(&mut self) {
        let before = self.core.moved();
        self.core.advance(self.budget);
        self.budget = self.budget.saturating_sub(self.core.moved() - before);
    }

    /// Whether it is others' turn.
    pub(super) fn is_tired(&self) -> bool {
        self.core.outcome().is_none() && (self.budget == 0 || self.core.is_busy())
    }

    /// Whether there is much to write.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= BATCH || self.entry_bytes >= BATCH_BYTES
    }

    /// Adds what the run holds to what all runs of this host hold. Where that is too much, a run ends that holds more than its
    /// part.
    pub(super) fn weigh(&mut self) {
        let held = self.core.held_bytes();
        let before = std::mem::replace(&mut self.weighed, held);
        let all = &self.inner.held_bytes;
        let all = match held.checked_sub(before) {
            Some(0) => all.load(Ordering::Relaxed),
            Some(more) => all.fetch_add(more, Ordering::Relaxed) + more,
            None => all.fetch_sub(before - held, Ordering::Relaxed) - (before - held),
        };
        let most = self.inner.deps.config.max_host_live_bytes;
        if all <= most || self.core.outcome().is_some() {
            return;
        }
        let runs = self.inner.active.lock().len().max(1) as u64;
        if held > most / runs {
            let message = format!(
                "all runs of this host together hold {all} bytes of values, more than the limit of {most} (the setting \
                 workflow.max_host_live_bytes), and this one holds {held}, more than its part"
            );
            self.stop(Some(("limit_reached", &message)));
        }
    }

    /// Takes in what can't wait for the core to stand still.
    pub(super) fn glance(&mut self) {
        for _ in 0..INTAKE {
            if self.deferred.len() >= MAILBOX || self.core.outcome().is_some() {
                break;
            }
            match self.mail.try_recv() {
                Ok(
                    message @ (Message::Command(RunCommand::Cancel, _)
                    | Message::Freed
                    | Message::MakeSure
                    | Message::Weigh
                    | Message::Waiting(_)),
                ) => self.take(message),
                Ok(message) => self.deferred.push_back(message),
                Err(_) => break,
            }
        }
        self.stop_in_time(self.now());
    }

    /// Turn after turn, until the run stands still or there is something that has to be written first.
    pub(super) async fn go_on(&mut self) {
        loop {
            self.budget = TURN;
            self.turn();
            self.weigh();
            if !self.is_tired() {
                return;
            }
            self.glance();
            tokio::task::yield_now().await;
            let waited_for = self.doubted || !self.outward.is_empty() || !self.replies.is_empty();
            if waited_for || self.is_full() || self.core.outcome().is_some() {
                return;
            }
        }
    }

    /// Moves the core as far as it goes without anybody else: schedules what can be scheduled, computes what can be computed
    /// at once. Stops early when there is much to write, or it is others' turn.
    pub(super) fn turn(&mut self) {
        loop {
            if self.core.is_busy() {
                self.advance();
            }
            if self.is_tired() {
                return;
            }
            if std::mem::take(&mut self.resuming) {
                self.do_again();
            }
            let more = self.take_in();
            if self.is_full() || self.is_tired() || self.core.outcome().is_some() {
                return;
            }
            if !self.schedule_some() && !more {
                return;
            }
        }
    }

    /// Sorts what was under way when the journal ended. Calls had places in the process that is gone, and need new ones.
    fn do_again(&mut self) {
        for effect in self.core.resume() {
            match effect {
                Effect::Enact(enact) if self.at_once(&enact).is_none() => self.resumed.push_back(enact),
                effect => self.effects.push_back(effect),
            }
        }
    }

    /// Sorts effects: times, calls to make once the journal is written, and what is computed at once. True if there was any
    /// of the last kind.
    fn take_in(&mut self) -> bool {
        self.effects.extend(self.core.take_effects());
        let mut computed = false;
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Wake { key, at } => self.timers.push(Reverse((at, key))),
                Effect::Enact(enact) => match self.at_once(&enact) {
                    Some(outcome) => {
                        computed = true;
                        self.ended(&enact.key, enact.attempt, outcome);
                        if self.is_tired() || self.is_full() {
                            break;
                        }
                    }
                    None => self.outward.push(enact),
                },
            }
        }
        computed
    }

    fn at_once(&self, enact: &Enact) -> Option<Answered> {
        let [pick] = enact.picks.as_slice() else { return None };
        // What is not here has to be fetched.
        if values::any(&enact.input) {
            return None;
        }
        let resource = self.program.resources(&enact.function_type).get(*pick as usize)?;
        let outcome = self.inner.deps.enact.at_once(&enact.function_type, resource, &enact.input)?;
        Some(outcome.and_then(|output| {
            let most = self.inner.deps.config.max_value_bytes as u64;
            let bytes = output.values().map(|value| Extent::of(value).text).sum::<u64>();
            if bytes > most {
                let detail = format!("the answer has about {bytes} bytes, more than the limit of {most}");
                return Err(Failure::lasting("result_too_large", detail));
            }
            Ok(Answer::new(Some(resource.id()), output))
        }))
    }
}
