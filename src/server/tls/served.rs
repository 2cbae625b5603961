//! The pair that a listener serves. One half of this is read by handshakes and by whoever shows how
//! things are, the other one writes it, and only what it has checked.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::pair::{Contents, Files, Pair, Reason, Refusal};

/// The pair of one listener, to be read.
#[derive(Debug)]
pub struct ServedPair {
    pub listener: &'static str,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    pair: Arc<Pair>,
    renewed: u64,
    refused: u64,
    trouble: Option<Refusal>,
}

/// How the pair of a listener is kept up.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Until when the served certificate is valid.
    pub not_after: Timestamp,
    /// How often another pair was taken.
    pub renewed: u64,
    /// How often another pair was refused.
    pub refused: u64,
    /// Why what lies there now is not served.
    pub trouble: Option<Refusal>,
}

/// Keeps the pair of one listener up to date.
#[derive(Debug)]
pub struct Reloader {
    served: Arc<ServedPair>,
    files: Files,
    /// What the served pair was made of.
    adopted: [u8; 32],
    /// What was refused last, so that it is told once. Nothing where it could not be read.
    refused: Option<(Option<[u8; 32]>, Reason)>,
}

impl ServedPair {
    /// How it is kept up.
    pub fn shown(&self) -> Shown {
        let State { pair, renewed, refused, trouble } = &*self.state();
        Shown {
            not_after: pair.not_after,
            renewed: *renewed,
            refused: *refused,
            trouble: trouble.clone(),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ResolvesServerCert for ServedPair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state().pair.certified))
    }
}

impl Reloader {
    pub fn start(listener: &'static str, files: Files, now: Timestamp) -> Result<Self, Refusal> {
        let contents = files.read()?;
        let pair = Arc::new(files.parse(&contents, now)?);
        let state = RwLock::new(State { pair, renewed: 0, refused: 0, trouble: None });
        let served = Arc::new(ServedPair { listener, state });
        Ok(Self { served, files, adopted: contents.digest(), refused: None })
    }

    /// What it keeps up to date.
    pub const fn served(&self) -> &Arc<ServedPair> {
        &self.served
    }

    /// The directories in which a change would show.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.files.certificate, &self.files.key];
        files.into_iter().filter_map(|file| match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
            parent => parent,
        })
    }

    /// Looks whether another pair lies there, and serves it where it is good. What changes again
    /// within `settle` is still being written, and left to the next look.
    pub fn look(&mut self, now: Timestamp, settle: Duration) {
        let contents = match self.files.read() {
            Ok(contents) if contents.digest() == self.adopted => return self.is_as_served(),
            Ok(contents) => contents,
            Err(refusal) => return self.refuse(None, refusal),
        };
        let digest = contents.digest();
        if self.refused.as_ref().is_none_or(|(refused, _)| *refused != Some(digest)) {
            std::thread::sleep(settle);
            if !self.files.read().is_ok_and(|again| again.digest() == digest) {
                return;
            }
        }
        match self.judge(&contents, now) {
            Ok(pair) => self.adopt(digest, pair),
            Err(refusal) => self.refuse(Some(digest), refusal),
        }
    }

    fn judge(&self, contents: &Contents, now: Timestamp) -> Result<Pair, Refusal> {
        let pair = self.files.parse(contents, now)?;
        // Clients would refuse it, and the old one is good.
        if now < pair.not_before && now < self.served.state().pair.not_after {
            let file = self.files.certificate.clone();
            return Err(Refusal { file, reason: Reason::NotYet(pair.not_before) });
        }
        Ok(pair)
    }

    fn adopt(&mut self, digest: [u8; 32], pair: Pair) {
        let not_after = pair.not_after;
        self.served.change(|state| {
            state.pair = Arc::new(pair);
            state.renewed += 1;
            state.trouble = None;
        });
        (self.adopted, self.refused) = (digest, None);
        let listener = self.served.listener;
        let file = self.files.certificate.display();
        info!(event = "tls.renewed", listener, %file, %not_after, "another certificate is served");
    }

    fn is_as_served(&mut self) {
        if self.refused.take().is_some() {
            self.served.change(|state| state.trouble = None);
        }
    }

    fn refuse(&mut self, digest: Option<[u8; 32]>, refusal: Refusal) {
        let told = (digest, refusal.reason.clone());
        if self.refused.as_ref() == Some(&told) {
            return;
        }
        warn!(
            event = "tls.refused",
            listener = self.served.listener,
            file = %refusal.file.display(),
            cause = %refusal.cause(),
            remedy = refusal.remedy(),
            "a certificate and its key are refused: the ones before are served on"
        );
        self.refused = Some(told);
        self.served.change(|state| {
            state.refused += 1;
            state.trouble = Some(refusal);
        });
    }
}
