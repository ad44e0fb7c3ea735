//! What can go wrong between a caller and a Lyra server.

use std::time::Duration;

use lyra_types::Code;

use crate::CallInfo;

/// A result of this client.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("{error}")]
    Api {
        /// What the server said.
        error: Box<lyra_types::Error>,
        /// The problem document, as it was sent, or as it would be where the server answered with a `Status` of Kubernetes.
        json: String,
        /// What the headers tell of the invocation, where the error is one's outcome.
        call: Box<CallInfo>,
    },
    /// Nothing answers at the URL.
    #[error("no Lyra at {url}: {reason}")]
    Unreachable {
        /// The server's URL.
        url: String,
        /// What the connection attempt failed with.
        reason: String,
    },
    /// Somebody answers at the URL, but not somebody to trust. Nothing was sent.
    #[error("the server at {url} can't be trusted: {reason}")]
    Untrusted {
        /// The server's URL.
        url: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// The connection broke before the answer was there. The request may have been carried out.
    #[error(
        "the connection to {url} broke before the answer was there ({reason}); what was asked for may have been done"
    )]
    Broken {
        /// The server's URL.
        url: String,
        /// What it broke with.
        reason: String,
    },
    /// No answer within the time that the caller gives.
    #[error("no answer within {}", humantime::format_duration(*.after))]
    Deadline {
        /// The time that was given.
        after: Duration,
    },
    /// What answers is no Lyra, or one that this client does not understand.
    #[error("{url} does not answer as Lyra does: {reason}")]
    Protocol {
        /// The URL that was asked.
        url: String,
        /// What is odd about the answer.
        reason: String,
    },
    /// The client's own settings are wrong.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// The code that tells a program what happened.
    pub fn code(&self) -> Code {
        match self {
            Error::Api { error, .. } => error.code,
            Error::Unreachable { .. } | Error::Untrusted { .. } | Error::Broken { .. } | Error::Protocol { .. } => {
                Code::Unavailable
            }
            Error::Deadline { .. } => Code::Timeout,
            Error::Config(_) => Code::BadRequest,
        }
    }

    /// The exit code that a command which fails with this has (interfaces: 7 for a server that can't be reached).
    pub fn exit_code(&self) -> u8 {
        self.code().row().exit
    }

    /// What the server said, when it said something.
    pub fn api(&self) -> Option<&lyra_types::Error> {
        match self {
            Error::Api { error, .. } => Some(error),
            _ => None,
        }
    }

    /// What is known of the invocation that failed.
    pub fn call(&self) -> Option<&CallInfo> {
        match self {
            Error::Api { call, .. } => Some(call),
            _ => None,
        }
    }
}

/// The last cause of an error: the one that says something ("connection refused").
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// What is wrong with TLS to a server.
pub(crate) enum TlsFault {
    /// Its certificate, for this reason.
    Untrusted(String),
    /// It does not speak TLS.
    Plain,
}

/// Finds in an error what is wrong with TLS, if that is what it tells of.
pub(crate) fn tls_fault(error: &(dyn std::error::Error + 'static)) -> Option<TlsFault> {
    use rustls::CertificateError as Bad;
    let mut cause = Some(error);
    while let Some(error) = cause {
        // What an I/O error holds is not among its causes, and it may hold another one.
        let mut inner = error;
        while let Some(held) = inner.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()) {
            inner = held;
        }
        cause = error.source();
        let reason = match inner.downcast_ref() {
            Some(rustls::Error::InvalidMessage(_)) => return Some(TlsFault::Plain),
            Some(rustls::Error::InvalidCertificate(bad)) => match bad {
                Bad::UnknownIssuer => "the authority that signed its certificate is not known here".to_owned(),
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                    "its certificate is for another name".to_owned()
                }
                Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired".to_owned(),
                bad => format!("its certificate is refused ({bad})"),
            },
            _ => continue,
        };
        return Some(TlsFault::Untrusted(reason));
    }
    None
}
