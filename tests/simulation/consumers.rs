//! Consumers of key sets, each with the caching that the library of that name has, and the HTTP
//! caches between them and the replicas.

use std::collections::HashMap;
use std::rc::Rc;

use crate::Ms;
use crate::random::Random;

const SECOND: Ms = 1000;
const MINUTE: Ms = 60 * SECOND;
const HOUR: Ms = 60 * MINUTE;

/// How a consumer keeps keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// The whole set, for this long.
    Set(Ms),
    /// The whole set, until a kid is missing.
    SetForEver,
    /// The whole set, for as long as Cache-Control says.
    AsHttpSays,
    /// Single keys, each for this long.
    EachKey(Ms),
    /// The whole set, fetched again this often behind the scenes.
    Refreshed(Ms),
}

/// What it does about an unknown kid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    Refuses,
    /// Fetches again, unless it did so within this time.
    Fetches(Ms),
    /// Refuses, and fetches behind the scenes unless it did so within this time.
    FetchesLater(Ms),
}

pub struct Model {
    pub name: &'static str,
    pub keeps: Keeps,
    pub unknown: Unknown,
    /// Whether a failed fetch costs it what it has.
    pub forgets_on_failure: bool,
}

const fn model(name: &'static str, keeps: Keeps, unknown: Unknown) -> Model {
    Model { name, keeps, unknown, forgets_on_failure: false }
}

/// The consumers that are known to behave differently.
pub const MODELS: [Model; 18] = [
    model("panva/jose", Keeps::Set(600 * SECOND), Unknown::Fetches(30 * SECOND)),
    Model {
        name: "PyJWT",
        keeps: Keeps::Set(300 * SECOND),
        unknown: Unknown::Fetches(0),
        forgets_on_failure: true,
    },
    model("node-jwks-rsa", Keeps::EachKey(600 * SECOND), Unknown::Fetches(0)),
    model("jwks-rsa-java", Keeps::EachKey(10 * HOUR), Unknown::Fetches(0)),
    model("Nimbus", Keeps::Set(5 * MINUTE), Unknown::Fetches(30 * SECOND)),
    model("Spring", Keeps::Set(5 * MINUTE), Unknown::Fetches(0)),
    model("go-oidc", Keeps::SetForEver, Unknown::Fetches(0)),
    model("jwx", Keeps::Refreshed(30 * MINUTE), Unknown::Refuses),
    model("keyfunc", Keeps::Refreshed(HOUR), Unknown::Fetches(5 * MINUTE)),
    model("Envoy", Keeps::Set(10 * MINUTE), Unknown::Refuses),
    model("Envoy, async", Keeps::Refreshed(10 * MINUTE), Unknown::Refuses),
    model("istiod", Keeps::Refreshed(20 * MINUTE), Unknown::Refuses),
    model("MS IdentityModel", Keeps::Set(12 * HOUR), Unknown::FetchesLater(5 * MINUTE)),
    model("mod_auth_openidc", Keeps::Set(HOUR), Unknown::Fetches(60 * SECOND)),
    model("aws-jwt-verify", Keeps::SetForEver, Unknown::Fetches(10 * SECOND)),
    model("AWS API Gateway", Keeps::Set(2 * HOUR), Unknown::Refuses),
    model("nginx Plus", Keeps::AsHttpSays, Unknown::Refuses),
    model("nginx Plus without Cache-Control", Keeps::Set(12 * HOUR), Unknown::Refuses),
];

impl Model {
    /// The longest wait before a new kid verifies, when nothing on the way caches.
    pub fn lag(&self, max_age: Ms) -> Ms {
        let keeps = match self.keeps {
            Keeps::Set(time) | Keeps::Refreshed(time) => time,
            Keeps::AsHttpSays => max_age,
            Keeps::SetForEver | Keeps::EachKey(_) => Ms::MAX / 4,
        };
        match self.unknown {
            Unknown::Fetches(pause) => keeps.min(pause),
            Unknown::Refuses | Unknown::FetchesLater(_) => keeps,
        }
    }
}

/// A key set as it was served: kid and public member.
#[derive(Debug, Default)]
pub struct KeySet(pub HashMap<String, String>);

/// A key set that somebody holds.
#[derive(Debug, Clone)]
pub struct Held {
    pub set: Rc<KeySet>,
    pub etag: Rc<str>,
    /// When a replica answered for it, or confirmed it, and which one.
    pub since: Ms,
    pub replica: usize,
    /// Until when HTTP allows to use it.
    pub fresh_until: Ms,
    /// Whether that replica's clock was far off.
    pub is_dubious: bool,
}

/// A shared cache (RFC 9111).
#[derive(Debug, Default)]
pub struct Cache {
    pub held: Option<Held>,
    /// Which answers it was made for: what of a stale one is used is only its entity tag.
    pub hits: u64,
}

pub struct Consumer {
    pub model: &'static Model,
    /// Through which shared cache it fetches.
    pub cache: Option<usize>,
    pub offset: Ms,
    pub leeway: Ms,
    pub held: Option<Held>,
    /// When it got `held`.
    pub fetched_at: Ms,
    pub tried_at: Ms,
    /// Single keys, each with its public member and until when it is kept.
    pub keys: HashMap<String, (String, Ms)>,
    /// Until when it can't reach anybody.
    pub cut_off_until: Ms,
    /// When a fetch of its failed last.
    pub failed_at: Ms,
    pub is_fetching: bool,
}

impl Consumer {
    pub fn new(model: &'static Model, random: &mut Random, skew: Ms) -> Self {
        Self {
            model,
            cache: random.percent(40).then(|| random.index(2)),
            offset: random.between(-skew, skew),
            leeway: random.between(0, 60) * SECOND,
            held: None,
            fetched_at: Ms::MIN / 4,
            tried_at: Ms::MIN / 4,
            keys: HashMap::new(),
            cut_off_until: Ms::MIN,
            failed_at: Ms::MIN / 4,
            is_fetching: false,
        }
    }

    /// Whether what it holds may be used at `now`.
    pub fn is_in_use(&self, now: Ms) -> bool {
        self.held.as_ref().is_some_and(|held| match self.model.keeps {
            Keeps::Set(time) => now < self.fetched_at + time,
            Keeps::AsHttpSays => now < held.fresh_until,
            Keeps::SetForEver | Keeps::Refreshed(_) => true,
            Keeps::EachKey(_) => false,
        })
    }
}
