//! A certificate authority of our own, and what it issues: the server's certificate and the one that SNS signs with.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Everything made from the directory's keys.
pub struct Certificates {
    /// The authority, for clients to trust.
    pub ca_pem: String,
    /// TLS for the server.
    pub server: Arc<ServerConfig>,
    /// What SNS signs with.
    pub sns: SnsIdentity,
}

/// The key of SNS and its certificate.
pub struct SnsIdentity {
    pub key: rsa::KeyPair,
    pub certificate_pem: String,
    /// Hexadecimal, part of the certificate's URL, so that a new certificate has a new one.
    pub fingerprint: String,
}

impl Certificates {
    /// Reads the authority (`ca.pem`, `ca-key.pem`) and the SNS identity (`sns.pem`, `sns-key.pem`) from `directory`,
    /// making what is absent. The server's certificate is made anew for each process, valid for `host` as well.
    pub fn open(directory: &Path, host: &str) -> Result<Certificates, String> {
        fs::create_dir_all(directory).map_err(|error| problem(directory, error))?;
        let (ca_pem, ca_key, is_new) = open_authority(directory)?;
        let issuer = Issuer::new(authority_params(), ca_key);
        let server = issue_server(&issuer, host)?;
        let sns = open_sns(directory, &issuer, is_new)?;
        Ok(Certificates { ca_pem, server, sns })
    }
}

fn open_authority(directory: &Path) -> Result<(String, KeyPair, bool), String> {
    let (certificate_path, key_path) = (directory.join("ca.pem"), directory.join("ca-key.pem"));
    if certificate_path.exists() && key_path.exists() {
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|error| problem(&key_path, error))?;
        return Ok((read(&certificate_path)?, key, false));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let pem = authority_params().self_signed(&key).map_err(failed)?.pem();
    write(&key_path, &key.serialize_pem(), 0o600)?;
    write(&certificate_path, &pem, 0o644)?;
    Ok((pem, key, true))
}

/// Fixed, so that an authority read back from its key issues under the same name and key identifier.
fn authority_params() -> CertificateParams {
    let mut params = params("mailrail simulator authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    params
}

fn issue_server(issuer: &Issuer<KeyPair>, host: &str) -> Result<Arc<ServerConfig>, String> {
    let mut params = params("mailrail simulator");
    params.subject_alt_names = server_names(host)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = params.signed_by(&key, issuer).map_err(failed)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn server_names(host: &str) -> Result<Vec<SanType>, String> {
    let mut names = vec![
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
        SanType::DnsName("localhost".try_into().map_err(failed)?),
    ];
    let own = match host.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(host.try_into().map_err(failed)?),
    };
    if !names.contains(&own) {
        names.push(own);
    }
    Ok(names)
}

fn open_sns(directory: &Path, issuer: &Issuer<KeyPair>, is_new_authority: bool) -> Result<SnsIdentity, String> {
    let (certificate_path, key_path) = (directory.join("sns.pem"), directory.join("sns-key.pem"));
    // A certificate of an earlier authority would not verify any more.
    if is_new_authority || !certificate_path.exists() || !key_path.exists() {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(failed)?;
        let mut params = params("sns.simulator");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, issuer).map_err(failed)?;
        write(&key_path, &key.serialize_pem(), 0o600)?;
        write(&certificate_path, &certificate.pem(), 0o644)?;
    }
    let certificate_pem = read(&certificate_path)?;
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|error| problem(&certificate_path, error))?;
    let key_der =
        PrivateKeyDer::from_pem_slice(read(&key_path)?.as_bytes()).map_err(|error| problem(&key_path, error))?;
    let key = rsa::KeyPair::from_pkcs8(key_der.secret_der()).map_err(|error| problem(&key_path, error))?;
    let fingerprint = data_encoding::HEXLOWER.encode(&digest(&SHA256, &der).as_ref()[..16]);
    Ok(SnsIdentity { key, certificate_pem, fingerprint })
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| problem(path, error))
}

/// Writes beside the place and then moves, so that nobody reads half a file.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let beside = path.with_extension("new");
    // One left by a crash could have another mode.
    let _ = fs::remove_file(&beside);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| problem(path, error))
}

fn problem(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn failed(error: impl std::fmt::Display) -> String {
    format!("cannot make a certificate: {error}")
}
