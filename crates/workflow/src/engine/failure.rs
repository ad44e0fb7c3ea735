//! What comes of a try that failed: another one, another function type, a value in its place, or the run's end.

use lyra_afcl::graph::{Retry, Settings};
use lyra_kit::Random;
use lyra_types::workflow::Cause;

use crate::core::Next;
use crate::enact::Failure;

/// How far a task has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tried {
    /// Tries of its present type, this one included.
    pub of_type: u32,
    /// The alternative that is tried now, if any.
    pub alternative: Option<u32>,
}

/// Decides; `now` in milliseconds since the epoch, `default_attempts` where the document names none.
pub(crate) fn decide(
    settings: &Settings,
    tried: Tried,
    failure: &Failure,
    now: i64,
    default_attempts: u32,
    random: &Random,
) -> Next {
    let retry = settings.retry.clone().unwrap_or_else(|| Retry {
        attempts: default_attempts.max(1),
        initial: Retry::default_initial(),
        factor: Retry::default_factor(),
        maximum: Retry::default_maximum(),
        jitter: Retry::default_jitter(),
        never: Vec::new(),
    });
    let again = failure.retryable && !names(&retry.never, &failure.cause) && tried.of_type < retry.attempts;
    if again {
        let wait = wait(&retry, tried.of_type, random).max(millis(failure.retry_after.unwrap_or_default()));
        return Next::Again(now.saturating_add(wait));
    }
    let Some(catch) = &settings.catch else { return Next::Fatal };
    if !catch.codes.is_empty() && !names(&catch.codes, &failure.cause) {
        return Next::Fatal;
    }
    let next = tried.alternative.map_or(0, |n| n + 1);
    if (next as usize) < catch.alternatives.len() {
        return Next::Alternative(next, now);
    }
    catch.value.clone().map_or(Next::Fatal, Next::Caught)
}

/// Whether the list names the cause, by its code or the name of the error that was thrown.
fn names(list: &[String], cause: &Cause) -> bool {
    list.iter().any(|name| *name == cause.code || cause.name.as_ref() == Some(name))
}

/// The wait before the next try, in milliseconds.
fn wait(retry: &Retry, tries: u32, random: &Random) -> i64 {
    let factor = retry.factor.max(1.0).powi(i32::try_from(tries.saturating_sub(1)).unwrap_or(i32::MAX));
    let full = (retry.initial.as_secs_f64() * factor).min(retry.maximum.as_secs_f64());
    let wait = full * (1.0 - retry.jitter.clamp(0.0, 1.0) * random.unit());
    millis(std::time::Duration::try_from_secs_f64(wait).unwrap_or(retry.maximum))
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lyra_afcl::graph::Catch;
    use serde_json::{Map, json};

    use super::*;

    fn tried(of_type: u32) -> Tried {
        Tried { of_type, alternative: None }
    }

    #[test]
    fn tries_are_counted_and_waits_grow_up_to_the_maximum() {
        let retry = Retry {
            attempts: 5,
            initial: Duration::from_secs(1),
            factor: 2.0,
            maximum: Duration::from_secs(3),
            jitter: 0.0,
            never: vec!["http_404".to_owned()],
        };
        let settings = Settings { retry: Some(retry), ..Settings::default() };
        let random = Random::seeded(1);
        let next = |tries, failure: &Failure| decide(&settings, tried(tries), failure, 10_000, 3, &random);
        let passing = Failure::passing("http_503", "busy");
        assert_eq!(next(1, &passing), Next::Again(11_000));
        assert_eq!(next(2, &passing), Next::Again(12_000));
        assert_eq!(next(3, &passing), Next::Again(13_000));
        assert_eq!(next(5, &passing), Next::Fatal, "five tries were had");
        assert_eq!(next(1, &Failure::lasting("http_400", "bad")), Next::Fatal);
        assert_eq!(next(1, &Failure::passing("http_404", "gone")), Next::Fatal, "the document rules it out");
        let asked = Failure { retry_after: Some(Duration::from_secs(9)), ..passing };
        assert_eq!(next(1, &asked), Next::Again(19_000), "the other side's wish counts");
    }

    #[test]
    fn what_is_caught_goes_to_alternatives_then_to_the_value() {
        let value: Map<_, _> = json!({"x": 1}).as_object().expect("an object").clone();
        let catch =
            Catch { codes: vec!["Broken".to_owned()], alternatives: vec!["b".to_owned()], value: Some(value.clone()) };
        let settings = Settings { catch: Some(catch), ..Settings::default() };
        let random = Random::seeded(1);
        let mut failure = Failure::lasting("function_error", "broken");
        let next = |alternative, failure: &Failure| {
            decide(&settings, Tried { of_type: 9, alternative }, failure, 5, 3, &random)
        };
        assert_eq!(next(None, &failure), Next::Fatal, "another error");
        failure.cause.name = Some("Broken".to_owned());
        assert_eq!(next(None, &failure), Next::Alternative(0, 5));
        assert_eq!(next(Some(0), &failure), Next::Caught(value));
    }
}
