//! Sentences that callers see when a call could not be run.

use std::time::Duration;

use lyra_types::{Code, Error, FunctionVersion};

use crate::config::Config;
use crate::queue::Refused;

/// The answer to a call that was refused.
pub(crate) fn refused(refused: Refused, version: &FunctionVersion, config: &Config) -> Error {
    match refused {
        Refused::FunctionFull => Error::new(
            Code::LimitReached,
            format!(
                "function {} already runs {} calls at once (its concurrency) and {} more wait; try again, or deploy it with a higher concurrency",
                version.function,
                crate::concurrency(version),
                config.max_queued_per_function,
            ),
        ),
        Refused::WorkerFull => Error::new(
            Code::Overloaded,
            format!("{} calls already wait on this worker, as many as may (max_queued); try again", config.max_queued),
        ),
        Refused::Closed => Error::new(Code::Unavailable, "this worker is shutting down; try again"),
    }
    .with_retry_after(Duration::from_secs(1))
}

/// The answer to a call that waited too long for a place.
pub(crate) fn waited_too_long(version: &FunctionVersion, config: &Config) -> Error {
    Error::new(
        Code::Overloaded,
        format!(
            "no place to run function {} came free in {} s (queue_timeout): all places, or all processors, are in use; try again",
            version.function,
            config.queue_timeout.as_secs_f64()
        ),
    )
    .with_retry_after(Duration::from_secs(1))
}

/// The answer to a call whose instance did not start in time.
pub(crate) fn start_too_slow(version: &FunctionVersion, config: &Config) -> Error {
    Error::new(
        Code::Overloaded,
        format!(
            "no instance of {} started in {} s (start_timeout); try again",
            version.function,
            config.start_timeout.as_secs_f64()
        ),
    )
    .with_retry_after(Duration::from_secs(1))
}

/// The answer to a call that waited too long for memory, processors or GPUs.
pub(crate) fn no_room(version: &FunctionVersion, config: &Config) -> Error {
    Error::new(
        Code::Overloaded,
        format!(
            "the {} MiB of memory, the processors or the GPUs for an instance of {} did not come free in {} s (queue_timeout): all are in use; try again",
            version.memory_mb,
            version.function,
            config.queue_timeout.as_secs_f64()
        ),
    )
    .with_retry_after(Duration::from_secs(1))
}

/// The answer to a call whose instance could not be here if there were no other: another worker may have what it needs.
pub(crate) fn too_large(version: &FunctionVersion) -> Error {
    let (cores, gpus) = (f64::from(version.cpu_millis) / 1_000.0, version.gpus);
    Error::new(
        Code::Overloaded,
        format!(
            "an instance of {} needs {} MiB of memory, {cores} processors and {gpus} GPUs, and this worker has less than that for all instances together",
            version.function, version.memory_mb
        ),
    )
    .with_retry_after(Duration::from_secs(1))
}

/// The answer to a call that finds the worker going away.
pub(crate) fn closing() -> Error {
    Error::new(Code::Unavailable, "this worker is shutting down; try again").with_retry_after(Duration::from_secs(1))
}
