//! Whether anything private is left anywhere once keys were read: in the process's memory, its log,
//! its records, its answers. The real program, from outside.

use crate::common;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use common::daemon::{Connection, Daemon, drop_by_rename, eventually};
use common::faults::await_log;
use jwksd::encoding::hex;
use jwksd::keys::Algorithm;
use serde_json::{Map, Value, json};

const PATH: &str = "/.well-known/jwks.json";

/// A length at which nothing is found by chance.
const WINDOW: usize = 16;

/// What is looked for, by what it is.
struct Needles {
    needles: HashMap<[u8; WINDOW], String>,
    /// The first three bytes of each, so that most of the memory is passed over quickly.
    beginnings: Vec<bool>,
}

impl Needles {
    /// Every piece of these numbers in every form.
    fn of(secrets: &[(String, Vec<u8>)]) -> Self {
        let mut found = Self { needles: HashMap::new(), beginnings: vec![false; 1 << 24] };
        for (name, secret) in secrets {
            assert!(secret.len() >= WINDOW, "{name}");
            let reversed: Vec<u8> = secret.iter().rev().copied().collect();
            found.add(name, "as it is", secret);
            found.add(name, "in limbs", &reversed);
            found.add(name, "in hexadecimal", hex(secret).as_bytes());
            found.add(name, "in hexadecimal", hex(secret).to_uppercase().as_bytes());
            // Somewhere in a longer text, as in the lines of a PEM.
            for from in 0..3 {
                let secret = &secret[from..];
                found.add(name, "in base64", STANDARD_NO_PAD.encode(secret).as_bytes());
                found.add(name, "in base64url", URL_SAFE_NO_PAD.encode(secret).as_bytes());
            }
        }
        found
    }

    fn add(&mut self, name: &str, form: &str, text: &[u8]) {
        for window in text.windows(WINDOW) {
            self.beginnings[beginning(window)] = true;
            self.needles.insert(window.try_into().unwrap(), format!("{name} {form}"));
        }
    }

    /// What is in these bytes, and where.
    fn found_in(&self, bytes: &[u8]) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at + WINDOW <= bytes.len() {
            let window = &bytes[at..at + WINDOW];
            if self.beginnings[beginning(window)]
                && let Some(name) = self.needles.get(window)
            {
                found.push((at, name.as_str()));
            }
            at += 1;
        }
        found
    }
}

fn beginning(window: &[u8]) -> usize {
    usize::from(window[0]) | usize::from(window[1]) << 8 | usize::from(window[2]) << 16
}

/// What of `needles` lies in the memory of a process; none, with a word about it, where it may not
/// be read.
fn found_in_memory(pid: u32, needles: &Needles) -> Option<BTreeSet<String>> {
    let memory = match fs::File::open(format!("/proc/{pid}/mem")) {
        Ok(memory) => memory,
        Err(error) => {
            eprintln!("skipped: the memory of a process can't be read: {error}");
            return None;
        }
    };
    let mut found = BTreeSet::new();
    for mapping in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let mut parts = mapping.split_whitespace();
        let (start, end) = parts.next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        let readable = parts.next().unwrap().starts_with('r');
        let name = parts.nth(3).unwrap_or("anonymous memory");
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // The kernel's own pages can't be read, and some come and go.
        if !readable || memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        for (at, secret) in needles.found_in(&bytes) {
            let _ = at;
            found.insert(format!("{secret}, in {name}"));
        }
    }
    Some(found)
}

/// The contents of a SEQUENCE in DER, by tag.
fn elements(der: &[u8]) -> Vec<(u8, &[u8])> {
    let mut elements = Vec::new();
    let mut rest = der;
    while let [tag, length, after @ ..] = rest {
        let (length, after) = match length {
            0x82 => (usize::from(after[0]) << 8 | usize::from(after[1]), &after[2..]),
            0x81 => (usize::from(after[0]), &after[1..]),
            length => (usize::from(*length), after),
        };
        elements.push((*tag, &after[..length]));
        rest = &after[length..];
    }
    elements
}

/// A private key that was made for this test, in its parts.
struct Canary {
    pem: String,
    /// The inner form of PKCS#8: PKCS#1, SEC 1 or a seed.
    inner: Vec<u8>,
    jwk: Value,
    secrets: Vec<(String, Vec<u8>)>,
}

impl Canary {
    fn new(algorithm: Algorithm) -> Self {
        Self::of(algorithm, jwksd::operations::generate(algorithm, 2048).unwrap().to_string())
    }

    fn of(algorithm: Algorithm, pem: String) -> Self {
        let der = pem::parse(&pem).unwrap().into_contents();
        let outer = elements(elements(&der)[0].1);
        let inner = outer[2].1.to_vec();
        let (jwk, names, numbers): (Value, &[&str], Vec<Vec<u8>>) = match algorithm {
            Algorithm::EdDSA => {
                let seed = elements(&inner)[0].1.to_vec();
                let pair = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&seed);
                let public = aws_lc_rs::signature::KeyPair::public_key(&pair.unwrap()).to_owned();
                let x = URL_SAFE_NO_PAD.encode(public);
                (json!({ "kty": "OKP", "crv": "Ed25519", "x": x }), &["d"], vec![seed])
            }
            Algorithm::RS256 => {
                let numbers = elements(elements(&inner)[0].1);
                let number = |at: usize| {
                    let bytes: &[u8] = numbers[at].1;
                    bytes.strip_prefix(&[0]).unwrap_or(bytes).to_vec()
                };
                let n = URL_SAFE_NO_PAD.encode(number(1));
                let names = &["d", "p", "q", "dp", "dq", "qi"];
                let numbers = (3..9).map(number).collect();
                (json!({ "kty": "RSA", "n": n, "e": "AQAB" }), names, numbers)
            }
            _ => {
                let parts = elements(elements(&inner)[0].1);
                let point = &elements(parts[2].1)[0].1[2..];
                let (x, y) = point.split_at(point.len() / 2);
                let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
                let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
                (jwk, &["d"], vec![parts[1].1.to_vec()])
            }
        };
        let mut private: Map<String, Value> = jwk.as_object().unwrap().clone();
        let mut secrets = Vec::new();
        for (name, number) in names.iter().zip(numbers) {
            private.insert((*name).to_owned(), URL_SAFE_NO_PAD.encode(&number).into());
            secrets.push((format!("{name} of {algorithm}"), number));
        }
        Self { pem, inner, jwk: private.into(), secrets }
    }

    fn inner_pem(&self, label: &str) -> String {
        pem::encode(&pem::Pem::new(label, self.inner.clone()))
    }
}

/// A SEC 1 key that names its curve, as `openssl ecparam -genkey` writes it.
fn with_curve(canary: &Canary) -> String {
    const P256: [u8; 12] = *b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let parts = elements(elements(&canary.inner)[0].1);
    let element = |tag: u8, content: &[u8]| {
        let mut element = vec![tag, u8::try_from(content.len()).unwrap()];
        element.extend(content);
        element
    };
    let version = element(2, parts[0].1);
    let key = element(4, parts[1].1);
    let point = element(0xa1, parts[2].1);
    let der = element(0x30, &[version, key, P256.to_vec(), point].concat());
    pem::encode(&pem::Pem::new("EC PRIVATE KEY", der))
}

fn assert_nothing_left(daemon: &Daemon, state: &Path, secrets: &[(String, Vec<u8>)]) {
    let needles = Needles::of(secrets);
    // The control: what is searched finds what is there.
    let body = daemon.get(PATH);
    let jwks = body.json();
    let jwks = jwks["keys"].as_array().unwrap();
    let member = |jwk: &Value| jwk.get("n").or(jwk.get("x")).unwrap().as_str().unwrap().to_owned();
    let public = URL_SAFE_NO_PAD.decode(member(&jwks[0])).unwrap();
    let control = Needles::of(&[("a public number".to_owned(), public)]);
    let Some(found) = found_in_memory(daemon.pid(), &control) else { return };
    assert!(found.iter().any(|found| found.contains("as it is")), "{found:?}");

    assert_eq!(needles.found_in(&body.body), []);
    assert_eq!(needles.found_in(daemon.log().join("\n").as_bytes()), []);
    let mut files = 0;
    for directory in [state.to_owned(), state.join("mirror")] {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                assert_eq!(needles.found_in(&fs::read(entry.path()).unwrap()), []);
                files += 1;
            }
        }
    }
    assert!(files > 2 * jwks.len());
    // A look may still be under way.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let Some(found) = found_in_memory(daemon.pid(), &needles) else { return };
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left in memory: {found:#?}");
    }
}

#[test]
fn nothing_private_is_left_of_the_keys_that_were_read() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("state"));
    fs::create_dir(&keys).unwrap();
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let [pkcs8, inner, jwk, bad, next] = [(); 5].map(|()| algorithms.map(Canary::new));
    for (name, canary) in ["rsa", "ec", "ed"].into_iter().zip(&pkcs8) {
        drop_by_rename(&keys, &format!("{name}.pem"), &canary.pem);
    }
    drop_by_rename(&keys, "pkcs1.pem", inner[0].inner_pem("RSA PRIVATE KEY"));
    drop_by_rename(&keys, "sec1.pem", with_curve(&inner[1]));
    for (name, canary) in ["rsa-jwk", "ec-jwk", "ed-jwk"].into_iter().zip(&jwk) {
        drop_by_rename(&keys, &format!("{name}.json"), canary.jwk.to_string());
    }
    // Bad ones: a pair that does not fit, a file that is cut short, a JWK that is mended wrongly.
    drop_by_rename(&keys, "pair.pem", format!("{}{}", bad[0].pem, bad[1].pem));
    drop_by_rename(&keys, "short.pem", &bad[2].pem[..bad[2].pem.len() - 9]);
    let mut mixed = bad[1].jwk.clone();
    mixed["x"] = jwk[1].jwk["x"].clone();
    drop_by_rename(&keys, "mixed.json", mixed.to_string());
    let daemon = Daemon::start_with(&keys, |command| command.arg("--state").arg(&state));
    assert_eq!(daemon.kids().len(), 8);
    for name in ["pair", "short.pem", "mixed"] {
        await_log(&daemon, &["refused", name]);
    }

    // Rotated: overwritten in place, by rename, and removed.
    fs::write(keys.join("rsa.pem"), &next[0].pem).unwrap();
    drop_by_rename(&keys, "ec.pem", &next[1].pem);
    drop_by_rename(&keys, "new.pem", &next[2].pem);
    fs::remove_file(keys.join("ed-jwk.json")).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    eventually("the rotation", || (daemon.kids().len() == 11).then_some(()));
    await_log(&daemon, &["files are gone"]);

    let canaries = pkcs8.iter().chain(&inner[..2]).chain(&jwk).chain(&bad).chain(&next);
    let secrets: Vec<_> = canaries.flat_map(|canary| canary.secrets.clone()).collect();
    assert_nothing_left(&daemon, &state, &secrets);
}

#[test]
fn nothing_private_is_left_of_the_keys_that_were_issued() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, state) = (directory.path().join("keys"), directory.path().join("state"));
    let socket = directory.path().join("admin.sock");
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--init").arg("--state").arg(&state);
        command.arg("--admin-listen").arg(format!("unix:{}", socket.display()))
    });
    assert_eq!(daemon.kids().len(), 2);
    // As many again by the administration listener, of every type.
    let mut answers = Vec::new();
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let body = json!({ "audience": "client", "algorithm": algorithm }).to_string();
        let json = [("content-type", "application/json")];
        let path = "/oauth/keys/keypair";
        let mut connection = Connection::open_unix(&socket).unwrap();
        let answer = connection.request_with("POST", path, &json, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answers.push(answer.body);
    }
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    for path in ["/", "/status", "/metrics"] {
        answers.push(connection.request("GET", path, &[]).unwrap().body);
    }
    let mut secrets = Vec::new();
    for entry in fs::read_dir(&keys).unwrap().map(Result::unwrap) {
        let stem = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = stem.strip_suffix(".pem") else { continue };
        let attributes = fs::read(keys.join(format!("{stem}.meta.json"))).unwrap();
        let attributes: Value = serde_json::from_slice(&attributes).unwrap();
        let algorithm = attributes["algorithm"].as_str().unwrap().parse().unwrap();
        let pem = fs::read_to_string(entry.path()).unwrap();
        secrets.extend(Canary::of(algorithm, pem).secrets);
    }
    assert_eq!(secrets.len(), 3 * 6 + 2);
    let needles = Needles::of(&secrets);
    for answer in &answers {
        assert_eq!(needles.found_in(answer), []);
    }
    assert_nothing_left(&daemon, &state, &secrets);
}
