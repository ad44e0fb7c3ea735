//! What instances may hold together: memory, processors, GPUs.
//!
//! An instance is charged for before it starts and until it is gone, so the sum of what is charged never exceeds what
//! the worker has, times a factor where the configuration gives one. A charge that fits exactly is granted.
//!
//! What counts: an instance's memory limit (a hibernated one: what it still holds), for as long as it lives; its
//! processors, while it starts or serves a call, since an idle one uses none; its GPUs, for as long as it lives.
//! Instances of `js` and `wasm` that are made for one call alone are not charged here: their engine has a budget of
//! its own and counts what they really use. Those that are kept are charged, but use no processors of their own.
//!
//! Nothing here waits: the pool keeps those that found too little.

pub mod gpu;
pub(crate) mod ledger;

use lyra_types::{Code, Error, FunctionVersion, Runtime};

use serde::{Deserialize, Serialize};

pub(crate) use ledger::{Held, Ledger};

/// How much a worker may charge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of memory; `None`: not limited here.
    pub memory: Option<u64>,
    /// Memory may be charged so many times over; 1: never more than there is.
    pub memory_factor: f64,
    /// Thousandths of a core; `None`: not limited here.
    pub cpu_millis: Option<u64>,
    /// Processors may be charged so many times over; 1: never more than there are. More suits functions that mostly wait for
    /// others: what a version asks for is a ceiling for each of its instances.
    pub cpu_factor: f64,
    /// Instances that may share one GPU; each is meant to use that part of its memory.
    pub gpu_slots: u32,
    /// Bytes of memory that are kept free: idle instances go before the next start needs their place.
    pub memory_buffer: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { memory: None, memory_factor: 1.0, cpu_millis: None, cpu_factor: 1.0, gpu_slots: 1, memory_buffer: 0 }
    }
}

impl Config {
    /// Memory that may be charged, in bytes.
    pub(crate) fn memory_total(&self) -> Option<u64> {
        self.memory.map(|bytes| times(bytes, self.memory_factor))
    }

    /// Processor time that may be charged, in thousandths of a core.
    pub(crate) fn cpu_total(&self) -> Option<u64> {
        self.cpu_millis.map(|millis| times(millis, self.cpu_factor))
    }
}

fn times(amount: u64, factor: f64) -> u64 {
    // A factor that is no number charges nothing more than there is.
    if factor.is_finite() && factor > 0.0 { (amount as f64 * factor) as u64 } else { amount }
}

/// What one instance is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Need {
    /// Bytes, until the instance is gone.
    pub(crate) memory: u64,
    /// Thousandths of a core, while it starts or serves.
    pub(crate) cpu: u64,
    /// Devices, until the instance is gone.
    pub(crate) gpus: u32,
}

impl Need {
    /// Counts what an instance holds.
    pub(crate) fn add(&mut self, held: &Held) {
        self.memory += held.memory;
        self.cpu += held.cpu;
        self.gpus += held.gpus.len() as u32;
    }

    /// Counts it no more.
    pub(crate) fn take(&mut self, held: &Held) {
        self.memory -= held.memory;
        self.cpu -= held.cpu;
        self.gpus -= held.gpus.len() as u32;
    }

    /// What an instance of the version is charged for; `None` where its engine's own budget governs it.
    pub(crate) fn of(version: &FunctionVersion) -> Option<Need> {
        let in_engine = matches!(version.runtime, Runtime::Js | Runtime::Wasm);
        if in_engine && !version.reuse {
            return None;
        }
        Some(Need {
            memory: version.memory_bytes() as u64,
            cpu: if in_engine { 0 } else { u64::from(version.cpu_millis) },
            gpus: version.gpus,
        })
    }
}

/// Refuses what no instance could ever be granted on this worker.
///
/// # Errors
/// [`Code::InvalidField`], one field for each resource at fault.
pub(crate) fn check_fits(
    config: &Config,
    asked: &lyra_wire::worker::Prepare,
    devices: usize,
    no_gpus: Option<&str>,
) -> Result<(), Error> {
    let (runtime, gpus) = (asked.runtime, asked.gpus);
    let mut reasons = Vec::new();
    let in_engine = matches!(runtime, Runtime::Js | Runtime::Wasm);
    // A factor lets several instances share; it makes no single one larger than the machine.
    let most = |amount: Option<u64>, total: Option<u64>| amount.map(|amount| amount.min(total.unwrap_or(amount)));
    let memory = most(config.memory, config.memory_total()).map(|bytes| bytes >> 20);
    if let Some(most) = memory.filter(|most| u64::from(asked.memory_mb) > *most) {
        let asked = asked.memory_mb;
        reasons.push(("memory_mb", format!("{asked} MiB are more than this worker has for instances, {most} MiB")));
    }
    let cpu = most(config.cpu_millis, config.cpu_total());
    if let Some(most) = cpu.filter(|most| !in_engine && u64::from(asked.cpu_millis) > *most) {
        let asked = asked.cpu_millis;
        reasons.push(("cpu_millis", format!("{asked} are more than this worker has for instances, {most}")));
    }
    if gpus > 0 && in_engine {
        reasons.push(("gpus", format!("instances of runtime {runtime} can't use GPUs")));
    } else if gpus as usize > devices {
        let reason = match no_gpus {
            Some(why) if devices == 0 => format!("this worker has no GPU: {why}"),
            _ => format!("{gpus} are more than this worker has, {devices}"),
        };
        reasons.push(("gpus", reason));
    }
    let mut reasons = reasons.into_iter();
    let Some((field, reason)) = reasons.next() else { return Ok(()) };
    let error = Error::field(Code::InvalidField, field, reason);
    Err(reasons
        .fold(error, |error, (field, reason)| error.with_field(lyra_types::error::FieldError::new(field, reason))))
}
