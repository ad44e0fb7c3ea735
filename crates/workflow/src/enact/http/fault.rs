//! What a broken HTTP call is called: one code for each way to break.

use std::error::Error as StdError;
use std::io;

use super::address::Forbidden;
use crate::enact::Failure;

/// The failure that `error` stands for.
pub(super) fn of(error: &reqwest::Error) -> Failure {
    let found = Found::of(error);
    let text = found.text;
    if found.forbidden {
        return Failure::lasting("forbidden_address", text);
    }
    if error.is_connect() {
        return match () {
            () if found.tls => Failure::passing("tls_failed", format!("no secure connection: {text}")),
            () if error.is_timeout() => {
                Failure::passing("connect_timeout", "the host did not answer the connection in time")
            }
            () if error.is_dns() || found.dns => {
                Failure::passing("dns_failed", format!("the host's name was not found: {text}"))
            }
            () => Failure::passing("connection_failed", format!("no connection: {text}")),
        };
    }
    if found.garbled {
        return Failure::passing("invalid_response", format!("the answer is not HTTP: {text}"));
    }
    Failure::passing("closed_early", format!("the connection ended before the answer was whole: {text}"))
}

/// What the chain of causes tells.
#[derive(Default)]
struct Found {
    /// The innermost cause. The outer ones repeat the URL.
    text: String,
    forbidden: bool,
    tls: bool,
    dns: bool,
    garbled: bool,
}

impl Found {
    fn of(error: &reqwest::Error) -> Found {
        let mut found = Found::default();
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = cause {
            found.look(error);
            cause = error.source();
        }
        found
    }

    fn look(&mut self, error: &(dyn StdError + 'static)) {
        self.text = error.to_string();
        self.forbidden |= error.is::<Forbidden>();
        self.tls |= error.is::<rustls::Error>();
        self.dns |= self.text == "dns error";
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            self.garbled |= error.is_parse();
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // Broken chunks.
            self.garbled |= matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
            // What an io error wraps is not its source, but that one's source is.
            if let Some(inner) = error.get_ref() {
                self.look(inner);
            }
        }
    }
}
