//! What every resource must answer with: one JSON object.

use serde::de::IgnoredAny;

use super::Failure;

/// Whether `bytes` are a JSON object and nothing beside it. Looks at each byte once and allocates nothing.
///
/// # Errors
/// `invalid_json` where they are no JSON, which another try may mend (a proxy that answers in the resource's place);
/// `not_an_object` where they are another value, which none will.
pub(super) fn check_object(bytes: &[u8]) -> Result<(), Failure> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Failure::passing("invalid_json", format!("the answer is not UTF-8: {error}")))?;
    if text.trim_ascii().is_empty() {
        return Err(Failure::passing("invalid_json", "the answer is empty; it must be a JSON object"));
    }
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let shown = start_of(bytes);
        return Err(Failure::passing("invalid_json", format!("the answer is not JSON ({error}): {shown}")));
    }
    match text.trim_ascii_start().starts_with('{') {
        true => Ok(()),
        false => {
            let shown = start_of(bytes);
            Err(Failure::lasting("not_an_object", format!("the answer must be a JSON object, not {shown}")))
        }
    }
}

/// The first characters of an answer, on one line, for a message.
pub(super) fn start_of(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN)]);
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_object() {
        for good in ["{}", " {\"a\": [1, {\"b\": null}]}\n"] {
            assert_eq!(check_object(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, code, retryable) in [
            (&b""[..], "invalid_json", true),
            (b" \n", "invalid_json", true),
            (b"<html>", "invalid_json", true),
            (b"{\"a\": 1", "invalid_json", true),
            (b"{} {}", "invalid_json", true),
            (b"{\"a\": \"\xff\"}", "invalid_json", true),
            (b"[1]", "not_an_object", false),
            (b"\"text\"", "not_an_object", false),
            (b"null", "not_an_object", false),
        ] {
            let failure = check_object(bad).expect_err(code);
            assert_eq!((failure.cause.code.as_str(), failure.retryable), (code, retryable), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(check_object(deep.as_bytes()).expect_err("too deep").cause.code, "invalid_json");
    }

    #[test]
    fn what_is_shown_of_an_answer_is_short() {
        assert_eq!(start_of(b"a\nb"), "a b");
        let long = start_of("é".repeat(1_000).as_bytes());
        assert_eq!((long.chars().count(), long.chars().last()), (121, Some('…')));
    }
}
