//! The capture's objects in the evidence bucket: the URLs that the host gets, and what arrived by them.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use containment::{Error, Journal, Result, Target};
use custody::Hash;
use evidence::{Bucket, Entry, Pointer};
use runtime::Caller;

use crate::host::Stated;

/// An object up to this size is streamed and hashed by the function itself: seconds, of the function's three minutes.
const HASHED_AT_MOST: u64 = 1024 * 1024 * 1024;

/// The capture's side of the bucket.
#[derive(Debug, Clone)]
pub struct Objects {
    s3: Client,
    name: String,
    caller: Caller,
    store: Bucket,
}

/// What became of an object that the host was to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is there, and as the host says it is.
    Good(String),
    /// It is there and in the ledger, but is not, or not provably, what the host says.
    Doubtful(String),
    /// There is nothing of that name.
    Missing,
}

impl Objects {
    /// The bucket by this name.
    pub fn new(config: aws_sdk_s3::config::Builder, name: impl Into<String>, caller: Caller) -> Self {
        // The signed request has no body yet: the SDK's own checksum would be that of an empty one.
        let config = config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        let (s3, name) = (Client::from_conf(config.build()), name.into());
        let store = Bucket::new(s3.clone(), name.clone(), caller.clone());
        Objects { s3, name, caller, store }
    }

    #[cfg(test)]
    pub(crate) fn faked(s3: Client) -> Self {
        let (name, caller) = ("evidence".to_owned(), Caller::default());
        Objects { store: Bucket::new(s3.clone(), name.clone(), caller.clone()), s3, name, caller }
    }

    /// One that can sign and has nobody to call.
    #[cfg(test)]
    pub(crate) fn signing() -> Self {
        use aws_sdk_s3::config::{Credentials, Region};
        let credentials = Credentials::new("AKID", "secret", Some("token".into()), None, "test");
        let config = aws_sdk_s3::config::Builder::new().region(Region::new("eu-west-1"));
        let config = config.behavior_version_latest().credentials_provider(credentials);
        Objects::new(config, "evidence", Caller::default())
    }

    pub(crate) fn at(&self, key: &str) -> String {
        format!("{}/{key}", self.name)
    }

    /// A URL that puts one object of this key, once: `If-None-Match: *` is signed, so that nobody can leave it out.
    /// It can neither read nor list nor overwrite, and dies with its time.
    pub(crate) async fn put_url(&self, key: &str, seconds: i64) -> Result<String> {
        let call = self.s3.put_object().bucket(&self.name).key(key).if_none_match("*");
        let signed = call.presigned(lifetime(seconds)?).await.map_err(Error::aws("s3:PutObject", self.at(key)))?;
        Ok(signed.uri().to_owned())
    }

    /// A URL that gets one object.
    pub(crate) async fn get_url(&self, key: &str, seconds: i64) -> Result<String> {
        let call = self.s3.get_object().bucket(&self.name).key(key);
        let signed = call.presigned(lifetime(seconds)?).await.map_err(Error::aws("s3:GetObject", self.at(key)))?;
        Ok(signed.uri().to_owned())
    }

    /// A URL for each part of an upload.
    pub(crate) async fn part_urls(&self, key: &str, upload: &str, count: u64, seconds: i64) -> Result<Vec<String>> {
        let mut urls = Vec::new();
        for number in 1..=i32::try_from(count).unwrap_or(i32::MAX) {
            let call = self.s3.upload_part().bucket(&self.name).key(key).upload_id(upload).part_number(number);
            let signed = call.presigned(lifetime(seconds)?).await.map_err(Error::aws("s3:PutObject", self.at(key)))?;
            urls.push(signed.uri().to_owned());
        }
        Ok(urls)
    }

    /// Begins an upload in parts. S3 computes a CRC-64 of the whole image by itself; a SHA-256 of an object in parts is
    /// one of its parts' hashes, which no other tool computes (aws-behaviour#multipart-hashes).
    pub(crate) async fn begin(&self, key: &str) -> Result<String> {
        let call = self.s3.create_multipart_upload().bucket(&self.name).key(key);
        let call = call.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
        let reply = call.send().await.map_err(Error::aws("s3:PutObject", self.at(key)))?;
        reply.upload_id.ok_or_else(|| Error::Misconfigured(format!("{key}: S3 gave no upload id")))
    }

    /// Stores a text of the function's own, and enters it into the case's ledger.
    pub(crate) async fn store(&self, journal: &impl Journal, target: &Target, key: String, text: String) -> Result<()> {
        let entry = self.store.put_bytes(target, key, "text/plain", text.into_bytes()).await?;
        evidence::enter(journal, target, &entry).await
    }

    /// Makes an object of the parts that are there, without a gap from the first on; without any, ends the upload.
    /// Either way its URLs are dead.
    pub(crate) async fn finish(&self, key: &str, upload: &str) -> Result<()> {
        let pages = self.s3.list_parts().bucket(&self.name).key(key).upload_id(upload).into_paginator().items().send();
        let parts: Vec<_> =
            match pages.try_collect().await.map_err(Error::aws("s3:ListMultipartUploadParts", self.at(key))) {
                Ok(parts) => parts,
                // An earlier call has finished it, and its answer was lost.
                Err(error) if error.code() == Some("NoSuchUpload") => return Ok(()),
                Err(error) => return Err(error),
            };
        let in_order = parts.iter().zip(1..).take_while(|(part, number)| part.part_number() == Some(*number));
        let completed: Vec<_> = in_order
            .map(|(part, number)| {
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(part.e_tag.clone())
                    .set_checksum_crc64_nvme(part.checksum_crc64_nvme.clone())
                    .build()
            })
            .collect();
        if completed.is_empty() {
            return self.abort(key, upload).await;
        }
        // S3 may take minutes to put thousands of parts together.
        let patient = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(120)).build();
        let all = CompletedMultipartUpload::builder().set_parts(Some(completed)).build();
        let call = self.s3.complete_multipart_upload().bucket(&self.name).key(key).upload_id(upload);
        let call = call.multipart_upload(all).checksum_type(ChecksumType::FullObject).if_none_match("*");
        let call = call.customize().config_override(aws_sdk_s3::config::Builder::new().timeout_config(patient));
        match call.send().await.map_err(Error::aws("s3:PutObject", self.at(key))) {
            Ok(_) => Ok(()),
            // A part of less than 5 MiB that is not the last: no host that runs our script uploads such.
            Err(error) if error.code() == Some("EntityTooSmall") => self.abort(key, upload).await,
            Err(error) => Err(error),
        }
    }

    async fn abort(&self, key: &str, upload: &str) -> Result<()> {
        let sent = self.s3.abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload).send().await;
        match sent.map_err(Error::aws("s3:AbortMultipartUpload", self.at(key))) {
            Err(error) if error.code() != Some("NoSuchUpload") => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether there is an object of this key. Asked by listing: a role that may not list is told "denied" of a missing
    /// object and of a forbidden one alike.
    async fn is_there(&self, key: &str) -> Result<bool> {
        let listed = self.s3.list_objects_v2().bucket(&self.name).prefix(key).send().await;
        let listed = listed.map_err(Error::aws("s3:ListBucket", self.at(key)))?;
        Ok(listed.contents().iter().any(|object| object.key() == Some(key)))
    }

    /// Looks at what is there under a key, computes its SHA-256, enters it into the case's ledger, and compares it with
    /// what the host says of it. Nothing that the host says is believed without a check
    /// (aws-behaviour#command-success).
    pub(crate) async fn arrival(
        &self,
        journal: &impl Journal,
        target: &Target,
        key: &str,
        stated: Option<&Stated>,
        limit: u64,
    ) -> Result<Arrival> {
        if !self.is_there(key).await? {
            return Ok(Arrival::Missing);
        }
        let reply = self.s3.get_object().bucket(&self.name).key(key).send().await;
        let reply = reply.map_err(Error::aws("s3:GetObject", self.at(key)))?;
        let size = u64::try_from(reply.content_length.unwrap_or_default()).unwrap_or_default();
        let (version_id, crc) = (reply.version_id.clone(), reply.checksum_crc64_nvme.clone());
        let sha256 = if size <= limit.min(HASHED_AT_MOST) { Some(self.hash(key, reply.body).await?) } else { None };
        let entry = Entry {
            pointer: Pointer { bucket: self.name.clone(), key: key.to_owned(), version_id },
            sha256: sha256.clone(),
            size,
            request_id: None,
            resource: target.instance_id.clone(),
            function: self.caller.function.clone(),
            caller: self.caller.arn().await,
            execution: target.execution.clone(),
        };
        evidence::enter(journal, target, &entry).await?;
        Ok(judged(key, size, sha256.as_deref(), crc.as_deref(), stated, limit))
    }

    async fn hash(&self, key: &str, mut body: aws_sdk_s3::primitives::ByteStream) -> Result<String> {
        let mut hash = Hash::default();
        while let Some(bytes) = body.next().await {
            let bytes =
                bytes.map_err(|error| Error::Conflict(format!("{}: the download broke off: {error}", self.at(key))))?;
            hash.update(&bytes);
        }
        Ok(hash.finish().0)
    }
}

fn lifetime(seconds: i64) -> Result<PresigningConfig> {
    let seconds = u64::try_from(seconds).unwrap_or_default().max(1);
    PresigningConfig::expires_in(Duration::from_secs(seconds))
        .map_err(|error| Error::Misconfigured(format!("a URL for {seconds} s can't be signed: {error}")))
}

/// Compares what is there with what the host says of it.
fn judged(
    key: &str,
    size: u64,
    sha256: Option<&str>,
    crc: Option<&str>,
    stated: Option<&Stated>,
    limit: u64,
) -> Arrival {
    let name = key.rsplit('/').next().unwrap_or(key);
    let (is, crc) = (sha256.unwrap_or("not computed"), crc.unwrap_or("none"));
    if size > limit {
        return Arrival::Doubtful(format!(
            "{name} has {size} bytes, more than the {limit} that it may have, and it was not read"
        ));
    }
    match (stated, sha256) {
        (None, _) => {
            Arrival::Doubtful(format!("{name} has {size} bytes, SHA-256 {is}; the host did not say what it sent"))
        }
        (Some(stated), _) if stated.size != size => Arrival::Doubtful(format!(
            "{name} has {size} bytes where the host says {}: it is truncated, or the host lies (SHA-256 {is})",
            stated.size
        )),
        (Some(stated), Some(is)) if stated.sha256 != is => Arrival::Doubtful(format!(
            "{name} has SHA-256 {is} where the host says {}: it was altered on its way, or the host lies",
            stated.sha256
        )),
        (Some(_), Some(is)) => Arrival::Good(format!("{name} has {size} bytes and SHA-256 {is}, as the host says")),
        (Some(stated), None) => Arrival::Good(format!(
            "{name} has {size} bytes, as the host says; it is too large for the function to hash: SHA-256 {} is the host's \
             own statement, CRC-64/NVME {crc} is S3's",
            stated.sha256
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::operation::abort_multipart_upload::AbortMultipartUploadOutput;
    use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput;
    use aws_sdk_s3::operation::list_parts::{ListPartsError, ListPartsOutput};
    use aws_sdk_s3::types::Part;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    fn stated(size: u64, sha256: &str) -> Stated {
        Stated { sha256: sha256.into(), size }
    }

    #[tokio::test]
    async fn a_url_is_for_one_key_signs_that_nothing_is_overwritten_and_carries_no_checksum_of_an_empty_body() {
        let url = Objects::signing().put_url("cases/1/capture/triage.tar.gz", 600).await.expect("signed");
        assert!(url.contains("/cases/1/capture/triage.tar.gz?"), "{url}");
        assert!(url.contains("X-Amz-SignedHeaders=host%3Bif-none-match&"), "{url}");
        assert!(url.contains("X-Amz-Expires=600"), "{url}");
        assert!(!url.to_lowercase().contains("checksum"), "{url}");
        // What the document's parameters let through (aws-behaviour#document-parameters).
        let harmless = |c: char| c.is_ascii_alphanumeric() || ".:/_~%?&=+-".contains(c);
        assert!(url.chars().all(harmless), "{url}");
    }

    #[tokio::test]
    async fn each_part_has_a_url_of_its_own() {
        let urls = Objects::signing().part_urls("k", "upload", 2, 60).await.expect("signed");
        assert!(urls[0].contains("partNumber=1") && urls[1].contains("partNumber=2"), "{urls:?}");
        assert!(
            urls.iter().all(|url| url.contains("uploadId=upload") && !url.to_lowercase().contains("checksum")),
            "{urls:?}"
        );
    }

    #[tokio::test]
    async fn the_parts_up_to_the_first_gap_become_the_object() {
        let part = |n: i32| Part::builder().part_number(n).e_tag(format!("e{n}")).build();
        let listed = mock!(Client::list_parts)
            .then_output(move || ListPartsOutput::builder().parts(part(1)).parts(part(2)).parts(part(4)).build());
        let completed = mock!(Client::complete_multipart_upload)
            .match_requests(|r| {
                let parts = r.multipart_upload().expect("parts").parts();
                parts.iter().map(|p| p.part_number()).collect::<Vec<_>>() == [Some(1), Some(2)]
            })
            .then_output(|| CompleteMultipartUploadOutput::builder().build());
        let s3 = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&listed, &completed]);
        Objects::faked(s3).finish("k", "u").await.expect("finished");
        assert_eq!(completed.num_calls(), 1);
    }

    #[tokio::test]
    async fn an_upload_without_a_part_is_ended_and_one_that_is_gone_already_is_no_failure() {
        let listed = mock!(Client::list_parts).then_output(|| ListPartsOutput::builder().build());
        let aborted =
            mock!(Client::abort_multipart_upload).then_output(|| AbortMultipartUploadOutput::builder().build());
        let s3 = mock_client!(aws_sdk_s3, RuleMode::MatchAny, [&listed, &aborted]);
        Objects::faked(s3).finish("k", "u").await.expect("ended");
        assert_eq!(aborted.num_calls(), 1);
        let gone = mock!(Client::list_parts).then_error(|| {
            ListPartsError::generic(aws_sdk_s3::error::ErrorMetadata::builder().code("NoSuchUpload").build())
        });
        Objects::faked(mock_client!(aws_sdk_s3, [&gone])).finish("k", "u").await.expect("nothing to do");
    }

    #[test]
    fn only_what_is_as_the_host_says_is_good() {
        let (one, other) = ("a".repeat(64), "b".repeat(64));
        let judge = |size, sha256, stated: Option<&Stated>| judged("x/triage.tar.gz", size, sha256, None, stated, 100);
        assert!(matches!(judge(7, Some(&one), Some(&stated(7, &one))), Arrival::Good(_)));
        for (size, sha256, stated, word) in [
            (7, Some(one.as_str()), Some(stated(7, &other)), "the host lies"),
            (6, Some(one.as_str()), Some(stated(7, &one)), "truncated"),
            (7, Some(one.as_str()), None, "did not say"),
            (101, None, Some(stated(101, &one)), "more than"),
        ] {
            let Arrival::Doubtful(text) = judge(size, sha256, stated.as_ref()) else { panic!("{word}") };
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn a_hash_that_only_the_host_has_computed_is_called_the_hosts() {
        let arrival = judged("memory.image", 7, None, Some("crc="), Some(&stated(7, &"c".repeat(64))), 100);
        let Arrival::Good(text) = arrival else { panic!("{arrival:?}") };
        assert!(text.contains("the host's own statement") && text.contains("CRC-64/NVME crc= is S3's"), "{text}");
    }
}
