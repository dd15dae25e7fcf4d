//! SHA-256, as the manifest writes it: 64 lower-case hexadecimal digits.

use std::io::{self, Read};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

/// A SHA-256 in the making, and how many bytes it is of.
#[derive(Debug, Clone, Default)]
pub struct Hash {
    state: Sha256,
    size: u64,
}

impl Hash {
    /// Adds these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The hash of everything added, and how many bytes that is.
    pub fn finish(self) -> (String, u64) {
        (hex(&self.state.finalize()), self.size)
    }

    /// The hash of what a reader gives, up to this many bytes, in pieces of 64 KiB.
    pub fn of(reader: impl Read, at_most: u64) -> io::Result<(String, u64)> {
        let (mut hash, mut reader, mut piece) = (Hash::default(), reader.take(at_most), vec![0; 64 * 1024]);
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(hash.finish()),
                Ok(count) => hash.update(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// SHA-256 of bytes, as bytes: what is signed.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of bytes, as text.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&digest(bytes))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A SHA-256 as S3 writes it. None unless it is of a whole object: the composite of a multipart upload ends in `-PARTS`
/// (aws-behaviour#multipart-hashes).
pub fn from_base64(checksum: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(checksum).ok()?;
    (bytes.len() == 32).then(|| hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_reader_is_hashed_in_pieces_and_no_further_than_asked() {
        let bytes = vec![7; 200_000];
        assert_eq!(Hash::of(&bytes[..], u64::MAX).expect("read"), (sha256(&bytes), 200_000));
        assert_eq!(Hash::of(io::repeat(7), 200_000).expect("read"), (sha256(&bytes), 200_000));
        assert_eq!(Hash::of(io::empty(), 1).expect("read"), (EMPTY.to_owned(), 0));
    }

    #[test]
    fn a_checksum_of_s3_is_the_same_hash_unless_it_is_a_composite() {
        assert_eq!(from_base64("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").as_deref(), Some(EMPTY));
        for other in ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=-3", "AAAA", "", "no base64"] {
            assert_eq!(from_base64(other), None, "{other}");
        }
    }
}
