//! Which Ed25519 keys may be published: points of the subgroup of prime order, in their one form.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};

use super::{Numbers, PublicKey};
use crate::keys::refusal::RefusalReason;

impl PublicKey {
    /// An Ed25519 key of these bytes (RFC 8032 §5.1.5), as a key file has them.
    ///
    /// # Errors
    /// As [`Self::remembered_ed25519`], and where the point is outside the subgroup of prime order or in
    /// another than its one form (§5.1.3): about those verifiers disagree.
    pub fn ed25519(bytes: &[u8]) -> Result<Self, RefusalReason> {
        let (key, point) = edwards(bytes)?;
        if !point.is_torsion_free() || point.compress().as_bytes() != bytes {
            return Err(RefusalReason::BadKey(
                "the Ed25519 point is outside the subgroup of prime order",
            ));
        }
        Ok(key)
    }

    /// An Ed25519 key of these bytes, as a record has them. It passed [`Self::ed25519`] when it was first
    /// read. The subgroup is not looked at again: that takes as long as verifying a signature, for
    /// each record, and all of them are read anew under the ledger's lock.
    ///
    /// # Errors
    /// Where they are not 32, not a point, or a point of small order, under which anyone can forge.
    pub(crate) fn remembered_ed25519(bytes: &[u8]) -> Result<Self, RefusalReason> {
        edwards(bytes).map(|(key, _)| key)
    }
}

fn edwards(bytes: &[u8]) -> Result<(PublicKey, EdwardsPoint), RefusalReason> {
    let x: [u8; 32] = bytes
        .try_into()
        .map_err(|_| RefusalReason::BadKey("an Ed25519 public key has 32 bytes"))?;
    let point = CompressedEdwardsY(x).decompress().ok_or(RefusalReason::NotOnCurve)?;
    if point.is_small_order() {
        return Err(RefusalReason::BadKey("the Ed25519 point has a small order"));
    }
    Ok((PublicKey(Numbers::Ed25519 { x }), point))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ed25519(bytes: &[u8]) -> Result<PublicKey, RefusalReason> {
        PublicKey::ed25519(bytes)
    }

    #[test]
    fn points_of_small_or_mixed_order_are_no_ed25519_keys() {
        use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
        let base = ED25519_BASEPOINT_POINT;
        assert!(ed25519(base.compress().as_bytes()).is_ok());
        for torsion in &EIGHT_TORSION {
            let small = ed25519(torsion.compress().as_bytes());
            assert_eq!(small, Err(RefusalReason::BadKey("the Ed25519 point has a small order")));
        }
        for torsion in &EIGHT_TORSION[1..] {
            let mixed = ed25519((base + torsion).compress().as_bytes());
            assert!(matches!(mixed, Err(RefusalReason::BadKey(_))));
        }
        let mut no_point = [0; 32];
        no_point[0] = 2;
        assert_eq!(ed25519(&no_point), Err(RefusalReason::NotOnCurve));
    }
}
