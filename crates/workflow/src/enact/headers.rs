//! Headers that a mapping gives the calls of a URL, with the secrets that it names.
//!
//! What must hold: a secret is read when the call is made, and is in no error and in no output that a run keeps.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use lyra_types::{Code, SecretName, TenantName};
use lyra_wire::Control;

use super::{Failure, function};
use crate::mapping::HeaderText;

/// Shorter texts stand in too many answers by chance to be looked for.
const LEAST: usize = 8;
/// What stands in the place of a secret.
const MASK: &str = "***";

/// Headers as they are sent.
pub(super) struct Given {
    headers: HeaderMap,
    /// Names and values of the secrets in them.
    secrets: Vec<(SecretName, String)>,
}

impl Given {
    /// The headers, with the secrets as they are now.
    pub(super) async fn of(
        said: &BTreeMap<String, HeaderText>,
        tenant: &TenantName,
        control: &dyn Control,
    ) -> Result<Given, Failure> {
        let mut names: Vec<SecretName> = said.values().filter_map(named).cloned().collect();
        names.sort();
        names.dedup();
        let mut secrets = Vec::with_capacity(names.len());
        if !names.is_empty() {
            let values =
                control.fetch_secrets(tenant, names.clone()).await.map_err(|error| function::failure_of(&error))?;
            for (name, found) in names.into_iter().zip(values) {
                let text = found.value.as_variable().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
                secrets.push((name.clone(), text.ok_or_else(|| unfit(&name))?));
            }
        }
        let mut headers = HeaderMap::with_capacity(said.len());
        for (name, text) in said {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Failure::lasting(Code::InvalidField.as_str(), format!("\"{name}\" is no header")))?;
            let value = match text {
                HeaderText::Plain(text) => HeaderValue::from_str(text),
                HeaderText::Secret { secret, prefix } => {
                    let found = secrets.iter().find(|(name, _)| name == secret);
                    let (_, value) = found.ok_or_else(|| unfit(secret))?;
                    HeaderValue::from_str(&format!("{prefix}{value}"))
                }
            };
            let mut value = value.map_err(|_| named(text).map_or_else(|| unsent(&name), unfit))?;
            value.set_sensitive(named(text).is_some());
            headers.insert(name, value);
        }
        Ok(Given { headers, secrets })
    }

    pub(super) fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// The outcome of the call, without the secrets that it was made with: what the other side says of a failure may repeat them, and an
    /// output that holds one is none.
    pub(super) fn keep_secret(&self, outcome: Result<Bytes, Failure>) -> Result<Bytes, Failure> {
        let known = self.secrets.iter().filter(|(_, value)| value.len() >= LEAST);
        match outcome {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer);
                for (name, value) in known {
                    if text.contains(value) || text.contains(&escaped(value)) {
                        let message =
                            format!("the answer holds the value of the secret \"{name}\", which no run keeps");
                        return Err(Failure::lasting("secret_in_answer", message));
                    }
                }
                Ok(answer)
            }
            Err(mut failure) => {
                let cause = &mut failure.cause;
                for (_, value) in known {
                    for text in [&mut cause.message].into_iter().chain(&mut cause.name) {
                        *text = masked(&masked(text, value), &escaped(value));
                    }
                }
                Err(failure)
            }
        }
    }
}

fn named(text: &HeaderText) -> Option<&SecretName> {
    match text {
        HeaderText::Plain(_) => None,
        HeaderText::Secret { secret, .. } => Some(secret),
    }
}

/// The text without a secret, and without the beginning of one at which it was cut off.
fn masked(text: &str, secret: &str) -> String {
    let text = text.replace(secret, MASK);
    let whole = text.trim_end_matches('…');
    let begun =
        (LEAST / 2..secret.len()).rev().find(|end| secret.is_char_boundary(*end) && whole.ends_with(&secret[..*end]));
    match begun {
        Some(end) => format!("{}{MASK}…", &whole[..whole.len() - end]),
        None => text,
    }
}

/// As it stands within a string of JSON.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn unsent(name: &HeaderName) -> Failure {
    Failure::lasting(Code::InvalidField.as_str(), format!("the header \"{name}\" can't be sent"))
}

fn unfit(secret: &SecretName) -> Failure {
    let message = format!("the secret \"{secret}\" can't stand in a header: it is to be one line of printable ASCII");
    Failure::lasting("invalid_secret", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_was_cut_off_is_masked_too() {
        let secret = "abcdefghijklmnop";
        assert_eq!(masked("said abcdefghijklmnop, no", secret), "said ***, no");
        assert_eq!(masked("said abcdefghijk…", secret), "said ***…");
        assert_eq!(masked("said abcdef", secret), "said ***…");
        assert_eq!(masked("said abc", secret), "said abc");
    }
}
