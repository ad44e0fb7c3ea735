//! Reports, ids and header fields: between the types of Lyra and those of the calls' protocol.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use lyra_types::invocation::{Phases, Report, Start};
use lyra_types::{Error, InstanceId, InvocationId};

use super::calls;
use super::packed::{pack, unpack};

pub(super) fn from_report(report: &Report) -> calls::Report {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    calls::Report {
        start: match report.start {
            None => 0,
            Some(Start::Warm) => 1,
            Some(Start::Prewarmed) => 2,
            Some(Start::Cold) => 3,
        },
        reused: report.reused,
        instance: report.instance.map_or_else(Bytes::new, |id| id_bytes(id.number())),
        queue_ns: nanos(report.phases.queue),
        start_ns: nanos(report.phases.start),
        exec_ns: nanos(report.phases.exec),
        cpu_ns: nanos(report.cpu),
    }
}

pub(super) fn to_report(invocation: InvocationId, version: u64, report: &calls::Report) -> Report {
    Report {
        invocation,
        version,
        start: match report.start {
            1 => Some(Start::Warm),
            2 => Some(Start::Prewarmed),
            3 => Some(Start::Cold),
            _ => None,
        },
        reused: report.reused,
        instance: id_number(&report.instance).map(InstanceId::from_number),
        phases: Phases {
            queue: Duration::from_nanos(report.queue_ns),
            start: Duration::from_nanos(report.start_ns),
            exec: Duration::from_nanos(report.exec_ns),
        },
        cpu: Duration::from_nanos(report.cpu_ns),
    }
}

pub(super) fn id_bytes(number: u128) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(super) fn id_number(bytes: &[u8]) -> Option<u128> {
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn from_headers(headers: &HeaderMap) -> calls::Fields {
    let field = |(name, value): (&HeaderName, &HeaderValue)| calls::Field {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    calls::Fields { fields: headers.iter().map(field).collect() }
}

/// `None` where a name or a value can't be one.
pub(super) fn to_headers(fields: Option<calls::Fields>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for field in fields.unwrap_or_default().fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_maybe_shared(field.value).ok()?);
    }
    Some(headers)
}

pub(super) fn from_error(error: &Error) -> Bytes {
    // An error holds texts and numbers only, which can always be written.
    pack(error).unwrap_or_default()
}

pub(super) fn to_error(bytes: &[u8]) -> Error {
    unpack(bytes).unwrap_or_else(|_| Error::internal("the worker sent an error that can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_crosses_whole() {
        let invocation = InvocationId::from_parts(5, 7);
        for start in [None, Some(Start::Warm), Some(Start::Prewarmed), Some(Start::Cold)] {
            let ms = Duration::from_millis;
            let report = Report {
                start,
                reused: start.is_some(),
                instance: start.map(|_| InstanceId::from_parts(1, 2)),
                phases: Phases { queue: ms(1), start: ms(2), exec: Duration::from_nanos(3) },
                ..Report::new(invocation, 4)
            };
            assert_eq!(to_report(invocation, 4, &from_report(&report)), report);
        }
    }

    #[test]
    fn fields_cross_whole_and_bad_ones_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        headers.append("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        assert_eq!(to_headers(Some(from_headers(&headers))), Some(headers));
        for (name, value) in [("bad name", "v"), ("name", "line\nbreak")] {
            let field = calls::Field { name: name.into(), value: Bytes::from_static(value.as_bytes()) };
            assert_eq!(to_headers(Some(calls::Fields { fields: vec![field] })), None);
        }
    }
}
