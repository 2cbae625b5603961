//! Which document stands at which path of the public listener.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::keys::Audience;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    /// The JWK Set of every audience, or of one.
    KeySet(Option<Audience>),
    /// Discovery metadata (OIDC Discovery §3, RFC 8414 §2) of the whole issuer, or of an audience.
    Discovery(Option<Audience>),
}

/// What the configuration says of paths and of discovery documents.
#[derive(Debug, Clone)]
pub struct LayoutSettings {
    /// The path of the set of all keys.
    pub key_set_path: Box<str>,
    /// The path of an audience's set, with [`Audience::PLACEHOLDER`] in the place of its name.
    pub audience_path: Box<str>,
    pub issuer: Option<Box<str>>,
    /// Members of discovery documents, beside and instead of those that are made by default.
    pub members: Arc<Map<String, Value>>,
    /// Whether audiences come and go while the program runs.
    pub is_open: bool,
}

/// The paths of the public listener and the documents behind them, for these audiences.
#[derive(Debug, Clone)]
pub struct Layout {
    settings: Arc<LayoutSettings>,
    audiences: Vec<Audience>,
    /// Without their first slash.
    paths: HashMap<Box<str>, usize>,
    contents: Vec<DocumentKind>,
}

impl Layout {
    /// The layout for `audiences`, with the set of all keys at `path`, and discovery documents where
    /// there is an `issuer`.
    pub fn new(audiences: &[Audience], path: &str, issuer: Option<&str>) -> Self {
        let settings = LayoutSettings {
            key_set_path: path.into(),
            audience_path: "/{audience}/.well-known/jwks.json".into(),
            issuer: issuer.map(Into::into),
            members: Arc::default(),
            is_open: false,
        };
        Self::of(Arc::new(settings), audiences.to_vec())
    }

    pub fn of(settings: Arc<LayoutSettings>, audiences: Vec<Audience>) -> Self {
        let mut layout = Self { settings, audiences, paths: HashMap::new(), contents: Vec::new() };
        let settings = Arc::clone(&layout.settings);
        let audiences = layout.audiences.clone();
        let mut aliases = Vec::new();
        // An issuer such as https://host/tenant is reached below /tenant as well, for proxies that
        // do not take the prefix away.
        let issuer_path = settings.issuer().map_or("", path_of);
        for audience in std::iter::once(None).chain(audiences.into_iter().map(Some)) {
            let path = settings.path_of_key_set(audience.as_ref());
            let below = audience.as_ref().map_or_else(String::new, |name| format!("/{name}"));
            aliases.push((layout.contents.len(), format!("{issuer_path}{path}")));
            layout.add(layout.contents.len(), &path);
            layout.contents.push(DocumentKind::KeySet(audience.clone()));
            if settings.issuer.is_none() {
                continue;
            }
            let index = layout.contents.len();
            // RFC 8414 §3.1 puts the well-known part before the issuer's path, OIDC Discovery §4
            // behind it; both are served for both.
            for name in ["openid-configuration", "oauth-authorization-server"] {
                layout.add(index, &format!("{below}/.well-known/{name}"));
                layout.add(index, &format!("/.well-known/{name}{below}"));
                aliases.push((index, format!("{issuer_path}{below}/.well-known/{name}")));
                aliases.push((index, format!("/.well-known/{name}{issuer_path}{below}")));
            }
            layout.contents.push(DocumentKind::Discovery(audience));
        }
        // An audience that is called like the issuer's path has that path itself.
        for (index, path) in aliases {
            layout.add(index, &path);
        }
        layout
    }

    /// Where nothing stands yet, so that the same path of several documents is the first one's.
    fn add(&mut self, index: usize, path: &str) {
        self.paths.entry(path.trim_start_matches('/').into()).or_insert(index);
    }

    /// The layout for these audiences, where audiences come and go; else this one.
    #[must_use]
    pub(crate) fn adapted<'a>(
        self: &Arc<Self>,
        audiences: impl Iterator<Item = &'a Audience>,
    ) -> Arc<Self> {
        if !self.settings.is_open {
            return Arc::clone(self);
        }
        let audiences: BTreeSet<&Audience> = audiences.collect();
        if self.audiences.iter().eq(audiences.iter().copied()) {
            return Arc::clone(self);
        }
        let audiences = audiences.into_iter().cloned().collect();
        Arc::new(Self::of(Arc::clone(&self.settings), audiences))
    }

    /// The index in [`Self::contents`] of the document at `path`.
    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        // Where everybody's key set stands, which nearly every request is for.
        if path == &*self.settings.key_set_path {
            return Some(0);
        }
        // Clients that put an issuer with a slash at its end before a path ask for two.
        let path = if path.starts_with("//") {
            path.trim_start_matches('/')
        } else {
            &path[1.min(path.len())..]
        };
        self.paths.get(path).copied()
    }

    /// Every path without its first slash, and the index of its document.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, usize)> {
        self.paths.iter().map(|(path, index)| (&**path, *index))
    }

    /// The path of a document; the first one where it has several.
    pub(crate) fn name(&self, content: &DocumentKind) -> String {
        match content {
            DocumentKind::KeySet(audience) => self.settings.path_of_key_set(audience.as_ref()),
            DocumentKind::Discovery(None) => "/.well-known/openid-configuration".to_owned(),
            DocumentKind::Discovery(Some(audience)) => {
                format!("/{audience}/.well-known/openid-configuration")
            }
        }
    }

    /// The names under which requests are counted, see [`Self::counter`]. Audiences that come and go
    /// are not told apart.
    pub(crate) fn counters(&self) -> Vec<String> {
        let any = || vec![Audience::new(Audience::PLACEHOLDER)];
        let of_any = self.settings.is_open.then(|| Self::of(Arc::clone(&self.settings), any()));
        let layout = of_any.as_ref().unwrap_or(self);
        layout.contents.iter().map(|content| layout.name(content)).collect()
    }

    /// The place in [`Self::counters`] of a document.
    pub(crate) fn counter(&self, index: usize) -> usize {
        let of_each = 1 + usize::from(self.settings.issuer.is_some());
        if self.settings.is_open && of_each <= index { of_each + index % of_each } else { index }
    }

    pub(crate) fn contents(&self) -> &[DocumentKind] {
        &self.contents
    }

    pub(crate) fn audiences(&self) -> &[Audience] {
        &self.audiences
    }

    pub(crate) fn settings(&self) -> &LayoutSettings {
        &self.settings
    }
}

impl LayoutSettings {
    fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref().map(|issuer| issuer.trim_end_matches('/'))
    }

    fn path_of_key_set(&self, audience: Option<&Audience>) -> String {
        audience.map_or_else(
            || self.key_set_path.to_string(),
            |audience| audience.put_into(&self.audience_path),
        )
    }

    /// The issuer of all, or of one audience: `issuer`, `issuer/AUDIENCE`.
    pub(crate) fn issuer_of(&self, audience: Option<&Audience>) -> Option<String> {
        let issuer = self.issuer()?;
        Some(audience.map_or_else(|| issuer.to_owned(), |audience| format!("{issuer}/{audience}")))
    }

    /// The URL of a key set, where there is an issuer.
    pub(super) fn jwks_uri(&self, audience: Option<&Audience>) -> Option<String> {
        Some(format!("{}{}", self.issuer()?, self.path_of_key_set(audience)))
    }
}

/// The path of an absolute URI without a trailing slash; empty where there is none.
fn path_of(uri: &str) -> &str {
    uri.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(issuer: Option<&str>) -> Layout {
        let audiences = ["client", "human"].map(Audience::new);
        Layout::new(&audiences, "/.well-known/jwks.json", issuer)
    }

    fn content<'a>(layout: &'a Layout, path: &str) -> Option<&'a DocumentKind> {
        layout.find(path).map(|index| &layout.contents()[index])
    }

    #[test]
    fn key_sets_stand_at_the_path_and_below_each_audience() {
        let layout = layout(None);
        assert_eq!(content(&layout, "/.well-known/jwks.json"), Some(&DocumentKind::KeySet(None)));
        let human = Some(Audience::new("human"));
        assert_eq!(
            content(&layout, "/human/.well-known/jwks.json"),
            Some(&DocumentKind::KeySet(human))
        );
        assert_eq!(content(&layout, "/other/.well-known/jwks.json"), None);
        assert_eq!(content(&layout, "/.well-known/openid-configuration"), None);
    }

    #[test]
    fn an_audience_that_is_called_like_the_issuer_s_path_has_its_own_set_there() {
        let named =
            Layout::new(&[Audience::new("tenant")], "/jwks", Some("https://id.example/tenant"));
        let own = DocumentKind::KeySet(Some(Audience::new("tenant")));
        assert_eq!(content(&named, "/tenant/.well-known/jwks.json"), Some(&own));
        let discovery = DocumentKind::Discovery(Some(Audience::new("tenant")));
        assert_eq!(content(&named, "/tenant/.well-known/openid-configuration"), Some(&discovery));
    }

    #[test]
    fn discovery_stands_where_each_standard_looks_for_it() {
        let layout = layout(Some("https://id.example/tenant/"));
        let client = DocumentKind::Discovery(Some(Audience::new("client")));
        for path in [
            "/client/.well-known/openid-configuration",
            "/tenant/client/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server/client",
            "/.well-known/oauth-authorization-server/tenant/client",
        ] {
            assert_eq!(content(&layout, path), Some(&client), "{path}");
        }
        assert_eq!(
            content(&layout, "/.well-known/openid-configuration"),
            Some(&DocumentKind::Discovery(None))
        );
        assert_eq!(
            content(&layout, "/tenant/.well-known/jwks.json"),
            Some(&DocumentKind::KeySet(None))
        );
        assert_eq!(layout.settings().issuer_of(None).as_deref(), Some("https://id.example/tenant"));
    }
}
