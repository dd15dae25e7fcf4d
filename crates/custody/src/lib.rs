//! The chain of custody: the manifest of a case, its signature, and the check of both.
//!
//! Pure: it knows neither AWS nor a file system, so a check needs neither.

mod hash;
mod manifest;
mod verify;

pub use hash::{Hash, digest, from_base64, hex, sha256};
pub use manifest::{Blocks, FORMAT, Item, ItemState, Lock, Manifest, Previous, Release, Snapshot, Step};
pub use verdict::Change;
pub use verify::{BadKey, Checked, Found, PublicKey, Signature, Verification, is_safe, verify};

/// The manifest's name below the case's prefix. Every sealing is a new version of it.
pub const MANIFEST: &str = "manifest.json";

/// The signature's name: ECDSA on P-256 over the SHA-256 of the manifest's bytes, in DER, as `openssl dgst` takes it.
pub const SIGNATURE: &str = "manifest.json.sig";

/// The report's name.
pub const REPORT: &str = "report.html";

#[cfg(test)]
mod tests;
