//! A request's body, read to its end: no larger and no slower than a caller in good faith needs.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use tokio::time::timeout;

use super::errors::ApiError;

/// The largest body, in bytes.
const LARGEST: usize = 64 * 1024;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The whole body; empty where the request has none. `is_taken` tells whether one belongs there.
pub(super) async fn read(
    head: &Parts,
    body: Incoming,
    is_taken: bool,
) -> Result<Vec<u8>, ApiError> {
    if body.is_end_stream() {
        return Ok(Vec::new());
    }
    let declared = body.size_hint().lower();
    if declared > LARGEST as u64 {
        return Err(ApiError::BodyTooLarge);
    }
    let bytes = timeout(PATIENCE, collect(body)).await.map_err(|_| ApiError::BodyTimeout)??;
    if bytes.is_empty() {
        return Ok(bytes);
    }
    if !is_taken {
        return Err(ApiError::BadRequest("This request has no body.".to_owned()));
    }
    match head.headers.get(CONTENT_TYPE) {
        // Who says nothing means what is meant here.
        None => Ok(bytes),
        Some(media) if is_json(media.as_bytes()) => Ok(bytes),
        Some(_) => Err(ApiError::UnsupportedMediaType),
    }
}

fn is_json(media: &[u8]) -> bool {
    let essence = media.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let cut_short = |_| ApiError::BadRequest("The body was cut short.".to_owned());
        // Trailers say nothing here.
        if let Ok(data) = frame.map_err(cut_short)?.into_data() {
            if bytes.len() + data.len() > LARGEST {
                return Err(ApiError::BodyTooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_json() {
        for media in
            ["application/json", "Application/JSON; charset=utf-8", "application/json ;a=b"]
        {
            assert!(is_json(media.as_bytes()), "{media}");
        }
        for media in ["", "text/plain", "application/jsonp", "application/problem+json", "*/*"] {
            assert!(!is_json(media.as_bytes()), "{media}");
        }
    }
}
