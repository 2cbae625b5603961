//! Who may call: by the Unix socket's permissions and the caller's uid, by a bearer token from a
//! file, or by a JWT that a published key signed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use hyper::header::{AUTHORIZATION, HeaderMap};
use jiff::Timestamp;
use serde_json::Value;

use super::errors::ApiError;
use crate::config::AdminJwt;
use crate::keys::lifecycle::Policy;
use crate::publish::document::PublishedKey;
use crate::publish::snapshot::SnapshotReader;
use crate::server::peer::Peer;
use crate::token::{self, Expected};

/// What lets a caller in.
#[derive(Debug)]
pub struct Access {
    /// The uids that may call by a Unix socket; every one that may open it where empty.
    pub allowed_uids: Vec<u32>,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// What a JWT must say.
    pub jwt: Option<AdminJwt>,
    /// The keys that may have signed it.
    pub published: SnapshotReader,
    pub policy: Policy,
}

/// Who was let in, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) who: String,
}

impl Access {
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        now: Timestamp,
    ) -> Result<Caller, ApiError> {
        if let Some(uid) = peer.uid {
            if self.allowed_uids.is_empty() || self.allowed_uids.contains(&uid) {
                return Ok(Caller { who: format!("uid:{uid}") });
            }
            return Err(ApiError::Forbidden(format!(
                "The user id {uid} is none of those that may call (admin.allowed_uids)."
            )));
        }
        let token = bearer(headers)?;
        if self.token_file.as_deref().is_some_and(|file| is_token_of(file, token)) {
            return Ok(Caller { who: "token-file".to_owned() });
        }
        match &self.jwt {
            Some(jwt) => self.admit_jwt(jwt, token, now),
            None => Err(unauthorized("The bearer token is not the one that is expected.")),
        }
    }

    fn admit_jwt(&self, jwt: &AdminJwt, token: &str, now: Timestamp) -> Result<Caller, ApiError> {
        let snapshot = self.published.at(now);
        let keys = snapshot.as_ref().map(|snapshot| snapshot.keys()).unwrap_or_default();
        let jwk_of = |kid: &str| {
            let is_signer = |key: &&PublishedKey| {
                let is_of_audience =
                    jwt.key_audience.as_ref().is_none_or(|audience| key.name.audience == *audience);
                // A key that was ended, or has not begun, lets nobody in, who could take that back.
                key.name.kid.as_str() == kid && is_of_audience && key.is_active(now, &self.policy)
            };
            keys.iter().find(is_signer).map(|key| key.jwk().into())
        };
        let expected = Expected {
            issuer: Some(jwt.issuer.clone()),
            audience: Some(jwt.audience.clone()),
            leeway: Duration::ZERO,
        };
        let verified = token::verify(token, jwk_of, &expected, now)
            .map_err(|refusal| unauthorized(&format!("The bearer token is refused: {refusal}.")))?;
        if !is_for_access(verified.header.get("typ")) {
            return Err(unauthorized(
                "The bearer token is of another type (\"typ\"): JWT or at+jwt is expected.",
            ));
        }
        if !has_role(verified.claims.get(&jwt.role_claim), &jwt.role) {
            return Err(ApiError::Forbidden(format!(
                "The bearer token does not have the role {} in its claim {}.",
                jwt.role, jwt.role_claim
            )));
        }
        let subject = verified.claims.get("sub").and_then(Value::as_str).unwrap_or("-");
        Ok(Caller { who: format!("jwt:{subject}") })
    }
}

fn unauthorized(why: &str) -> ApiError {
    ApiError::Unauthorized(why.to_owned())
}

/// The one bearer token of a request (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(unauthorized("A bearer token is needed: Authorization: Bearer TOKEN."));
    };
    let token = field.to_str().ok().and_then(|field| {
        let (scheme, token) = field.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
    });
    token
        .filter(|token| !token.is_empty())
        .ok_or_else(|| unauthorized("The Authorization field is no bearer token."))
}

/// Whether `token` is what the file holds now, so that a new token counts when it is written.
fn is_token_of(file: &Path, token: &str) -> bool {
    crate::source::read_small(file).is_ok_and(|expected| is_same(&expected, token))
}

/// Whether `token` is `expected`, blanks around it aside. The time that this takes tells nothing.
fn is_same(expected: &[u8], token: &str) -> bool {
    let expected = expected.trim_ascii();
    let [one, other] = [expected, token.as_bytes()].map(|token| digest(&SHA256, token));
    !expected.is_empty() && verify_slices_are_equal(one.as_ref(), other.as_ref()).is_ok()
}

/// Whether a token's `typ` (RFC 7519 §5.1) is that of an access token (RFC 9068 §2.1), or says
/// nothing: one that was made for something else must not be used here (RFC 8725 §3.11).
fn is_for_access(typ: Option<&Value>) -> bool {
    let Some(typ) = typ else { return true };
    let typ = typ.as_str().unwrap_or_default().to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// Whether a claim is the role, or a list that has it.
fn has_role(claim: Option<&Value>, role: &str) -> bool {
    match claim {
        Some(Value::String(roles)) => roles.split(' ').any(|one| one == role),
        Some(Value::Array(roles)) => roles.iter().any(|one| one == role),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_role_stands_alone_or_in_a_list() {
        for claim in [json!("ROLE_ADMIN"), json!("ROLE_A ROLE_ADMIN"), json!(["x", "ROLE_ADMIN"])] {
            assert!(has_role(Some(&claim), "ROLE_ADMIN"), "{claim}");
        }
        for claim in
            [json!("ROLE_ADMINS"), json!(["ROLE"]), json!({ "ROLE_ADMIN": true }), json!(1)]
        {
            assert!(!has_role(Some(&claim), "ROLE_ADMIN"), "{claim}");
        }
        assert!(!has_role(None, "ROLE_ADMIN"));
    }

    #[test]
    fn a_bearer_token_is_one_field_of_one_scheme() {
        let token = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, field.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned).ok()
        };
        assert_eq!(token(&["Bearer abc"]), Some("abc".to_owned()));
        assert_eq!(token(&["bearer abc"]), Some("abc".to_owned()));
        for fields in
            [&[][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearer a", "Bearer a"]]
        {
            assert_eq!(token(fields), None, "{fields:?}");
        }
    }

    #[test]
    fn a_token_is_the_file_without_the_blanks_around_it() {
        assert!(is_same(b"first\n", "first"));
        for (expected, token) in [("first", "second"), ("first", "firs"), ("", ""), ("\n", "")] {
            assert!(!is_same(expected.as_bytes(), token), "{expected:?} {token:?}");
        }
    }
}
