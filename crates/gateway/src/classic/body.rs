//! Bodies of function routes: text, whatever type they say they are of.

use encoding_rs::{Encoding, UTF_8};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use lyra_types::{Code, Error, Result};

use super::Asked;
use crate::body;

/// Largest body, in bytes.
pub(super) const MAX_BODY: usize = 100 << 10;

/// The request's body as text; `None` where the request has none, which is not the same as an empty one.
///
/// # Errors
/// [`Code::TooLarge`], and [`Code::UnsupportedMediaType`] for a charset or coding that is not known.
pub(super) async fn text(asked: &mut Asked<'_>) -> Result<Option<String>> {
    let headers = &asked.parts.headers;
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        let over_2 = asked.parts.version >= http::Version::HTTP_2 && !http_body::Body::is_end_stream(&asked.body);
        if !over_2 {
            return Ok(None);
        }
    }
    let encoding = charset(headers)?;
    if let Some(coding) =
        headers.get(CONTENT_ENCODING).filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        let shown = String::from_utf8_lossy(coding.as_bytes()).into_owned();
        let detail = format!("unsupported content encoding \"{}\"", shown.escape_debug());
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    let whole = body::read(asked.app, headers, &mut asked.body, MAX_BODY).await?;
    Ok(Some(encoding.decode(&whole.bytes).0.into_owned()))
}

/// What the body is written in.
fn charset(headers: &HeaderMap) -> Result<&'static Encoding> {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return Ok(UTF_8) };
    let named = kind.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let Some(name) = named else { return Ok(UTF_8) };
    Encoding::for_label(name.as_bytes()).ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        Error::new(Code::UnsupportedMediaType, format!("unsupported charset \"{}\"", shown.escape_debug()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_are_known_or_refused() {
        let of = |kind: &'static str| {
            let headers = [(CONTENT_TYPE, http::HeaderValue::from_static(kind))].into_iter().collect();
            charset(&headers).map(Encoding::name).map_err(|error| error.code)
        };
        assert_eq!(of("text/plain"), Ok("UTF-8"));
        assert_eq!(of("application/x-www-form-urlencoded; Charset=\"UTF-8\""), Ok("UTF-8"));
        assert_eq!(of("text/plain; charset=latin1"), Ok("windows-1252"));
        assert_eq!(of("text/plain; charset=nope"), Err(Code::UnsupportedMediaType));
    }
}
