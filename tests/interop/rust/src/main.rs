//! jsonwebtoken has no fetcher. Here its `JwkSet` is fetched as resource servers do by themselves:
//! kept for a while (600 s, or as told), and fetched anew for an unknown kid, once in 10 s. The
//! protocol is that of every client program here: one JSON request a line on stdin, one answer a
//! line on stdout. A request names its verifier, which keeps its own cache.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

#[derive(Deserialize)]
struct Request {
    id: u64,
    verifier: String,
    issuer: String,
    url: String,
    ttl: Option<f64>,
    token: String,
}

struct Verifier {
    agent: Agent,
    keys: Option<(Instant, JwkSet)>,
}

/// One that trusts whoever SSL_CERT_FILE certifies.
fn agent() -> Result<Agent, Box<dyn Error>> {
    let trusted = Certificate::from_pem(&std::fs::read(std::env::var("SSL_CERT_FILE")?)?)?;
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[trusted])).build();
    Ok(Agent::config_builder().tls_config(tls).build().new_agent())
}

impl Verifier {
    /// The set, not older than `at_most`.
    fn keys(&mut self, url: &str, at_most: Duration) -> Result<&JwkSet, Box<dyn Error>> {
        if self.keys.as_ref().is_none_or(|(fetched, _)| fetched.elapsed() >= at_most) {
            let keys = self.agent.get(url).call()?.body_mut().read_json()?;
            self.keys = Some((Instant::now(), keys));
        }
        Ok(&self.keys.as_ref().ok_or("never fetched")?.1)
    }

    fn verify(&mut self, request: &Request) -> Result<Value, Box<dyn Error>> {
        let ttl = Duration::from_secs_f64(request.ttl.unwrap_or(600.0));
        let header = decode_header(&request.token)?;
        let kid = header.kid.ok_or("no kid")?;
        let keys = self.keys(&request.url, ttl)?;
        let jwk = match keys.find(&kid) {
            Some(jwk) => jwk.clone(),
            None => {
                let keys = self.keys(&request.url, Duration::from_secs(10).min(ttl))?;
                keys.find(&kid).ok_or("unknown kid")?.clone()
            }
        };
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&request.issuer]);
        validation.validate_aud = false;
        let key = DecodingKey::from_jwk(&jwk)?;
        Ok(decode::<Value>(&request.token, &key, &validation)?.claims)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let agent = agent()?;
    let mut verifiers: HashMap<String, Verifier> = HashMap::new();
    for line in stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let new = || Verifier { agent: agent.clone(), keys: None };
        let verifier = verifiers.entry(request.verifier.clone()).or_insert_with(new);
        let answer = match verifier.verify(&request) {
            Ok(claims) => json!({ "id": request.id, "ok": true, "claims": claims }),
            Err(error) => json!({ "id": request.id, "ok": false, "error": error.to_string() }),
        };
        writeln!(stdout(), "{answer}")?;
    }
    Ok(())
}
