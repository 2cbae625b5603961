//! Which document stands at which path of the public listener. Fixed when the program starts.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::keys::Audience;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentKind {
    /// The JWK Set of every audience, or of one.
    KeySet(Option<Audience>),
    /// Discovery metadata (OIDC Discovery §3, RFC 8414 §2) of the whole issuer, or of an audience.
    Discovery(Option<Audience>),
}

/// The paths of the public listener and the documents behind them.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Without their first slash.
    paths: HashMap<Box<str>, usize>,
    contents: Vec<DocumentKind>,
    issuer: Option<Box<str>>,
    key_set_path: Box<str>,
    /// Members of discovery documents, beside and instead of those that are made here.
    members: Arc<Map<String, Value>>,
}

impl Layout {
    /// The layout for `audiences`, with the key sets at `path` (as in `/.well-known/jwks.json`),
    /// below `/AUDIENCE` for each audience, and discovery documents where there is an `issuer`.
    pub fn new(audiences: &[Audience], path: &str, issuer: Option<&str>) -> Self {
        let issuer = issuer.map(|issuer| issuer.trim_end_matches('/'));
        let mut layout = Self {
            paths: HashMap::new(),
            contents: Vec::new(),
            issuer: issuer.map(Into::into),
            key_set_path: path.into(),
            members: Arc::default(),
        };
        // An issuer such as https://host/tenant is reached below /tenant as well, for proxies that
        // do not take the prefix away.
        let issuer_path = issuer.map_or("", path_of);
        let everyone = std::iter::once(None).chain(audiences.iter().map(Some));
        for audience in everyone {
            let below = audience.map_or_else(String::new, |audience| format!("/{audience}"));
            layout.add(
                DocumentKind::KeySet(audience.cloned()),
                &[format!("{below}{path}"), format!("{issuer_path}{below}{path}")],
            );
            if issuer.is_some() {
                // RFC 8414 §3.1 puts the well-known part before the issuer's path, OIDC Discovery
                // §4 behind it; both are served for both.
                layout.add(
                    DocumentKind::Discovery(audience.cloned()),
                    &["openid-configuration", "oauth-authorization-server"]
                        .map(|name| {
                            [
                                format!("{below}/.well-known/{name}"),
                                format!("{issuer_path}{below}/.well-known/{name}"),
                                format!("/.well-known/{name}{below}"),
                                format!("/.well-known/{name}{issuer_path}{below}"),
                            ]
                        })
                        .concat(),
                );
            }
        }
        layout
    }

    /// The same with these members in every discovery document.
    #[must_use]
    pub fn with_members(self, members: Arc<Map<String, Value>>) -> Self {
        Self { members, ..self }
    }

    fn add(&mut self, content: DocumentKind, paths: &[String]) {
        let index = self.contents.len();
        self.contents.push(content);
        for path in paths {
            self.paths.entry(path.trim_start_matches('/').into()).or_insert(index);
        }
    }

    /// The index in [`Self::contents`] of the document at `path`.
    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        // Clients that put an issuer with a slash at its end before a path ask for two.
        let path = if path.starts_with("//") {
            path.trim_start_matches('/')
        } else {
            &path[1.min(path.len())..]
        };
        self.paths.get(path).copied()
    }

    /// The path of each document; the first one where it has several.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |content: &DocumentKind| {
            let (DocumentKind::KeySet(audience) | DocumentKind::Discovery(audience)) = content;
            let below = audience.as_ref().map_or_else(String::new, |name| format!("/{name}"));
            match content {
                DocumentKind::KeySet(_) => format!("{below}{}", self.key_set_path),
                DocumentKind::Discovery(_) => format!("{below}/.well-known/openid-configuration"),
            }
        };
        self.contents.iter().map(name).collect()
    }

    pub(crate) fn contents(&self) -> &[DocumentKind] {
        &self.contents
    }

    /// The issuer of all, or of one audience: `issuer`, `issuer/AUDIENCE`.
    pub(crate) fn issuer(&self, audience: Option<&Audience>) -> Option<String> {
        let issuer = self.issuer.as_deref()?;
        Some(audience.map_or_else(|| issuer.to_owned(), |audience| format!("{issuer}/{audience}")))
    }

    pub(super) fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    pub(crate) fn key_set_path(&self) -> &str {
        &self.key_set_path
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
        assert_eq!(layout.issuer(None).as_deref(), Some("https://id.example/tenant"));
    }
}
