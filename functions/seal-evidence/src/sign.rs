//! Stores the report and the manifest, and signs the manifest.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use containment::{Error, Result, Target};
use custody::{MANIFEST, Manifest, REPORT, SIGNATURE, digest};
use evidence::Entry;

use crate::compare::what_is_wrong;
use crate::{Sealer, Trouble};

impl Sealer {
    /// Stores the report, then the manifest that lists it, with its signature; answers what was written. An unsigned
    /// manifest is stored as well: it says what is wrong.
    pub(crate) async fn publish(
        &self,
        target: &Target,
        prefix: &str,
        mut manifest: Manifest,
        good: &str,
        trouble: &mut Trouble,
    ) -> Vec<Entry> {
        let mut written = Vec::new();
        let mut sealed = manifest.clone();
        sealed.add(&trouble.outcome(good));
        let page = case_report::html(&sealed).into_bytes();
        let put = self.put(target, prefix, REPORT, "text/html; charset=utf-8", page).await;
        if let Some(entry) = trouble.or_none("the report could not be stored", put) {
            // Read again, for S3's own word about when it was stored.
            let item = self.objects.examine(prefix, &entry, None, false).await.item;
            trouble.0.extend(what_is_wrong(&item));
            manifest.evidence.push(item);
            written.push(entry);
        }
        manifest.add(&trouble.outcome(good));
        let bytes = match manifest.to_bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                trouble.0.push(format!("the manifest cannot be written as JSON: {error}"));
                return written;
            }
        };
        let signature = trouble.or_none("the manifest is not signed", self.sign(&bytes).await);
        let put = self.put(target, prefix, MANIFEST, "application/json", bytes).await;
        written.extend(trouble.or_none("the manifest could not be stored", put));
        if let Some(signature) = signature {
            let put = self.put(target, prefix, SIGNATURE, "application/octet-stream", signature).await;
            written.extend(trouble.or_none("the manifest's signature could not be stored", put));
        }
        written
    }

    async fn put(&self, target: &Target, prefix: &str, name: &str, kind: &str, bytes: Vec<u8>) -> Result<Entry> {
        self.writer.put_bytes(target, format!("{prefix}{name}"), kind, bytes).await
    }

    /// ECDSA over the SHA-256 of the bytes, in DER: KMS gets the digest, so no manifest is too long.
    async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let call = self.kms.sign().key_id(&self.key).message_type(MessageType::Digest);
        let call = call.message(Blob::new(digest(bytes))).signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
        let reply = call.send().await.map_err(Error::aws("kms:Sign", &self.key))?;
        let signature = reply.signature.map(Blob::into_inner);
        signature.ok_or_else(|| Error::Misconfigured(format!("the key {} gives no signature", self.key)))
    }

    /// Whether the signature is this key's for these bytes.
    pub(crate) async fn has_signed(&self, bytes: &[u8], signature: Vec<u8>) -> Result<bool> {
        let call = self.kms.verify().key_id(&self.key).message_type(MessageType::Digest);
        let call = call.message(Blob::new(digest(bytes))).signature(Blob::new(signature));
        let sent = call.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256).send().await;
        match sent.map_err(Error::aws("kms:Verify", &self.key)) {
            Ok(reply) => Ok(reply.signature_valid),
            Err(error) if error.code() == Some("KMSInvalidSignatureException") => Ok(false),
            Err(error) => Err(error),
        }
    }
}
