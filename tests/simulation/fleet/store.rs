//! The Secret that the replicas share, as the API server keeps it.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::Ms;

/// What somebody else put there, which is to stay.
const FOREIGN: (&str, &str) = ("other", "a2VwdA==");

pub struct Store {
    pub object: Rc<Value>,
    version: u64,
    /// The objects that there were, as backups have them.
    past: Vec<Rc<Value>>,
    pub written_at: Vec<Ms>,
}

impl Store {
    pub fn new() -> Self {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "jwksd-ledger", "uid": "1" },
            "data": { FOREIGN.0: FOREIGN.1 },
        });
        let mut store =
            Self { object: Rc::default(), version: 0, past: Vec::new(), written_at: Vec::new() };
        store.replace(object);
        store
    }

    /// Replaces the object on the version that it holds; refuses where there is another one.
    pub fn put(&mut self, object: Value, now: Ms) -> bool {
        if version(&object) != version(&self.object) {
            return false;
        }
        self.written_at.push(now);
        self.replace(object);
        true
    }

    fn replace(&mut self, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.object = Rc::new(object);
        self.past.push(Rc::clone(&self.object));
    }

    /// Somebody takes everything out of it.
    pub fn wipe(&mut self) {
        let mut object = Value::clone(&self.object);
        object["data"] = json!({ FOREIGN.0: FOREIGN.1 });
        self.replace(object);
    }

    /// Somebody deletes it, and makes it anew.
    pub fn recreate(&mut self) {
        self.wipe();
        let mut object = Value::clone(&self.object);
        object["metadata"]["uid"] = json!(self.version.to_string());
        self.replace(object);
    }

    /// Somebody writes an older content over it.
    pub fn restore(&mut self, back: usize) {
        let older = Value::clone(&self.past[self.past.len().saturating_sub(1 + back)]);
        self.replace(older);
    }

    /// The server's database is restored: versions are given anew.
    pub fn restore_database(&mut self, back: usize) {
        let left = self.past.len().saturating_sub(back).max(1);
        self.past.truncate(left);
        self.object = Rc::clone(&self.past[left - 1]);
        self.version = version(&self.object).parse().unwrap();
    }

    pub fn keeps_what_is_foreign(&self) -> bool {
        self.object["data"][FOREIGN.0] == FOREIGN.1
    }
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}
