//! The evidence bucket: what a case produces is put there once, and nobody rewrites it afterwards.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use containment::{Error, Result, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a piece of evidence lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pointer {
    /// The bucket.
    pub bucket: String,
    /// The key, below the case's prefix.
    pub key: String,
    /// The object's version: a later object of the same key does not replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}

/// Writes evidence. Needs `s3:PutObject` and nothing else: it can neither read nor delete.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    /// The bucket by this name, in Cordon's own Region.
    pub fn new(home: &SdkConfig, name: impl Into<String>) -> Self {
        Bucket { client: Client::new(home), name: name.into() }
    }

    /// Puts JSON under `cases/ACCOUNT/REGION/CASE/NAME-TIME.json`.
    ///
    /// The SDK sends a checksum, which Object Lock demands and S3 verifies before it answers (trap J8).
    pub async fn put(&self, target: &Target, name: &str, evidence: &Value) -> Result<Pointer> {
        let key = format!("{}/{name}-{}.json", target.evidence_prefix(), now());
        let body = ByteStream::from(evidence.to_string().into_bytes());
        let call = self.client.put_object().bucket(&self.name).key(&key).content_type("application/json").body(body);
        // Containment waits for this put: a bucket that does not answer must not hold it up for long.
        let soon = TimeoutConfig::builder().operation_timeout(Duration::from_secs(10)).build();
        let call = call.customize().config_override(aws_sdk_s3::config::Builder::new().timeout_config(soon));
        let reply = call.send().await.map_err(Error::aws("s3:PutObject", format!("{}/{key}", self.name)))?;
        Ok(Pointer { bucket: self.name.clone(), key, version_id: reply.version_id })
    }
}

/// The time in UTC, as ISO 8601 has it without separators, which need quoting in a shell.
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
                r.bucket() == Some("evidence") && key.starts_with("cases/123456789012/eu-west-1/c-1/facts-20")
            })
            .then_output(|| PutObjectOutput::builder().version_id("v1").build());
        let bucket = Bucket { client: mock_client!(aws_sdk_s3, [&rule]), name: "evidence".into() };
        let event =
            json!({ "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123abcd", "CaseId": "c-1" });
        let target = Target::parse(event).expect("a good event");
        let pointer = bucket.put(&target, "facts", &json!({})).await.expect("put");
        assert_eq!(pointer.version_id.as_deref(), Some("v1"));
    }

    #[test]
    fn a_time_is_utc_to_the_millisecond_without_separators() {
        let now = now();
        assert!(now.starts_with("20") && now.ends_with('Z') && now.as_bytes()[8] == b'T', "{now}");
    }
}
