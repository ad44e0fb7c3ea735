//! The decoding behind `TextDecoder`, by the WHATWG Encoding standard.

use encoding_rs::Encoding;

const FATAL: i32 = 1;
const KEEP_BOM: i32 = 2;

/// Most bytes that are decoded at once: decoding blocks the thread. The prelude hands over smaller pieces.
const MAX: usize = 4 << 20;

fn find(label: &[u8]) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label)
}

/// The name of the encoding with that label, in lower case.
pub(super) fn name(label: &[u8]) -> Option<String> {
    find(label).map(|encoding| encoding.name().to_ascii_lowercase())
}

/// Decodes bytes; `None` when they are malformed and must not be, or too many.
pub(super) fn decode(label: &[u8], bytes: &[u8], flags: i32) -> Option<String> {
    let encoding = find(label)?;
    if bytes.len() > MAX {
        return None;
    }
    let bytes = match Encoding::for_bom(bytes) {
        Some((found, length)) if found == encoding && flags & KEEP_BOM == 0 => &bytes[length..],
        _ => bytes,
    };
    if flags & FATAL == 0 {
        return Some(encoding.decode_without_bom_handling(bytes).0.into_owned());
    }
    encoding.decode_without_bom_handling_and_without_replacement(bytes).map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_standard() {
        assert_eq!(name(b"latin1").as_deref(), Some("windows-1252"));
        assert_eq!(name(b" UTF8 ").as_deref(), Some("utf-8"));
        assert_eq!(name(b"replacement"), None);
        assert_eq!(name(b"nonsense"), None);
    }

    #[test]
    fn malformed_bytes_are_replaced_or_refused() {
        assert_eq!(decode(b"utf-8", b"a\xffb", 0).as_deref(), Some("a\u{fffd}b"));
        assert_eq!(decode(b"utf-8", b"a\xffb", FATAL), None);
        assert_eq!(decode(b"utf-8", b"\xef\xbb\xbfa", 0).as_deref(), Some("a"));
        assert_eq!(decode(b"utf-8", b"\xef\xbb\xbfa", KEEP_BOM).as_deref(), Some("\u{feff}a"));
        assert_eq!(decode(b"utf-16le", b"\xff\xfea\0", 0).as_deref(), Some("a"));
    }
}
