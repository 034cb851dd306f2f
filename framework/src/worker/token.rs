//! Who may speak: the secret that a coordinator and its workers share.

use crate::{Context, Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ED25519,
    SerialNumber, date_time_ymd,
};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// The name that every certificate bears; it is not looked up anywhere.
pub(super) const DOMAIN: &str = "ropeway";
const PREFIX: &str = "rw1-";
/// How long either side may take to show its token.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// PKCS #8 before the 32 bytes of an Ed25519 private key (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// The secret of a run: whoever has it may be a worker of it, and nobody else can read or say a word.
///
/// Both sides derive the same certificate authority from it and let TLS check, in both directions, that the other's
/// certificate is signed by it. So there is nothing to hand around but the token, and who lacks it fails before the
/// first byte of the protocol.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// A new secret, from the system's source of randomness.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ED25519).context("can't make a token")?;
        Ok(Self(blake3::derive_key("ropeway v1 token", key.serialized_der())))
    }

    /// The authority and the one certificate that it signs; the same on either side.
    pub(super) fn certificates(&self) -> Result<(Certificate, Identity)> {
        let making = || "can't derive certificates from the token";
        let authority_key = self.key("authority").context(making())?;
        let mut authority = params("Ropeway run", Vec::new()).context(making())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = authority.self_signed(&authority_key).context(making())?;
        let issuer = Issuer::new(authority, authority_key);
        let member_key = self.key("member").context(making())?;
        let mut member = params("Ropeway member", vec![DOMAIN.into()]).context(making())?;
        member.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = member.signed_by(&member_key, &issuer).context(making())?;
        let identity = Identity::from_pem(signed.pem(), member_key.serialize_pem());
        Ok((Certificate::from_pem(certificate.pem()), identity))
    }

    fn key(&self, purpose: &str) -> Result<KeyPair, rcgen::Error> {
        let mut secret = PKCS8_ED25519.to_vec();
        secret.extend(blake3::derive_key(&format!("ropeway v1 {purpose} key"), &self.0));
        KeyPair::try_from(secret)
    }

    pub(super) fn server(&self) -> Result<ServerTlsConfig> {
        let (authority, identity) = self.certificates()?;
        Ok(ServerTlsConfig::new().identity(identity).client_ca_root(authority).timeout(HANDSHAKE))
    }

    pub(super) fn client(&self) -> Result<ClientTlsConfig> {
        let (authority, identity) = self.certificates()?;
        let config = ClientTlsConfig::new().ca_certificate(authority).identity(identity).domain_name(DOMAIN);
        Ok(config.timeout(HANDSHAKE))
    }
}

/// Everything in a certificate but its key is fixed, so that both sides make the same one.
fn params(name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(1));
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(4000, 1, 1);
    Ok(params)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", blake3::Hash::from(self.0).to_hex())
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim().strip_prefix(PREFIX).and_then(|digits| blake3::Hash::from_hex(digits).ok());
        digits.map(|hash| Self(*hash.as_bytes())).ok_or_else(|| {
            Error::usage(format!("this is no token: expected {PREFIX} and 64 hexadecimal digits"))
                .help("the coordinator prints its token when it starts with --listen")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_both_sides_derive_the_same() {
        let token = Token::generate().unwrap();
        let read: Token = format!(" {token}\n").parse().unwrap();
        assert!(read == token && Token::generate().unwrap() != token);
        let (one, other) = (token.certificates().unwrap(), read.certificates().unwrap());
        assert_eq!(one.0.get_ref(), other.0.get_ref());
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn what_is_no_token_is_refused_in_words() {
        for text in ["", "rw1-", "rw1-zz", "x", &"0".repeat(64)] {
            let error = text.parse::<Token>().unwrap_err();
            assert!(error.to_string().starts_with("this is no token"), "{error}");
        }
    }
}
