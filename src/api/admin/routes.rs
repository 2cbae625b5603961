//! What there is: each method and path, and what it is called.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::errors::ApiError;
use crate::keys::Kid;

/// An operation of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Issue,
    List,
    Current,
    Show,
    Delete,
    Invalidate,
    Reactivate,
    OpenApi,
}

/// Where the key pairs are.
const KEY_PAIRS: &str = "/oauth/keys/keypair";

/// A request's route, with the id in its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteMatch {
    pub(super) route: Route,
    /// The id as it was given, decoded; that it is a kid is not known yet.
    pub(super) kid: Option<String>,
}

impl Route {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 8] = [
        Self::Issue,
        Self::List,
        Self::Current,
        Self::Show,
        Self::Delete,
        Self::Invalidate,
        Self::Reactivate,
        Self::OpenApi,
    ];

    /// Its method, and its path with names for what varies.
    pub const fn template(self) -> (Method, &'static str) {
        match self {
            Self::Issue => (Method::POST, "/oauth/keys/keypair"),
            Self::List => (Method::GET, "/oauth/keys/keypair"),
            Self::Current => (Method::GET, "/oauth/keys/keypair/current"),
            Self::Show => (Method::GET, "/oauth/keys/keypair/{keyId}"),
            Self::Delete => (Method::DELETE, "/oauth/keys/keypair/{keyId}"),
            Self::Invalidate => (Method::POST, "/oauth/keys/keypair/{keyId}/invalidate"),
            Self::Reactivate => (Method::POST, "/oauth/keys/keypair/{keyId}/reactivate"),
            Self::OpenApi => (Method::GET, "/openapi.json"),
        }
    }

    /// What it is called in the log.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::List => "list",
            Self::Current => "current",
            Self::Show => "show",
            Self::Delete => "delete",
            Self::Invalidate => "invalidate",
            Self::Reactivate => "reactivate",
            Self::OpenApi => "openapi",
        }
    }

    pub const fn is_change(self) -> bool {
        matches!(self, Self::Issue | Self::Delete | Self::Invalidate | Self::Reactivate)
    }

    /// Whether its requests have a body.
    pub const fn takes_body(self) -> bool {
        matches!(self, Self::Issue | Self::Invalidate | Self::Reactivate)
    }
}

/// The paths with names for what varies, each once.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    let all = Route::ALL.map(|route| route.template().1);
    (0..all.len()).filter(move |at| !all[..*at].contains(&all[*at])).map(move |at| all[at])
}

/// The place of a request's path in [`paths`], if it has one.
pub(super) fn place(method: &Method, path: &str) -> Option<usize> {
    let (_, template) = find(method, path).ok()?.route.template();
    paths().position(|path| path == template)
}

/// The route of a request.
pub(super) fn find(method: &Method, path: &str) -> Result<RouteMatch, ApiError> {
    let (routes, kid): (&[Route], Option<&str>) = match path.strip_prefix(KEY_PAIRS) {
        _ if path == "/openapi.json" => (&[Route::OpenApi], None),
        Some("") => (&[Route::List, Route::Issue], None),
        // A key of that name can be listed, and dealt with by the command line.
        Some("/current") => (&[Route::Current], None),
        Some(rest) => match rest.split('/').collect::<Vec<_>>()[..] {
            ["", kid] if !kid.is_empty() => (&[Route::Show, Route::Delete], Some(kid)),
            ["", kid, "invalidate"] if !kid.is_empty() => (&[Route::Invalidate], Some(kid)),
            ["", kid, "reactivate"] if !kid.is_empty() => (&[Route::Reactivate], Some(kid)),
            _ => return Err(ApiError::NoSuchPath),
        },
        None => return Err(ApiError::NoSuchPath),
    };
    let route = routes.iter().copied().find(|route| route.template().0 == *method);
    let Some(route) = route else {
        let methods: Vec<String> =
            routes.iter().map(|route| route.template().0.to_string()).collect();
        return Err(ApiError::MethodNotAllowed(methods.join(", ")));
    };
    let kid = kid.map(|kid| percent_decode_str(kid).decode_utf8_lossy().into_owned());
    Ok(RouteMatch { route, kid })
}

impl RouteMatch {
    /// The key's id. What can't be an id belongs to no key.
    pub(super) fn kid(&self) -> Result<Kid, ApiError> {
        let text = self.kid.as_deref().unwrap_or_default();
        Kid::new(text).map_err(|_| ApiError::InvalidKeyId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_leads_to_its_route() {
        for route in Route::ALL {
            let (method, template) = route.template();
            let path = template.replace("{keyId}", "a%2Fb%20c");
            let found = find(&method, &path).unwrap();
            assert_eq!(found.route, route);
            let expected = template.contains('{').then(|| "a/b c".to_owned());
            assert_eq!(found.kid, expected, "{template}");
            let place = place(&method, &path).unwrap();
            assert_eq!(paths().nth(place), Some(template));
        }
        assert_eq!(paths().count(), 6);
    }

    #[test]
    fn other_paths_and_methods_are_told_apart() {
        for path in [
            "/",
            "/oauth/keys",
            "/oauth/keys/keypair/",
            "/oauth/keys/keypairs",
            "/oauth/keys/keypair/a/b",
            "/oauth/keys/keypair//invalidate",
            "/oauth/keys/keypair/a/invalidate/",
            "/openapi.json/",
        ] {
            assert!(matches!(find(&Method::GET, path), Err(ApiError::NoSuchPath)), "{path}");
        }
        for (method, path, expected) in [
            (Method::PUT, "/oauth/keys/keypair", "GET, POST"),
            (Method::GET, "/oauth/keys/keypair/a/invalidate", "POST"),
            (Method::POST, "/oauth/keys/keypair/a", "GET, DELETE"),
            (Method::POST, "/openapi.json", "GET"),
            (Method::DELETE, "/oauth/keys/keypair/current", "GET"),
        ] {
            match find(&method, path) {
                Err(ApiError::MethodNotAllowed(allow)) => assert_eq!(allow, expected, "{path}"),
                other => panic!("{path}: {other:?}"),
            }
        }
    }
}
