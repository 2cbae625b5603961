//! Which RSA keys may be published: sizes, exponent, and known weaknesses.

use std::ops::RangeInclusive;

use super::{Numbers, PublicKey};
use crate::keys::refusal::RefusalReason;

/// The one public exponent that every consumer takes, 65537, big-endian.
pub const EXPONENT: [u8; 3] = [1, 0, 1];

/// The smallest RSA modulus (RFC 7518 §3.3) and the largest, in bits.
pub const BITS: RangeInclusive<usize> = 2048..=8192;

impl PublicKey {
    /// An RSA key of these big-endian numbers.
    ///
    /// # Errors
    /// Where the modulus is too small, too large, even or of the ROCA kind, or the exponent is not
    /// 65537.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, RefusalReason> {
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = bit_length(modulus);
        if bits < *BITS.start() {
            return Err(RefusalReason::RsaTooSmall(bits));
        }
        if bits > *BITS.end() {
            return Err(RefusalReason::RsaTooLarge(bits));
        }
        if exponent != EXPONENT {
            return Err(RefusalReason::RsaExponent);
        }
        if modulus.last().is_none_or(|last| last % 2 == 0) {
            return Err(RefusalReason::BadKey("the RSA modulus is even"));
        }
        if has_roca_fingerprint(modulus) {
            return Err(RefusalReason::Roca);
        }
        Ok(Self(Numbers::Rsa { modulus: modulus.into() }))
    }
}

/// The number of bits of a big-endian number.
pub(super) fn bit_length(number: &[u8]) -> usize {
    let number = without_leading_zeros(number);
    let unused = number.first().map_or(0, |first| first.leading_zeros() as usize);
    number.len() * 8 - unused
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// Keys of the broken Infineon library are of the form k·M + (65537^a mod M): modulo each small
/// prime, the modulus is a power of 65537 (Nemec et al., "The Return of Coppersmith's Attack",
/// CCS 2017, §3.3).
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
        97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.into_iter().all(|prime| {
        let remainder =
            modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * 65537 % prime));
        powers.take(prime as usize).any(|power| power == remainder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, RefusalReason> {
        PublicKey::rsa(modulus, exponent)
    }

    fn odd(bytes: usize, first: u8) -> Vec<u8> {
        let mut modulus = vec![0xa5; bytes];
        modulus[0] = first;
        modulus
    }

    #[test]
    fn an_rsa_modulus_is_counted_in_bits_without_its_leading_zeros() {
        assert_eq!(rsa(&odd(256, 0x7f), &[1, 0, 1]), Err(RefusalReason::RsaTooSmall(2047)));
        assert!(rsa(&odd(256, 0x80), &[1, 0, 1]).is_ok());
        assert_eq!(
            rsa(&[vec![0, 0], odd(256, 0x80)].concat(), &[0, 1, 0, 1]).unwrap().bits(),
            2048
        );
        assert!(rsa(&odd(1024, 0xff), &[1, 0, 1]).is_ok());
        assert_eq!(rsa(&odd(1025, 1), &[1, 0, 1]), Err(RefusalReason::RsaTooLarge(8193)));
        assert_eq!(rsa(&[], &[]), Err(RefusalReason::RsaTooSmall(0)));
    }

    #[test]
    fn only_65537_is_accepted_as_exponent() {
        for exponent in [&[3][..], &[], &[1, 0, 0, 0, 1], &[1; 9]] {
            assert_eq!(rsa(&odd(256, 0x80), exponent), Err(RefusalReason::RsaExponent));
        }
    }

    #[test]
    fn an_even_modulus_is_refused() {
        let mut modulus = odd(256, 0x80);
        modulus[255] = 2;
        assert_eq!(
            rsa(&modulus, &[1, 0, 1]),
            Err(RefusalReason::BadKey("the RSA modulus is even"))
        );
    }

    #[test]
    fn a_power_of_65537_has_the_roca_fingerprint_and_its_neighbour_has_not() {
        // 65537^129 has 2065 bits and is a power of 65537 modulo every prime.
        let mut modulus = vec![1_u32];
        for _ in 0..129 {
            // Times 65537 is a shift by sixteen bits plus itself.
            let mut product = [&modulus[..], &[0]].concat();
            let mut carry = 0;
            for at in (0..product.len()).rev() {
                let own = if at == 0 { 0 } else { modulus[at - 1] };
                let sum = product[at] + own + carry;
                product[at] = sum & 0xffff;
                carry = sum >> 16;
            }
            modulus = product;
        }
        let mut octets: Vec<u8> = modulus
            .iter()
            .map(|digit| digit.to_be_bytes())
            .flat_map(|[_, _, high, low]| [high, low])
            .collect();
        assert_eq!(rsa(&octets, &[1, 0, 1]), Err(RefusalReason::Roca));
        *octets.last_mut().unwrap() ^= 2;
        assert!(rsa(&octets, &[1, 0, 1]).is_ok());
    }
}
