//! What rustls says of certificates, in words that say what to do; and settings that both ends share.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, CertificateError, Error, RootCertStore, SupportedProtocolVersion};

/// Both ends are Lyra's own, so there is no older version to speak with.
pub(super) const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// HTTP/2, as gRPC needs it (RFC 7301).
pub(super) const ALPN: &[u8] = b"h2";

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Checks certificates against the authorities in `roots`.
pub(super) fn verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(|error| error.to_string())
}

/// Why a certificate does not hold, as the rest of a sentence on it.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "has expired; `lyra tls init --renew` makes a new one".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "is not valid yet; compare the clocks of the hosts".to_owned()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "is not signed by an authority in ca.pem; take both from one `lyra tls init`".to_owned()
            }
            error => format!("is refused: {error}"),
        },
        error => format!("is refused: {error}"),
    }
}

/// Why a connection could not be made, for the end that asked for it. `expected` is the name that the other end has to show.
pub(crate) fn failed_to_connect(error: &std::io::Error, expected: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidMessage(_)) => {
            "it speaks plain text, and this node TLS; start it with --tls-dir as well".to_owned()
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => format!("its certificate is not for {expected}; it is another node, or has another's directory"),
        Some(error @ Error::InvalidCertificate(_)) => format!("its certificate {}", reason(error)),
        Some(Error::AlertReceived(alert)) => refused_by_peer(*alert),
        Some(error) => format!("no agreement on TLS: {error}"),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it closed the connection while TLS was agreed; is it a node of Lyra, with --tls-dir?".to_owned()
        }
        None => format!("the connection broke while TLS was agreed: {error}"),
    }
}

fn refused_by_peer(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateExpired => "it has expired; `lyra tls init --renew` makes a new one",
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it is not signed by an authority in the other's ca.pem"
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => "its log says more",
        alert => return format!("it ended the connection: {alert:?}"),
    };
    format!("it refuses this node's certificate: {why}")
}

/// Why a connection was turned away, for the end that was asked.
pub(crate) fn failed_to_accept(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => "it shows no certificate".to_owned(),
        Some(error @ Error::InvalidCertificate(_)) => format!("its certificate {}", reason(error)),
        Some(Error::AlertReceived(alert)) => {
            format!("it refuses this node's certificate ({alert:?}); its log says more")
        }
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}
