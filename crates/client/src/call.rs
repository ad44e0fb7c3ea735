//! What the headers of an invocation's response tell (interfaces, section 2).

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use lyra_types::invocation::header;

/// How a call went, read from its response headers. A field is `None` where its header is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallInfo {
    /// `Lyra-Invocation-Id`.
    pub invocation: Option<String>,
    /// `Lyra-Version`.
    pub version: Option<u64>,
    /// `Lyra-Start`: `warm`, `prewarmed` or `cold`.
    pub start: Option<String>,
    /// `Lyra-Instance`: `fresh` or `reused`.
    pub instance: Option<String>,
    /// `Server-Timing`.
    pub phases: Option<PhaseTimes>,
}

/// Time by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseTimes {
    /// Waiting for a place to run.
    pub queue: Duration,
    /// Loading code and starting an instance.
    pub start: Duration,
    /// In the handler.
    pub exec: Duration,
}

impl PhaseTimes {
    /// All phases together.
    pub fn total(&self) -> Duration {
        self.queue + self.start + self.exec
    }

    /// Reads the value of `Server-Timing` (W3C): metrics it does not know are left out; `None` when it has none of ours.
    pub fn parse(value: &str) -> Option<PhaseTimes> {
        let mut phases = PhaseTimes::default();
        let mut known = false;
        for metric in value.split(',') {
            let mut parts = metric.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let duration = parts
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.trim() == "dur")
                .and_then(|(_, ms)| ms.trim().parse::<f64>().ok())
                .and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
            let field = match name {
                "queue" => &mut phases.queue,
                "start" => &mut phases.start,
                "exec" => &mut phases.exec,
                _ => continue,
            };
            if let Some(duration) = duration {
                *field = duration;
                known = true;
            }
        }
        known.then_some(phases)
    }
}

impl CallInfo {
    /// Reads the headers of a response.
    pub fn read(headers: &HeaderMap) -> CallInfo {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        CallInfo {
            invocation: text(header::INVOCATION_ID),
            version: text(header::VERSION).and_then(|version| version.parse().ok()),
            start: text(header::START),
            instance: text(header::INSTANCE),
            phases: text(header::SERVER_TIMING).and_then(|value| PhaseTimes::parse(&value)),
        }
    }
}

/// `0.042 ms`, `12.3 ms`, `1.20 s`: three figures that matter.
fn short(duration: Duration, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ..10.0 => write!(f, "{ms:.2} ms"),
        10.0..1_000.0 => write!(f, "{ms:.0} ms"),
        _ => write!(f, "{:.2} s", ms / 1e3),
    }
}

impl fmt::Display for PhaseTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, duration) in [("queue ", self.queue), (" · start ", self.start), (" · exec ", self.exec)] {
            f.write_str(word)?;
            short(duration, f)?;
        }
        Ok(())
    }
}

impl fmt::Display for CallInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.version.map(|version| format!("version {version}")));
        parts.extend(self.start.clone());
        parts.extend(self.instance.as_ref().map(|word| format!("{word} instance")));
        parts.extend(self.phases.map(|phases| phases.to_string()));
        parts.extend(self.invocation.clone());
        f.write_str(&parts.join(" · "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_header_of_an_invocation() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::INVOCATION_ID, "inv_1"),
            (header::VERSION, "3"),
            (header::START, "cold"),
            (header::INSTANCE, "fresh"),
            (header::SERVER_TIMING, "queue;dur=0.010, start;dur=1.5;desc=\"x\", other, exec;dur=1200"),
        ] {
            headers.insert(name, value.parse().expect("a header value"));
        }
        let info = CallInfo::read(&headers);
        let phases = info.phases.expect("phases are there");
        assert_eq!(phases.start, Duration::from_micros(1_500));
        assert_eq!(phases.total(), Duration::from_micros(1_201_510));
        assert_eq!(
            info.to_string(),
            "version 3 · cold · fresh instance · queue 0.01 ms · start 1.50 ms · exec 1.20 s · inv_1"
        );
    }

    #[test]
    fn odd_headers_are_left_out() {
        assert_eq!(PhaseTimes::parse(""), None);
        assert_eq!(PhaseTimes::parse("exec;dur=-1, queue;dur=x"), None);
        assert_eq!(CallInfo::read(&HeaderMap::new()), CallInfo::default());
    }
}
