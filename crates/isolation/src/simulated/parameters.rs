//! What a simulated function does: the parameters that are its code, and what an event changes of them for one call.

use bytes::Bytes;
use lyra_types::error::{FieldError, Thrown};
use lyra_types::{Code, Error};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::spread::Spread;

/// Most lines that one call may be asked to log.
const MAX_LINES: u32 = 1_000_000;
/// Most bytes that a made-up result may have.
const MAX_RESULT: usize = 64 << 20;

/// The code of a simulated function. Every field may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Parameters {
    /// From nothing to an instance that takes a call.
    pub(super) start_ms: Spread,
    /// In the handler.
    pub(super) exec_ms: Spread,
    /// From hibernated to ready.
    pub(super) wake_ms: Spread,
    /// How long an instance of a session lives; 0: until it is ended.
    pub(super) lives_ms: Spread,
    /// From being asked to end to the end, for an instance of a session.
    pub(super) stop_ms: Spread,
    /// Memory of an instance, in MiB.
    pub(super) memory_mb: u32,
    /// Memory of a hibernated instance, in MiB.
    pub(super) hibernated_mb: u32,
    /// Share of the starts that fail.
    pub(super) start_failure_rate: f64,
    /// Share of the calls that throw.
    pub(super) failure_rate: f64,
    /// Share of the calls in which the instance dies, at some moment of its time in the handler.
    pub(super) crash_rate: f64,
    /// Share of the calls after which the instance looks well but fails its next probe.
    pub(super) sick_rate: f64,
    /// Lines that a call logs.
    pub(super) log_lines: u32,
    /// What a call answers with.
    pub(super) answer: Answer,
    /// The result, for `"answer": "result"`. Any JSON; `null` when it is left out.
    pub(super) result: Option<Box<RawValue>>,
    /// Instead of `result`: a string of so many bytes, its quotes included.
    pub(super) result_bytes: Option<usize>,
    /// `result` or `result_bytes`, made once.
    #[serde(skip)]
    pub(super) fixed: Bytes,
}

/// What a call answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    /// `result` or `result_bytes`.
    #[default]
    Result,
    /// The event.
    Event,
    /// How many calls the instance has taken, this one included.
    Calls,
}

/// What an event changes for its own call. Other fields of the event are left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Overrides {
    pub(super) exec_ms: Option<Spread>,
    pub(super) memory_mb: Option<u32>,
    pub(super) failure_rate: Option<f64>,
    pub(super) crash_rate: Option<f64>,
    pub(super) sick_rate: Option<f64>,
    pub(super) log_lines: Option<u32>,
    pub(super) answer: Option<Answer>,
    pub(super) result: Option<Box<RawValue>>,
    pub(super) result_bytes: Option<usize>,
}

impl Parameters {
    /// Reads a function's code.
    ///
    /// # Errors
    /// [`Code::InvalidCode`] with line and column, or with the field that is out of range.
    pub(super) fn parse(code: &[u8], memory_limit_mb: u32) -> Result<Parameters, Error> {
        let mut read: Parameters = serde_json::from_slice(code).map_err(|error| {
            let mut field = FieldError::new("code.source", error.to_string());
            let place = |at: usize| u32::try_from(at).ok().filter(|at| *at > 0);
            (field.line, field.column) = (place(error.line()), place(error.column()));
            let detail = format!("the parameters of a simulated function can't be read: {error}");
            Error::new(Code::InvalidCode, detail).with_field(field)
        })?;
        if let Some((name, reason)) = read.fault(memory_limit_mb) {
            let detail = format!("{name} of a simulated function {reason}");
            return Err(Error::new(Code::InvalidCode, detail).with_field(FieldError::new("code.source", reason)));
        }
        read.fixed = fixed(read.result.take(), read.result_bytes);
        Ok(read)
    }

    fn fault(&self, memory_limit_mb: u32) -> Option<(&'static str, String)> {
        let spreads = [
            ("start_ms", self.start_ms),
            ("exec_ms", self.exec_ms),
            ("wake_ms", self.wake_ms),
            ("lives_ms", self.lives_ms),
            ("stop_ms", self.stop_ms),
        ];
        let rates = [
            ("start_failure_rate", self.start_failure_rate),
            ("failure_rate", self.failure_rate),
            ("crash_rate", self.crash_rate),
            ("sick_rate", self.sick_rate),
        ];
        let spread = spreads.into_iter().find_map(|(name, spread)| Some((name, spread.fault()?.to_owned())));
        let rate = || rates.into_iter().find_map(|(name, rate)| Some((name, rate_fault(rate)?)));
        let memory = || {
            let most = self.memory_mb.max(self.hibernated_mb);
            let text = format!("is {most} MiB, more than the function's limit of {memory_limit_mb} MiB");
            (most > memory_limit_mb).then_some(("memory_mb", text))
        };
        spread.or_else(rate).or_else(memory).or_else(|| sizes_fault(self.log_lines, self.result_bytes))
    }
}

fn rate_fault(rate: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&rate)).then(|| "must be from 0 to 1".to_owned())
}

fn sizes_fault(lines: u32, bytes: Option<usize>) -> Option<(&'static str, String)> {
    if lines > MAX_LINES {
        return Some(("log_lines", format!("must be at most {MAX_LINES}")));
    }
    bytes.is_some_and(|bytes| bytes > MAX_RESULT).then(|| ("result_bytes", format!("must be at most {MAX_RESULT}")))
}

/// The result that does not depend on the call.
pub(super) fn fixed(result: Option<Box<RawValue>>, bytes: Option<usize>) -> Bytes {
    match (bytes, result) {
        (Some(bytes), _) => Bytes::from(format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)))),
        (None, Some(result)) => Bytes::from(result.get().to_owned()),
        (None, None) => Bytes::from_static(b"null"),
    }
}

impl Overrides {
    /// What an event changes; nothing when it is no object. An empty one costs no parsing.
    ///
    /// # Errors
    /// [`Code::FunctionError`] when a field is out of range or of another type.
    pub(super) fn of(event: &[u8]) -> Result<Option<Overrides>, Error> {
        if event.first() != Some(&b'{') || event == b"{}" {
            return Ok(None);
        }
        let thrown =
            |message: String| Error::thrown(Thrown { name: "InvalidParameter".into(), message, stack: String::new() });
        let read: Overrides = serde_json::from_slice(event).map_err(|error| thrown(format!("the event: {error}")))?;
        match read.fault() {
            Some((name, reason)) => Err(thrown(format!("{name} {reason}"))),
            None => Ok(Some(read)),
        }
    }

    fn fault(&self) -> Option<(&'static str, String)> {
        if let Some(reason) = self.exec_ms.and_then(|exec| exec.fault()) {
            return Some(("exec_ms", reason.to_owned()));
        }
        let rates =
            [("failure_rate", self.failure_rate), ("crash_rate", self.crash_rate), ("sick_rate", self.sick_rate)];
        let rate = rates.into_iter().find_map(|(name, rate)| Some((name, rate_fault(rate?)?)));
        rate.or_else(|| sizes_fault(self.log_lines.unwrap_or(0), self.result_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_where_they_are() {
        for (code, says, line) in [
            ("{\n \"exec_ms\": 1,\n \"exce_ms\": 2}", "unknown field `exce_ms`", Some(3)),
            ("{\"exec_ms\": \"soon\"}", "milliseconds", Some(1)),
            ("{\"failure_rate\": 2}", "failure_rate of a simulated function must be from 0 to 1", None),
            ("{\"memory_mb\": 500}", "limit of 128 MiB", None),
            ("{\"start_ms\": {\"median\": 1, \"sigma\": 70}}", "start_ms", None),
            ("[", "EOF", Some(1)),
        ] {
            let error = Parameters::parse(code.as_bytes(), 128).expect_err(code);
            assert_eq!(error.code, Code::InvalidCode);
            assert!(error.detail.contains(says), "{}", error.detail);
            assert_eq!(error.errors[0].line, line, "{code}");
        }
    }

    #[test]
    fn everything_may_be_left_out() {
        let parameters = Parameters::parse(b"{}", 128).expect("reads");
        assert_eq!((parameters.exec_ms, &parameters.fixed[..]), (Spread::Fixed(0.0), &b"null"[..]));
        assert_eq!(fixed(None, Some(10)).len(), 10);
    }

    #[test]
    fn an_event_changes_its_own_call_only_where_it_says_so() {
        assert!(Overrides::of(b"null").expect("no object").is_none());
        assert!(Overrides::of(b"{}").expect("empty").is_none());
        let read = Overrides::of(br#"{"exec_ms": 5, "name": "Ada"}"#).expect("reads").expect("an object");
        assert_eq!(read.exec_ms, Some(Spread::Fixed(5.0)));
        assert_eq!(Overrides::of(br#"{"crash_rate": 7}"#).expect_err("too much").code, Code::FunctionError);
        assert!(Overrides::of(br#"{"exec_ms": "#).is_err());
    }
}
