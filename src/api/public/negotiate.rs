//! What a request's header fields ask for: the coding, the media type, and whether the client has
//! the current bytes already (RFC 9110 §12 and §13). Wrong syntax asks for nothing.

use hyper::HeaderMap;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
};

/// The media type of a JWK Set (RFC 7517 §8.5.2).
pub const JWK_SET: &str = "application/jwk-set+json";

/// A quality value (RFC 9110 §12.4.2) in thousandths.
type Quality = u16;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preferences {
    /// See [`wants_gzip`].
    pub gzip: bool,
    /// See [`names_jwk_set`].
    pub jwk_set: bool,
    /// Whether the client may have the bytes already.
    pub is_conditional: bool,
}

impl Preferences {
    /// Reads `headers` once; most requests wish for nothing.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut preferences = Self::default();
        for name in headers.keys() {
            match *name {
                ACCEPT => preferences.jwk_set = names_jwk_set(headers),
                ACCEPT_ENCODING => preferences.gzip = wants_gzip(headers),
                IF_NONE_MATCH | IF_MODIFIED_SINCE => preferences.is_conditional = true,
                _ => {}
            }
        }
        preferences
    }
}

/// Whether gzip is to be sent (RFC 9110 §12.5.3): where it is named, or covered by `*`, and not
/// liked less than no coding at all.
pub fn wants_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None::<Quality>, None, None);
    for (coding, quality) in elements(headers, &ACCEPT_ENCODING) {
        let known = if is_gzip(coding) {
            &mut gzip
        } else if coding == "*" {
            &mut any
        } else if coding.eq_ignore_ascii_case("identity") {
            &mut identity
        } else {
            continue;
        };
        *known = (*known).max(Some(quality));
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// Whether the media type of a JWK Set is named as acceptable, and not liked less than plain JSON. A
/// range such as `*/*` names nothing.
pub fn names_jwk_set(headers: &HeaderMap) -> bool {
    let quality_of = |wanted: &str| {
        let named = elements(headers, &ACCEPT)
            .filter(|(media_type, _)| media_type.eq_ignore_ascii_case(wanted));
        named.map(|(_, quality)| quality).max().unwrap_or(0)
    };
    let jwk_set = quality_of(JWK_SET);
    jwk_set > 0 && jwk_set >= quality_of("application/json")
}

/// Whether If-None-Match holds `etag`, compared weakly (RFC 9110 §13.1.2), or is `*`; nothing
/// where the field is absent.
pub fn if_none_match(headers: &HeaderMap, etag: &HeaderValue) -> Option<bool> {
    let mut values = headers.get_all(IF_NONE_MATCH).iter().peekable();
    values.peek()?;
    Some(values.any(|value| names_etag(value.as_bytes(), etag.as_bytes())))
}

fn names_etag(list: &[u8], etag: &[u8]) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = list;
    loop {
        // A tag may hold commas, so that the quotes lead.
        let Some(opening) = rest.iter().position(|byte| *byte == b'"') else { return false };
        let tag = &rest[opening..];
        let Some(closing) = tag[1..].iter().position(|byte| *byte == b'"') else { return false };
        let (tag, after) = tag.split_at(closing + 2);
        if tag == etag {
            return true;
        }
        rest = after;
    }
}

fn is_gzip(coding: &str) -> bool {
    // RFC 9110 §8.4.1.3 asks to take the one for the other.
    coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip")
}

/// The elements of every line of a field and their qualities.
fn elements<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = (&'a str, Quality)> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(element)
}

fn element(text: &str) -> Option<(&str, Quality)> {
    let mut parts = text.split(';').map(str::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    for parameter in parts {
        let Some((key, value)) = parameter.split_once('=') else { continue };
        if key.trim_ascii().eq_ignore_ascii_case("q") {
            return Some((name, quality(value.trim_ascii())?));
        }
    }
    Some((name, 1000))
}

fn quality(text: &str) -> Option<Quality> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths = fraction
        .bytes()
        .zip([100, 10, 1])
        .map(|(digit, weight)| Quality::from(digit - b'0') * weight)
        .sum();
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn gzip_is_sent_where_it_is_asked_for() {
        for (lines, expected) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZip"], true),
            (&["x-gzip"], true),
            (&["deflate, gzip;q=1.0, *;q=0.5"], true),
            (&["br, zstd"], false),
            (&["br", "gzip"], true),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip;Q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["gzip;q=0.001"], true),
            (&["identity;q=1, gzip;q=0.5"], false),
            (&["identity;q=0.5, gzip;q=0.5"], true),
            (&["identity"], false),
            (&["identity;q=0"], false),
            (&["identity;q=0, *"], true),
            (&["gzip;q=2"], false),
            (&["gzip;q=oh"], false),
            (&["gzip;q="], false),
            (&["gzip;level=9"], true),
            (&["gzip;q"], true),
            (&[",, ,gzip,"], true),
            (&["gzippy"], false),
        ] {
            assert_eq!(wants_gzip(&headers(&ACCEPT_ENCODING, lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_media_type_of_a_jwk_set_must_be_named() {
        for (lines, expected) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["application/*"], false),
            (&["application/json"], false),
            (&["application/jwk-set+json"], true),
            (&["Application/JWK-Set+JSON"], true),
            (&["application/json, application/jwk-set+json;q=0.5"], false),
            (&["application/json;q=0.4, application/jwk-set+json;q=0.5"], true),
            (&["*/*, application/jwk-set+json;q=0.5"], true),
            (&["application/json", "application/jwk-set+json"], true),
            (&["application/jwk-set+json;q=0"], false),
            (&["application/jwk-set+json ; charset=utf-8 ; q=0.1"], true),
            (&["application/jwk+json"], false),
        ] {
            assert_eq!(names_jwk_set(&headers(&ACCEPT, lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn entity_tags_are_compared_weakly_in_lists_over_several_lines() {
        let etag = HeaderValue::from_static("\"abc\"");
        for (lines, expected) in [
            (&[][..], None),
            (&[""], Some(false)),
            (&["\"abc\""], Some(true)),
            (&["W/\"abc\""], Some(true)),
            (&["\"x\", W/\"y\" ,\"abc\""], Some(true)),
            (&["\"x\"", "\"abc\""], Some(true)),
            (&["\"a,b\",\"abc\""], Some(true)),
            (&["*"], Some(true)),
            (&[" * "], Some(true)),
            (&["\"*\""], Some(false)),
            (&["abc"], Some(false)),
            (&["\"abc"], Some(false)),
            (&["\"abcd\""], Some(false)),
            (&["\"ABC\""], Some(false)),
            (&["\"x\" \"abc\""], Some(true)),
        ] {
            assert_eq!(
                if_none_match(&headers(&IF_NONE_MATCH, lines), &etag),
                expected,
                "{lines:?}"
            );
        }
    }
}
