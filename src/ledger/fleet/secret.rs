//! A Secret that holds files, as a volume shows them: read, and replaced on the version that was read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Why a Secret can't be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Somebody has written since the version was read.
    #[error("somebody else has written it meanwhile")]
    Conflict,
    /// It is not known whether it was carried out.
    #[error("{0}")]
    Unanswered(String),
    #[error("{0}")]
    Refused(String),
}

impl SecretError {
    /// Whether nothing was changed for certain.
    pub const fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// Reaches a Secret.
pub trait FileSecret: std::fmt::Debug + Send + Sync {
    fn name(&self) -> &str;

    /// # Errors
    /// [`SecretError`], never [`SecretError::Conflict`].
    fn read(&self) -> Result<SecretFiles, SecretError>;

    /// Replaces what was read.
    ///
    /// # Errors
    /// [`SecretError`]; where it is none of [`SecretError::Unanswered`] nothing was changed.
    fn replace(&self, files: &SecretFiles) -> Result<(), SecretError>;
}

/// The files of a Secret, as they are or are to be, with everything else that it has.
#[derive(Clone, Default)]
pub struct SecretFiles {
    object: Map<String, Value>,
}

/// Leaves out the contents.
impl std::fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl SecretFiles {
    /// The files of `object`, as the API has it.
    pub fn of(object: Value) -> Self {
        let object = if let Value::Object(object) = object { object } else { Map::new() };
        Self { object }
    }

    pub const fn object(&self) -> &Map<String, Value> {
        &self.object
    }

    fn data(&self) -> Option<&Map<String, Value>> {
        self.object.get("data")?.as_object()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.data().into_iter().flat_map(|data| data.keys().map(String::as_str))
    }

    pub fn file(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.data()?.get(name)?.as_str()?;
        STANDARD.decode(text).ok().map(Zeroizing::new)
    }

    pub fn put(&mut self, name: &str, bytes: &[u8]) {
        let data = self.object.entry("data").or_insert_with(|| Value::Object(Map::new()));
        if !data.is_object() {
            *data = Value::Object(Map::new());
        }
        if let Some(data) = data.as_object_mut() {
            data.insert(name.to_owned(), STANDARD.encode(bytes).into());
        }
    }

    /// Takes a file out. Returns whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let data = self.object.get_mut("data").and_then(Value::as_object_mut);
        data.is_some_and(|data| data.remove(name).is_some())
    }
}
