//! The check of a case: its signature, each of its items, and what else is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{DerSignature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;
use serde::Serialize;

use crate::{FORMAT, Hash, Item, ItemState, MANIFEST, Manifest, SIGNATURE, digest};

/// The public half of the key that signs manifests.
#[derive(Debug, Clone)]
pub struct PublicKey(VerifyingKey);

/// A text that is not a public key.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// It lacks the first or last line of a public key, or has something other than base64 between them.
    #[error("it is not a public key in PEM (\"-----BEGIN PUBLIC KEY-----\")")]
    NotPem,
    /// It is another kind of key, or none.
    #[error("it is not a public key on the curve P-256: {0}")]
    NotP256(p256::pkcs8::spki::Error),
}

impl PublicKey {
    /// A key from PEM, as `openssl pkey -pubin` writes what KMS's `GetPublicKey` gives; lines may have any length.
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let text = pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").ok_or(BadKey::NotPem)?;
        let text = text.strip_suffix("-----END PUBLIC KEY-----").ok_or(BadKey::NotPem)?;
        let text: String = text.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD.decode(text).map_err(|_| BadKey::NotPem)?;
        VerifyingKey::from_public_key_der(&der).map(PublicKey).map_err(BadKey::NotP256)
    }

    /// Whether the signature is this key's for these bytes.
    pub fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        DerSignature::from_bytes(signature).is_ok_and(|sign| self.0.verify_prehash(&digest(bytes), &sign).is_ok())
    }
}

/// What the manifest's signature proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Signature {
    /// The key signed this manifest, byte for byte.
    Valid,
    /// The key did not: the manifest, the signature or the key is another one.
    Invalid,
    /// There is none.
    Missing,
}

/// The state of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Found {
    /// Its bytes are the manifest's.
    Intact,
    /// Its bytes differ.
    Altered,
    /// It is not there.
    Missing,
    /// Its size is the manifest's, but the manifest has no hash of it.
    Unproven,
    /// It is there but could not be read.
    Unreadable,
    /// Its name could lead out of the case's folder, so nothing was opened.
    Unsafe,
}

/// An item of the manifest, and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Checked {
    /// Its name, as the manifest has it: untrusted text.
    pub name: String,
    /// Its version in the bucket.
    pub version_id: String,
    /// The size that it must have.
    pub size: u64,
    /// Its state now.
    pub found: Found,
    /// Its state when the case was sealed.
    pub sealed: ItemState,
    /// What is wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Checked {
    /// Whether it is what it must be, and was so when the case was sealed.
    pub fn is_good(&self) -> bool {
        self.found == Found::Intact && matches!(self.sealed, ItemState::Intact | ItemState::Unlisted)
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Verification {
    /// What the signature proves. Unless it is valid, nothing else here proves anything.
    pub signature: Signature,
    /// Why the manifest could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// The manifest, if it could be.
    #[serde(skip)]
    pub manifest: Option<Manifest>,
    /// Every item of the manifest, in its order.
    pub items: Vec<Checked>,
    /// What is there but not in the manifest.
    pub unlisted: Vec<String>,
}

impl Verification {
    /// Whether the signature is valid, the sealing missed nothing, and every item is what it must be. Unlisted files do not
    /// count.
    pub fn is_intact(&self) -> bool {
        self.signature == Signature::Valid
            && self.unreadable.is_none()
            && self.manifest.as_ref().is_some_and(|manifest| manifest.was_sealed())
            && self.items.iter().all(Checked::is_good)
    }
}

/// Checks a case.
///
/// `present` names everything that is there, relative to the case, with `/` between folders; `look` opens one of these. It
/// is never asked for another name, nor for one that is not [`is_safe`], whatever the manifest says. If the manifest lists
/// several versions of a name, one of them can be under `NAME.VERSION-ID` instead.
pub fn verify<R: Read>(
    manifest: &[u8],
    signature: Option<&[u8]>,
    key: &PublicKey,
    present: &BTreeSet<String>,
    mut look: impl FnMut(&str) -> io::Result<R>,
) -> Verification {
    let signature = match signature {
        None => Signature::Missing,
        Some(signature) if key.has_signed(manifest, signature) => Signature::Valid,
        Some(_) => Signature::Invalid,
    };
    let mut left: BTreeSet<&str> = present.iter().map(String::as_str).collect();
    left.remove(MANIFEST);
    left.remove(SIGNATURE);
    let (manifest, unreadable) = match serde_json::from_slice::<Manifest>(manifest) {
        Ok(manifest) if manifest.format == FORMAT => (Some(manifest), None),
        Ok(manifest) => (None, Some(format!("its format is {}; this program reads format {FORMAT}", manifest.format))),
        Err(error) => (None, Some(error.to_string())),
    };
    let evidence = manifest.as_ref().map_or(&[][..], |manifest| &manifest.evidence);
    let mut versions = BTreeMap::<&str, usize>::new();
    for item in evidence {
        *versions.entry(&item.name).or_default() += 1;
    }
    let mut items = Vec::new();
    for item in evidence {
        let several = versions.get(item.name.as_str()).is_some_and(|count| *count > 1);
        let names = [Some(item.name.clone()), several.then(|| format!("{}.{}", item.name, item.version_id))];
        let names: Vec<String> = names.into_iter().flatten().collect();
        for name in &names {
            left.remove(name.as_str());
        }
        items.push(check(item, &names, present, &mut look));
    }
    let unlisted = left.into_iter().map(ToOwned::to_owned).collect();
    Verification { signature, unreadable, manifest, items, unlisted }
}

fn check<R: Read>(
    item: &Item,
    names: &[String],
    present: &BTreeSet<String>,
    look: &mut impl FnMut(&str) -> io::Result<R>,
) -> Checked {
    let (found, reason) = if names.iter().all(|name| is_safe(name)) {
        // The first name with the right bytes; otherwise what is wrong with the last one present.
        let mut best = (Found::Missing, None);
        for name in names.iter().filter(|name| present.contains(*name)) {
            best = compare(item, look(name));
            if best.0 == Found::Intact {
                break;
            }
        }
        best
    } else {
        (Found::Unsafe, Some("its name could lead out of the folder, so nothing was opened".to_owned()))
    };
    let other_version = (names.len() > 1 && matches!(found, Found::Altered | Found::Missing)).then(|| {
        let version = &item.version_id;
        format!("the manifest lists several versions of this name: download version {version} as NAME.{version}")
    });
    let before = match item.state {
        ItemState::Intact => None,
        ItemState::Altered => Some("it was already altered when the case was sealed".to_owned()),
        ItemState::Missing => Some("it was already missing when the case was sealed".to_owned()),
        ItemState::Unread => Some("it could not be read when the case was sealed".to_owned()),
        ItemState::Unlisted => Some("none of Cordon's functions vouches for it".to_owned()),
    };
    let reasons: Vec<String> = [reason, other_version, before].into_iter().flatten().collect();
    Checked {
        name: item.name.clone(),
        version_id: item.version_id.clone(),
        size: item.size,
        found,
        sealed: item.state,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}

fn compare<R: Read>(item: &Item, opened: io::Result<R>) -> (Found, Option<String>) {
    // One byte more than the item's size detects a longer file, however long it is.
    let (hash, size) = match opened.and_then(|file| Hash::of(file, item.size.saturating_add(1))) {
        Ok(read) => read,
        Err(error) => return (Found::Unreadable, Some(error.to_string())),
    };
    match &item.sha256 {
        _ if size > item.size => (Found::Altered, Some(format!("it has more than {} bytes", item.size))),
        _ if size < item.size => (Found::Altered, Some(format!("it has {size} bytes and must have {}", item.size))),
        Some(expected) if expected.eq_ignore_ascii_case(&hash) => (Found::Intact, None),
        Some(expected) => (Found::Altered, Some(format!("its SHA-256 is {hash} and must be {expected}"))),
        None => (Found::Unproven, Some(format!("the manifest has no SHA-256 of it; here it is {hash}"))),
    }
}

/// Whether a name, joined to a folder, can only be that of a file below it, on any system: no absolute path, no drive, no
/// `..`, no empty part, no backslash and no NUL.
pub fn is_safe(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    !drive && !name.contains(['\\', '\0']) && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
