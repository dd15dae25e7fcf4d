//! The evidence bucket: each piece of evidence is written once, and nobody rewrites it afterwards.

mod recorder;

use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::RequestId;
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use containment::{Error, First, Journal, Key, Result, Target};
use runtime::{Aws, Caller};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use recorder::Recorder;
pub use verdict::Pointer;

/// A piece of evidence in the case's ledger: its place, its hash, and its origin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// Its place in the bucket.
    #[serde(flatten)]
    pub pointer: Pointer,
    /// SHA-256 of its bytes, 64 hexadecimal digits; absent if nobody could compute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How many bytes it has.
    pub size: u64,
    /// The id of the request that stored it, from S3; absent if a host uploaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Its subject: an instance's id.
    pub resource: String,
    /// The function that stored it, or requested it.
    pub function: String,
    /// The function's identity in AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The execution's ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
}

/// Writes evidence. Needs `s3:PutObject` and nothing else: it can neither read nor delete.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: Client,
    name: String,
    caller: Caller,
}

impl Bucket {
    /// The bucket that the template names, in Cordon's own Region and account.
    pub fn of(aws: &Aws) -> Result<Self> {
        let name = aws.required("EVIDENCE_BUCKET")?;
        Ok(Bucket::new(Client::new(aws.home()), name, aws.caller().clone()))
    }

    /// A bucket by its name.
    pub fn new(client: Client, name: impl Into<String>, caller: Caller) -> Self {
        Bucket { client, name: name.into(), caller }
    }

    /// Puts JSON under `cases/ACCOUNT/REGION/CASE/NAME-TIME.json`.
    ///
    /// Sends the SHA-256 too: Object Lock requires a checksum, and S3 verifies it before it answers
    /// (aws-behaviour#object-lock-uploads).
    pub async fn put(&self, target: &Target, name: &str, evidence: &Value) -> Result<Entry> {
        let key = format!("{}/{name}-{}.json", target.evidence_prefix(), now());
        self.put_bytes(target, key, "application/json", evidence.to_string().into_bytes()).await
    }

    /// Puts bytes under a key.
    pub async fn put_bytes(&self, target: &Target, key: String, content_type: &str, bytes: Vec<u8>) -> Result<Entry> {
        let (hash, size) = (custody::digest(&bytes), bytes.len());
        let (sent, caller) = futures::join!(self.send(&key, content_type, bytes), self.caller.arn());
        let (version_id, request_id) = sent?;
        Ok(Entry {
            request_id,
            pointer: Pointer { bucket: self.name.clone(), key, version_id },
            sha256: Some(custody::hex(&hash)),
            size: size as u64,
            resource: target.instance_id.clone(),
            function: self.caller.function.clone(),
            caller,
            execution: target.execution.clone(),
        })
    }

    /// Puts bytes that belong to no case under a key, such as the list of a fleet.
    pub async fn write(&self, key: String, content_type: &str, bytes: Vec<u8>) -> Result<Pointer> {
        let (version_id, _) = self.send(&key, content_type, bytes).await?;
        Ok(Pointer { bucket: self.name.clone(), key, version_id })
    }

    /// Answers with the object's version and the request's id.
    async fn send(&self, key: &str, content_type: &str, bytes: Vec<u8>) -> Result<(Option<String>, Option<String>)> {
        let call = self.client.put_object().bucket(&self.name).key(key).content_type(content_type);
        let call = call.checksum_sha256(BASE64_STANDARD.encode(custody::digest(&bytes))).body(ByteStream::from(bytes));
        // Containment waits for this put: a bucket that does not answer must not hold it up for long.
        let soon = TimeoutConfig::builder().operation_timeout(Duration::from_secs(10)).build();
        let call = call.customize().config_override(aws_sdk_s3::config::Builder::new().timeout_config(soon));
        let reply = call.send().await.map_err(Error::aws("s3:PutObject", format!("{}/{key}", self.name)))?;
        let request_id = reply.request_id().map(ToOwned::to_owned);
        Ok((reply.version_id, request_id))
    }
}

/// The fleet's folder in the bucket: its list, the results of each batch, and those of all instances.
pub fn fleet_prefix(id: &str) -> String {
    format!("fleets/{id}")
}

/// The journal's record for the case's ledger: the evidence that must be in the bucket, kept where nobody who can
/// delete from the bucket can write.
const LEDGER: &str = "evidence";

/// Enters a piece of evidence into the case's ledger, write-once.
pub async fn enter(journal: &impl Journal, target: &Target, entry: &Entry) -> Result<()> {
    let version = entry.pointer.version_id.as_deref().unwrap_or("null");
    let value = serde_json::to_value(entry)
        .map_err(|error| Error::Misconfigured(format!("a ledger's entry can't be written as JSON: {error}")))?;
    let found: First = [(Key::new(&entry.pointer.key, version), value)].into();
    journal.keep(target, LEDGER, &found.into()).await.map(|_| ())
}

/// The case's ledger: the evidence that must be in the bucket.
pub async fn ledger(journal: &impl Journal, target: &Target) -> Result<Vec<Entry>> {
    let entries = journal.read(target, LEDGER).await?.first.into_values();
    entries
        .map(|entry| {
            serde_json::from_value(entry).map_err(|error| Error::Misconfigured(format!("the case's ledger: {error}")))
        })
        .collect()
}

/// The time in UTC, as ISO 8601 without separators, because those need quoting in a shell.
pub fn now() -> String {
    let now = DateTime::from(SystemTime::now()).fmt(DateTimeFormat::DateTime).unwrap_or_default();
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    format!("{}T{}Z", &digits[..8], &digits[8..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::operation::put_object::PutObjectOutput;
    use aws_smithy_mocks::{mock, mock_client};
    use serde_json::json;
    #[tokio::test]
    async fn evidence_is_put_below_the_case_and_its_version_is_returned() {
        let rule = mock!(Client::put_object)
            .match_requests(|r| {
                let key = r.key().expect("key");
                r.bucket() == Some("evidence")
                    && key.starts_with("cases/123456789012/eu-west-1/c-1/facts-20")
                    && r.checksum_sha256() == Some("RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=")
            })
            .then_output(|| PutObjectOutput::builder().version_id("v1").build());
        let client = mock_client!(aws_sdk_s3, [&rule]);
        let bucket = Bucket { client, name: "evidence".into(), caller: Caller::default() };
        let event =
            json!({ "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123abcd", "CaseId": "c-1" });
        let target = Target::parse(event).expect("a good event");
        let entry = bucket.put(&target, "facts", &json!({})).await.expect("put");
        assert_eq!((entry.pointer.version_id.as_deref(), entry.size), (Some("v1"), 2));
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(entry.sha256.as_deref(), Some(hash));
    }

    #[test]
    fn a_time_is_utc_to_the_millisecond_without_separators() {
        let now = now();
        assert!(now.starts_with("20") && now.ends_with('Z') && now.as_bytes()[8] == b'T', "{now}");
    }
}
