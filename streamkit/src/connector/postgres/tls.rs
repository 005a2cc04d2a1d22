//! Encrypted connections, as `sslmode` and `sslrootcert` of a connection string ask for them.
//!
//! | `sslmode` | encrypted | who the server is |
//! |---|---|---|
//! | `disable`, `allow`, `prefer`, none | no | |
//! | `require` | yes | not looked at; with `sslrootcert` as `verify-ca` |
//! | `verify-ca` | yes | its certificate is signed by a trusted one, or is one |
//! | `verify-full` | yes | and it is for the host's name |
//!
//! Trusted are the certificates in the file `sslrootcert`, or the system's. As with libpq, but for one
//! thing: what does not ask for encryption does not get it by chance, and what does gets it or an
//! error, never a plain connection.

use crate::error::{Error, Result};

/// How much of a connection string is about encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What was cut out of a connection string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) mode: Mode,
    pub(super) root: Option<String>,
    /// The connection string without them.
    pub(super) rest: String,
}

/// Cuts `sslmode` and `sslrootcert` out of a connection string, since the client knows neither the
/// one's `verify-full` nor the other. `None` if they are not as they must be.
pub(super) fn wishes(url: &str) -> Option<Wishes> {
    let mut wishes = Wishes { mode: Mode::Plain, root: None, rest: String::new() };
    let is_url = url.contains("://");
    let (before, options, between) = match url.split_once('?') {
        Some((before, options)) if is_url => (before, options, '&'),
        _ if is_url => (url, "", '&'),
        _ => ("", url, ' '),
    };
    let mut rest = vec![];
    for option in options.split(between) {
        match option.split_once('=') {
            Some(("sslmode", mode)) => wishes.mode = mode_of(mode)?,
            Some(("sslrootcert", path)) if is_url => wishes.root = Some(decoded(path)?),
            Some(("sslrootcert", path)) => wishes.root = Some(path.trim_matches('\'').to_owned()),
            _ => rest.push(option),
        }
    }
    let rest = rest.join(&between.to_string());
    wishes.rest = match (is_url, rest.is_empty()) {
        (true, true) => before.to_owned(),
        (true, false) => format!("{before}?{rest}"),
        (false, _) => rest,
    };
    Some(wishes)
}

fn mode_of(text: &str) -> Option<Mode> {
    Some(match text {
        "disable" | "allow" | "prefer" => Mode::Plain,
        "require" => Mode::Require,
        "verify-ca" => Mode::VerifyCa,
        "verify-full" => Mode::VerifyFull,
        _ => return None,
    })
}

/// `%2F` as `/`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (hex, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(feature = "postgres-tls")]
pub(super) use with::Tls;
#[cfg(not(feature = "postgres-tls"))]
pub(super) use without::Tls;

#[cfg(not(feature = "postgres-tls"))]
mod without {
    use super::{Error, Mode, Result};

    /// Encryption that was not built in.
    #[derive(Debug, Clone)]
    pub(in super::super) enum Tls {}

    impl Tls {
        pub(in super::super) fn new(_: Mode, _: Option<&str>) -> Result<Self> {
            Err(Error::user(
                "the connection string of PostgreSQL asks for an encrypted connection, and this \
                 program was built without one: add the cargo feature postgres-tls of streamkit",
            ))
        }
    }
}

#[cfg(feature = "postgres-tls")]
mod with {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
    use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::server::ParsedCertificate;
    use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

    use super::{Error, Mode, Result};

    /// How to encrypt.
    #[derive(Debug, Clone)]
    pub(in super::super) struct Tls(pub(in super::super) Arc<ClientConfig>);

    impl Tls {
        pub(in super::super) fn new(mode: Mode, root: Option<&str>) -> Result<Self> {
            let check = match (mode, root) {
                (Mode::Require | Mode::Plain, None) => Check::Nothing,
                (Mode::Require | Mode::Plain | Mode::VerifyCa, _) => Check::Chain,
                (Mode::VerifyFull, _) => Check::ChainAndName,
            };
            let trusted = match root {
                _ if check == Check::Nothing => vec![],
                Some(path) if path != "system" => read(Path::new(path))?,
                _ => system()?,
            };
            let mut roots = RootCertStore::empty();
            // A certificate that is not fit to sign others may still be the server's own.
            roots.add_parsable_certificates(trusted.iter().cloned());
            let provider = Arc::new(ring::default_provider());
            let verifier = Verifier { provider: Arc::clone(&provider), check, trusted, roots };
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|e| Error::internal("rustls").because(e))?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            if check == Check::Nothing {
                tracing::info!(
                    "the connection to PostgreSQL is encrypted, and who the server is is not looked \
                     at; sslmode=verify-full does that"
                );
            }
            Ok(Self(Arc::new(config)))
        }
    }

    fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
        let problem = |what: String| {
            Error::user(format!("sslrootcert {} cannot be used: {what}", path.display()))
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(|e| problem(e.to_string()))?;
        if certificates.is_empty() {
            return Err(problem("it has no certificate in PEM format".to_owned()));
        }
        Ok(certificates)
    }

    fn system() -> Result<Vec<CertificateDer<'static>>> {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err(Error::user(
                "this system has no trusted certificates (on Debian: package ca-certificates), and \
                 sslmode asks for a verified server: name a file with sslrootcert=PATH",
            ));
        }
        Ok(found.certs)
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Check {
        Nothing,
        Chain,
        ChainAndName,
    }

    #[derive(Debug)]
    struct Verifier {
        provider: Arc<CryptoProvider>,
        check: Check,
        trusted: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
    }

    impl ServerCertVerifier for Verifier {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            server_name: &ServerName<'_>,
            _ocsp_response: &[u8],
            now: UnixTime,
        ) -> std::result::Result<ServerCertVerified, rustls::Error> {
            let done = Ok(ServerCertVerified::assertion());
            if self.check == Check::Nothing {
                return done;
            }
            let certificate = ParsedCertificate::try_from(end_entity)?;
            // One that was named itself is trusted as it is: the self-made one of many a server.
            if !self.trusted.contains(end_entity) {
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(
                    &certificate,
                    &self.roots,
                    intermediates,
                    now,
                    algorithms,
                )?;
            }
            if self.check == Check::ChainAndName {
                verify_server_name(&certificate, server_name)?;
            }
            done
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f67_wishes_are_cut_out_and_nothing_else() {
        let cut = |url: &str| {
            let wishes = wishes(url).unwrap();
            (wishes.mode, wishes.root, wishes.rest)
        };
        let plain = |url: &str| assert_eq!(cut(url), (Mode::Plain, None, url.to_owned()));
        plain("postgres://u:p@h:1/d");
        plain("postgres://u:p@h/d?application_name=x&options=-csearch_path%3Da");
        plain("host=h user=u password='a b'");
        plain("nothing");
        let (url, root) = ("postgres://u@h/d", Some("/a b/root.crt".to_owned()));
        assert_eq!(
            cut("postgres://u@h/d?sslmode=verify-full&sslrootcert=%2Fa%20b%2Froot.crt"),
            (Mode::VerifyFull, root, url.to_owned())
        );
        assert_eq!(
            cut("postgres://u@h/d?a=b&sslmode=require&c=d"),
            (Mode::Require, None, format!("{url}?a=b&c=d"))
        );
        assert_eq!(
            cut("host=h sslmode=verify-ca sslrootcert=/r.crt user=u"),
            (Mode::VerifyCa, Some("/r.crt".to_owned()), "host=h user=u".to_owned())
        );
        for wrong in
            ["sslmode=yes", "sslmode=", "sslmode=REQUIRE", "sslrootcert=%2", "sslrootcert=%zz"]
        {
            assert_eq!(wishes(&format!("postgres://u@h/d?{wrong}")), None, "{wrong}");
        }
    }
}
