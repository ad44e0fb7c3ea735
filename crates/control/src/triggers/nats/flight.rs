//! A batch that is under way: its job is waited for, its messages are kept from coming again meanwhile, then acknowledged.

use std::time::Duration;

use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{AckKind, Context};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use lyra_store::objects::{Change, Check, Pages};
use lyra_types::job::JobStatus;
use lyra_types::trigger::{TriggerCounts, TriggerRequest};
use lyra_types::{Code, Error, JobId, Result, TenantName, TriggerName};
use lyra_wire::control::Submit;

use super::super::Triggers;
use super::super::record::{Flight, Record, flight_key, flights_of, key, put, read};
use super::super::tally::Whose;
use super::{Fault, fault};

/// Acknowledgements that are waited for at the same time.
const ACKS_AT_ONCE: usize = 64;
/// Wait before a job is looked at again where looking failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Batches read at once.
const PAGE: usize = 200;
/// Batches written off at once.
const AT_ONCE: usize = 100;

impl Triggers {
    /// The batches of a trigger that are written down.
    pub(super) async fn flights(&self, (tenant, name): &Whose, uid: u64) -> Result<Vec<Flight>> {
        let prefix = format!("{}{uid:016x}/", flights_of(tenant, name));
        let (mut flights, mut pages) = (Vec::new(), Pages::of(self.objects.as_ref(), &prefix, PAGE));
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                flights.push(read(entry)?);
            }
        }
        Ok(flights)
    }

    /// Writes a batch down, then hands in its job.
    pub(super) async fn take_off(&self, whose: &Whose, record: &Record, flight: &Flight, event: Bytes) -> Result<()> {
        let (tenant, name) = whose;
        // First: where there is no function there is nothing to write down.
        let version = self.version_for(tenant, &record.trigger)?;
        let there = Check::Exists(key(tenant, name));
        let place = flight_key(tenant, name, record.uid, flight.job);
        if !self.commit(vec![there], vec![put(place.clone(), flight)?]).await? {
            return Err(Error::not_found("trigger", name));
        }
        let id = Some(flight.job);
        let submit = Submit { id, version, event, idempotency_key: None, user: None, destinations: None };
        if let Err(error) = self.jobs.submit(submit).await {
            // Refused for certain: its messages come again. Of others the record finds out later whether there is a job.
            if !matches!(error.code, Code::Unavailable | Code::Internal) {
                self.commit(Vec::new(), vec![Change::Delete(place)]).await?;
            }
            return Err(error);
        }
        self.metrics.trigger_batches.with_label_values(&["submitted"]).inc();
        Ok(())
    }

    /// Sees a batch to its end, up to the acknowledgement of its messages. What is written down of it says so then, or is gone where
    /// there never was a job.
    pub(super) async fn fly(
        &self,
        (tenant, name): &Whose,
        record: &Record,
        mut flight: Flight,
        jetstream: &Context,
    ) -> Result<Flight, Fault> {
        let status = loop {
            let begun = self.clock.instant();
            match self.jobs.get(tenant, flight.job, self.config.ack_wait / 3).await {
                Ok(found) if found.job.status.is_final() => break Some(found.job.status),
                Ok(_) => {}
                // It was never handed in.
                Err(error) if error.code == Code::NotFound => break None,
                Err(error) => tracing::warn!(%tenant, trigger = %name, %error, "the job of a batch can't be looked at"),
            }
            self.tell(jetstream, &flight, AckKind::Progress).await?;
            // Not at once again, where nobody could wait for the job.
            if self.clock.instant().duration_since(begun) < AGAIN {
                self.clock.sleep(AGAIN).await;
            }
        };
        let place = flight_key(tenant, name, record.uid, flight.job);
        let written = match status {
            None => {
                self.tell(jetstream, &flight, AckKind::Nak(None)).await?;
                self.commit(Vec::new(), vec![Change::Delete(place)]).await
            }
            Some(status) => {
                let kind = if status == JobStatus::Succeeded { AckKind::Ack } else { AckKind::Term };
                let told = self.acknowledge(jetstream, &flight, kind).await;
                // One that others have begun may be acknowledged already, and NATS need not say so again.
                if flight.own {
                    told?;
                }
                self.landed(tenant, name, record, &flight, status);
                flight.landed = true;
                let landed = put(place.clone(), &flight).map_err(|error| error.detail)?;
                // It is gone where its trigger is.
                self.commit(vec![Check::Exists(place)], vec![landed]).await
            }
        };
        written.map_err(fault("the end of a batch can't be written down"))?;
        Ok(flight)
    }

    /// Forgets batches, which are over for certain.
    pub(super) async fn write_off(&self, (tenant, name): &Whose, uid: u64, jobs: &[JobId]) -> Result<(), Fault> {
        for jobs in jobs.chunks(AT_ONCE) {
            let over = jobs.iter().map(|job| Change::Delete(flight_key(tenant, name, uid, *job))).collect();
            self.commit(Vec::new(), over).await.map_err(fault("batches that are over can't be written off"))?;
        }
        Ok(())
    }

    fn landed(&self, tenant: &TenantName, name: &TriggerName, record: &Record, flight: &Flight, status: JobStatus) {
        let mut counts = TriggerCounts::default();
        let outcome = match status {
            JobStatus::Succeeded => {
                counts.succeeded = 1;
                "succeeded"
            }
            JobStatus::Dead => {
                counts.dead = 1;
                "dead"
            }
            _ => {
                counts.failed = 1;
                "failed"
            }
        };
        if status != JobStatus::Succeeded {
            let messages = flight.sequences.len();
            tracing::warn!(%tenant, trigger = %name, job = %flight.job, messages, outcome, "a batch was given up");
        }
        self.metrics.trigger_batches.with_label_values(&[outcome]).inc();
        self.tally.count(&(tenant.clone(), name.clone()), record.uid, counts);
    }

    /// Tells NATS something of each message, without waiting for an answer.
    pub(super) async fn tell(&self, jetstream: &Context, flight: &Flight, kind: AckKind) -> Result<(), Fault> {
        let client = jetstream.client();
        for ack in &flight.acks {
            client.publish(ack.clone(), kind.into()).await.map_err(fault("can't write to NATS"))?;
        }
        Ok(())
    }

    /// Acknowledges each message, and has NATS say that it took note.
    async fn acknowledge(&self, jetstream: &Context, flight: &Flight, kind: AckKind) -> Result<(), Fault> {
        let acking = flight.acks.iter().map(|ack| {
            let acker = Acker::new(jetstream.clone(), Some(ack.clone().into()));
            async move { acker.double_ack_with(kind).await.map_err(fault("NATS does not take an acknowledgement")) }
        });
        let acking: Vec<_> = acking.collect();
        futures::stream::iter(acking).buffer_unordered(ACKS_AT_ONCE).try_collect().await
    }
}

/// How many messages of a trigger may be without an acknowledgement.
pub(super) fn most_pending(request: &TriggerRequest) -> i64 {
    i64::from(request.batch_size) * i64::from(request.max_in_flight)
}
