//! One-time tokens: what Exec, Attach and PortForward answer, and what a client then calls with.
//!
//! A token is 122 random bits, can be used once, within a minute. At most [`MOST`] wait at a time, so that a client
//! that never comes costs little. They are in memory: none survives a restart.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared_proto::cri::v1;
use tokio::time::Instant;

use super::StreamError;

/// How long a token can be used.
pub const VALID: Duration = Duration::from_secs(60);
/// Tokens that wait to be used, at most.
pub const MOST: usize = 1000;

/// What a client may do with its token. Ids are whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Allowed {
    Exec(v1::ExecRequest),
    Attach(v1::AttachRequest),
    PortForward(v1::PortForwardRequest),
}

impl Allowed {
    /// The first segment of its path.
    pub fn path(&self) -> &'static str {
        match self {
            Allowed::Exec(_) => "exec",
            Allowed::Attach(_) => "attach",
            Allowed::PortForward(_) => "portforward",
        }
    }
}

/// All tokens that wait.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<HashMap<String, (Instant, Allowed)>>);

impl Tokens {
    /// A new token.
    pub fn give(&self, allowed: Allowed) -> Result<String, StreamError> {
        self.give_at(allowed, Instant::now())
    }

    fn give_at(&self, allowed: Allowed, now: Instant) -> Result<String, StreamError> {
        let mut tokens = self.lock();
        if tokens.len() >= MOST {
            tokens.retain(|_, (given, _)| now.duration_since(*given) < VALID);
            if tokens.len() >= MOST {
                return Err(StreamError::TooMany);
            }
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        tokens.insert(token.clone(), (now, allowed));
        Ok(token)
    }

    /// Uses a token up. `path` must be the one it was given for.
    pub fn take(&self, path: &str, token: &str) -> Option<Allowed> {
        self.take_at(path, token, Instant::now())
    }

    fn take_at(&self, path: &str, token: &str, now: Instant) -> Option<Allowed> {
        let mut tokens = self.lock();
        let (given, allowed) = tokens.get(token)?;
        let valid = now.duration_since(*given) < VALID;
        if valid && allowed.path() != path {
            return None;
        }
        let (_, allowed) = tokens.remove(token)?;
        valid.then_some(allowed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, Allowed)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(id: &str) -> Allowed {
        Allowed::Attach(v1::AttachRequest { container_id: id.into(), ..Default::default() })
    }

    #[test]
    fn a_token_works_once_and_for_its_own_purpose() {
        let tokens = Tokens::default();
        let token = tokens.give(attach("c")).unwrap();
        assert_eq!(tokens.take("exec", &token), None);
        assert_eq!(tokens.take("attach", &token), Some(attach("c")));
        assert_eq!(tokens.take("attach", &token), None);
        assert_eq!(tokens.take("attach", ""), None);
    }

    #[test]
    fn a_token_gets_old() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token = tokens.give_at(attach("c"), now).unwrap();
        let late = tokens.give_at(attach("c"), now + Duration::from_millis(1)).unwrap();
        assert_eq!(tokens.take_at("attach", &token, now + VALID), None);
        assert_eq!(tokens.take_at("attach", &late, now + VALID), Some(attach("c")));
    }

    #[test]
    fn only_so_many_wait() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for _ in 0..MOST {
            tokens.give_at(attach("c"), now).unwrap();
        }
        assert!(matches!(tokens.give_at(attach("c"), now), Err(StreamError::TooMany)));
        tokens.give_at(attach("c"), now + VALID).unwrap();
        assert_eq!(tokens.lock().len(), 1, "the old ones are gone");
    }
}
