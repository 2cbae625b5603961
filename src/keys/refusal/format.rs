//! Formats that hold keys, or something like them, and are not read.

use super::RefusalReason;
use super::remedy::convert;

/// What a file holds a key in, on which depends how that is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Private,
    Public,
    Certificate,
}

impl Holder {
    /// Writes the key with the name of its curve, where that stood in numbers.
    pub(super) const fn name_curve(self) -> &'static str {
        match self {
            Self::Private => "openssl ec -in FILE -param_enc named_curve -out .new",
            Self::Public => "openssl ec -pubin -in FILE -param_enc named_curve -pubout -out .new",
            Self::Certificate => {
                "openssl x509 -in FILE -noout -pubkey | \
                 openssl ec -pubin -param_enc named_curve -pubout -out .new"
            }
        }
    }

    /// Writes a key for RSASSA-PSS as a plain RSA key.
    pub(super) const fn lift_restriction(self) -> &'static str {
        match self {
            Self::Private => "openssl rsa -in FILE -traditional -out .new",
            Self::Public => "openssl rsa -pubin -in FILE -RSAPublicKey_out -out .new",
            Self::Certificate => {
                "openssl x509 -in FILE -noout -pubkey | \
                 openssl rsa -pubin -RSAPublicKey_out -out .new"
            }
        }
    }
}

/// A format that is known and not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherFormat {
    Pkcs12,
    JavaKeyStore,
    Pkcs7 {
        is_pem: bool,
    },
    CertificateRequest {
        is_pem: bool,
    },
    RevocationList,
    OpensshPrivate {
        /// And not encrypted.
        is_ed25519: bool,
    },
    OpensshPublic {
        is_ed25519: bool,
    },
    OpenPgp {
        is_private: bool,
    },
    Base64,
    Utf16,
}

impl OtherFormat {
    /// Whether it costs no key of its entry: it holds none, or one that others are made of.
    pub(crate) const fn may_lie_beside_a_key(self) -> bool {
        !matches!(
            self,
            Self::OpensshPrivate { .. }
                | Self::OpenPgp { is_private: true }
                | Self::Base64
                | Self::Utf16
        )
    }

    /// The same where it stands in PEM.
    pub(crate) const fn in_pem(self) -> Self {
        match self {
            Self::Pkcs7 { .. } => Self::Pkcs7 { is_pem: true },
            Self::CertificateRequest { .. } => Self::CertificateRequest { is_pem: true },
            other => other,
        }
    }

    pub(super) const fn code(self) -> &'static str {
        match self {
            // What they were called when labels were all that was known of them.
            Self::Pkcs7 { is_pem: true }
            | Self::CertificateRequest { is_pem: true }
            | Self::OpensshPrivate { .. } => "unknown-pem-label",
            _ => "other-format",
        }
    }

    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Pkcs12 => "it is a PKCS#12 store, not a key file",
            Self::JavaKeyStore => "it is a Java key store (JKS), not a key file",
            Self::Pkcs7 { .. } => "it is PKCS#7, which can hold certificates but is not read",
            Self::CertificateRequest { .. } => {
                "it is a request for a certificate (CSR), not a key or a certificate"
            }
            Self::RevocationList => "it is a list of revoked certificates (CRL), not a key",
            Self::OpensshPrivate { .. } => "it is a private key in OpenSSH's own format",
            Self::OpensshPublic { .. } => "it is a public key in OpenSSH's own format",
            Self::OpenPgp { .. } => "it is OpenPGP, whose keys are not for tokens",
            Self::Base64 => {
                "it is base64 without BEGIN and END lines, or of a file that was encoded once more"
            }
            Self::Utf16 => "it is text in UTF-16, and UTF-8 is expected",
        }
    }

    pub(super) fn remedy(self) -> String {
        convert(match self {
            Self::Pkcs12 => "openssl pkcs12 -in FILE -nodes -out .new",
            Self::JavaKeyStore => {
                "keytool -importkeystore -srckeystore FILE -destkeystore .p12 -deststoretype PKCS12 && \
                 openssl pkcs12 -in .p12 -nodes -out .new && rm .p12"
            }
            Self::Pkcs7 { is_pem: true } => "openssl pkcs7 -in FILE -print_certs -out .new",
            Self::Pkcs7 { is_pem: false } => {
                "openssl pkcs7 -inform DER -in FILE -print_certs -out .new"
            }
            Self::CertificateRequest { is_pem: true } => {
                "openssl req -in FILE -noout -pubkey -out .new"
            }
            Self::CertificateRequest { is_pem: false } => {
                "openssl req -inform DER -in FILE -noout -pubkey -out .new"
            }
            Self::RevocationList => return "remove it, or give it a hidden name".to_owned(),
            Self::OpensshPrivate { is_ed25519: false } => {
                return "convert it: ssh-keygen -p -m PKCS8 -N '' -f FILE".to_owned();
            }
            // A PKCS#8 key (RFC 8410 §7) of the seed, which stands at a fixed place. ssh-keygen converts
            // no Ed25519 keys.
            Self::OpensshPrivate { is_ed25519: true } => {
                "(umask 077; printf '\\060\\056\\002\\001\\000\\060\\005\\006\\003\\053\\145\\160\\004\\042\\004\\040'; \
                 sed '/-----/d' FILE | openssl base64 -d | tail -c +162 | head -c 32) > .new"
            }
            Self::OpensshPublic { is_ed25519: false } => "ssh-keygen -e -m PKCS8 -f FILE > .new",
            // The SPKI (RFC 8410 §4) of the point, which stands at the end.
            Self::OpensshPublic { is_ed25519: true } => {
                "(printf '\\060\\052\\060\\005\\006\\003\\053\\145\\160\\003\\041\\000'; \
                 cut -d' ' -f2 FILE | openssl base64 -d -A | tail -c 32) > .new"
            }
            Self::OpenPgp { .. } => {
                return "remove it, and issue a key pair for tokens".to_owned();
            }
            Self::Base64 => "(umask 077; base64 -d FILE > .new)",
            Self::Utf16 => "(umask 077; iconv -f UTF-16 -t UTF-8 FILE > .new)",
        })
    }
}

impl From<OtherFormat> for RefusalReason {
    fn from(format: OtherFormat) -> Self {
        Self::OtherFormat(format)
    }
}
