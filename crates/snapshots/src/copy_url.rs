//! The presigned request that a copy of an encrypted snapshot needs.
//!
//! The API reference of CopySnapshot wants one for every encrypted source: a signed request for the same copy to the
//! source's own Region. The other SDKs add it themselves; the one for Rust does not (smithy-lang/smithy-rs issue 133).
//! As in botocore and the SDK for Go, the whole request is signed, tags included: a policy that requires tags requires
//! them here.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_ec2::operation::copy_snapshot::builders::CopySnapshotInputBuilder;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use containment::{Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// EC2 sends it to the source's Region a moment after it has received the copy request.
const EXPIRES_IN: Duration = Duration::from_secs(3600);

/// Signature Version 4 leaves letters, digits and these as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The `PresignedUrl` of a copy, with its destination: another Region, or the source's own. Does not call EC2.
///
/// Signed with the credentials that request the copy itself: the caller must be allowed to read the source.
///
/// Errors: `Misconfigured` without credentials.
pub async fn copy_url(aws: &SdkConfig, copy: &CopySnapshotInputBuilder) -> Result<String> {
    let from = copy.get_source_region().as_deref().unwrap_or_default();
    let provider = aws.credentials_provider().ok_or_else(|| unsigned("there are no credentials"))?;
    let credentials = provider.provide_credentials().await.map_err(unsigned)?;
    let params = Params::builder().region(from).build().map_err(unsigned)?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).await.map_err(unsigned)?;
    signed(endpoint.url(), credentials, SystemTime::now(), from, copy)
}

fn signed(
    endpoint: &str,
    credentials: Credentials,
    at: SystemTime,
    from: &str,
    copy: &CopySnapshotInputBuilder,
) -> Result<String> {
    let wanted = parameters(copy);
    let wanted = wanted.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut url = format!("{}/?{}", endpoint.trim_end_matches('/'), query(wanted));
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRES_IN);
    let identity = credentials.into();
    let params = v4::SigningParams::builder().identity(&identity).region(from).name("ec2").time(at).settings(settings);
    let params = params.build().map_err(unsigned)?.into();
    let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(&[]));
    let (instructions, _) = sign(request.map_err(unsigned)?, &params).map_err(unsigned)?.into_parts();
    url.push('&');
    url.push_str(&query(instructions.params().iter().map(|(name, value)| (*name, value.as_ref()))));
    Ok(url)
}

/// The request's parameters, by their names in EC2's query protocol.
fn parameters(copy: &CopySnapshotInputBuilder) -> Vec<(String, String)> {
    let encrypted = copy.get_encrypted().map(|encrypted| encrypted.to_string());
    let plain = [
        ("Action", Some("CopySnapshot")),
        ("Version", Some("2016-11-15")),
        ("SourceRegion", copy.get_source_region().as_deref()),
        ("SourceSnapshotId", copy.get_source_snapshot_id().as_deref()),
        ("DestinationRegion", copy.get_destination_region().as_deref()),
        ("Description", copy.get_description().as_deref()),
        ("Encrypted", encrypted.as_deref()),
        ("KmsKeyId", copy.get_kms_key_id().as_deref()),
    ];
    let mut all: Vec<(String, String)> =
        plain.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    for (n, specification) in (1..).zip(copy.get_tag_specifications().iter().flatten()) {
        let kind = specification.resource_type().map_or("snapshot", |kind| kind.as_str());
        all.push((format!("TagSpecification.{n}.ResourceType"), kind.to_owned()));
        for (m, tag) in (1..).zip(specification.tags()) {
            all.push((format!("TagSpecification.{n}.Tag.{m}.Key"), tag.key().unwrap_or_default().to_owned()));
            all.push((format!("TagSpecification.{n}.Tag.{m}.Value"), tag.value().unwrap_or_default().to_owned()));
        }
    }
    all
}

fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.into_iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED)));
    pairs.collect::<Vec<_>>().join("&")
}

fn unsigned(why: impl std::fmt::Display) -> Error {
    Error::Misconfigured(format!("the request to copy an encrypted snapshot can't be signed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};

    /// 2026-11-21T03:00:07Z.
    const AT: Duration = Duration::from_secs(1_795_230_007);

    fn copy() -> CopySnapshotInputBuilder {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let tags = TagSpecification::builder().resource_type(ResourceType::Snapshot);
        let tags = tags.tags(tag("CordonCase", "c-1")).tags(tag("Owner", "日本 & <you>/+~"));
        CopySnapshotInputBuilder::default()
            .source_region("eu-west-1")
            .source_snapshot_id("snap-0123456789abcdef0")
            .destination_region("eu-central-1")
            .description("Cordon case c-1")
            .encrypted(true)
            .kms_key_id("arn:aws:kms:eu-central-1:888888888888:key/f")
            .tag_specifications(tags.build())
    }

    #[test]
    fn the_signature_equals_botocores_for_the_same_request() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("to/ken+==".to_owned()), None, "test");
        let at = SystemTime::UNIX_EPOCH + AT;
        let url = signed("https://ec2.eu-west-1.amazonaws.com", credentials, at, "eu-west-1", &copy()).expect("signed");
        let (asked, signature) = url.split_once("&X-Amz-").expect("a signature");
        assert_eq!(
            asked,
            "https://ec2.eu-west-1.amazonaws.com/?Action=CopySnapshot&Version=2016-11-15&SourceRegion=eu-west-1\
             &SourceSnapshotId=snap-0123456789abcdef0&DestinationRegion=eu-central-1&Description=Cordon%20case%20c-1\
             &Encrypted=true&KmsKeyId=arn%3Aaws%3Akms%3Aeu-central-1%3A888888888888%3Akey%2Ff\
             &TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key=CordonCase\
             &TagSpecification.1.Tag.1.Value=c-1&TagSpecification.1.Tag.2.Key=Owner\
             &TagSpecification.1.Tag.2.Value=%E6%97%A5%E6%9C%AC%20%26%20%3Cyou%3E%2F%2B~"
        );
        let mut signature: Vec<&str> = signature.split("&X-Amz-").collect();
        signature.sort_unstable();
        assert_eq!(
            signature,
            [
                "Algorithm=AWS4-HMAC-SHA256",
                "Credential=AKIDEXAMPLE%2F20261121%2Feu-west-1%2Fec2%2Faws4_request",
                "Date=20261121T030007Z",
                "Expires=3600",
                "Security-Token=to%2Fken%2B%3D%3D",
                "Signature=af6d2a748aadd5a254289c207c5359ddf6cad291d81c233d1021648d31d63546",
                "SignedHeaders=host",
            ]
        );
    }

    #[tokio::test]
    async fn the_request_is_addressed_to_the_sources_region_in_its_partition() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let aws = SdkConfig::builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build();
        let url = copy_url(&aws, &copy().source_region("cn-north-1")).await.expect("signed");
        assert!(url.starts_with("https://ec2.cn-north-1.amazonaws.com.cn/?Action=CopySnapshot&"), "{url}");
        let unsigned = copy_url(&SdkConfig::builder().build(), &copy()).await;
        assert_eq!(unsigned.expect_err("no credentials").name(), "Misconfigured");
    }
}
