//! What a host answered, and what went wrong with it, as an [`ImageError`].

use std::time::Duration;

use reqwest::Response;
use reqwest::header::RETRY_AFTER;

use super::ImageError;
use super::http::describe;

/// How much of an error's body is read.
const MAX_DETAIL: usize = 8 << 10;

/// The error for a request that got no answer, or half of one.
pub(super) fn transport(host: &str, what: &str, e: reqwest::Error) -> ImageError {
    if e.is_connect() {
        ImageError::Unreachable { host: host.to_owned(), reason: describe(e) }
    } else {
        ImageError::Transport { host: host.to_owned(), what: what.to_owned(), reason: describe(e) }
    }
}

/// The error that an unsuccessful answer means.
pub(super) async fn status_error(response: Response, host: &str, what: &str) -> ImageError {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let detail = detail(response).await;
    let (host, what) = (host.to_owned(), what.to_owned());
    match status {
        403 => ImageError::Forbidden { host, what, detail },
        404 => ImageError::NotFound { host, what, detail },
        429 => ImageError::TooManyRequests { host, retry_after, detail },
        _ => ImageError::Status { host, what, status, detail },
    }
}

/// What the body of an error says, as `: CODE: message`; empty if nothing.
pub(super) async fn detail(mut response: Response) -> String {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_DETAIL - body.len())]);
            if body.len() == MAX_DETAIL {
                break;
            }
        }
    };
    // What has arrived by then will do.
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    let text = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(json) => {
            let error = &json["errors"][0];
            [&error["code"], &error["message"], &json["details"]]
                .into_iter()
                .filter_map(|v| v.as_str().filter(|s| !s.is_empty()))
                .collect::<Vec<_>>()
                .join(": ")
        }
        // A page for people, not for us.
        Err(_) if body.starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// A whole body of at most `limit` bytes.
pub(super) async fn read_all(
    mut response: Response,
    limit: usize,
    what: &str,
    host: &str,
) -> Result<Vec<u8>, ImageError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| transport(host, what, e))? {
        if body.len() + chunk.len() > limit {
            let size = (body.len() + chunk.len()) as u64;
            return Err(ImageError::TooLarge { what: what.to_owned(), size, limit: limit as u64 });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
