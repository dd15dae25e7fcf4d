//! The signed request that goes along with a copy of an encrypted snapshot.
//!
//! The API reference of CopySnapshot wants one for every encrypted source: a signed request for the same copy to the
//! source's own Region. The other SDKs write it by themselves; the one for Rust does not (smithy-lang/smithy-rs issue 133).

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_ec2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use containment::{Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// EC2 asks the source's Region a moment after it has got the request.
const EXPIRES_IN: Duration = Duration::from_secs(3600);

/// Signature Version 4 leaves letters, digits and these as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The `PresignedUrl` of a copy of a snapshot from one Region into another, or into the same. Calls nothing of EC2's.
///
/// Signed with the credentials of the configuration that the copy itself is asked for with: whoever copies has to be
/// allowed to read the source.
///
/// Errors: `Misconfigured` where there is nothing to sign with.
pub async fn copy_url(aws: &SdkConfig, snapshot: &str, from: &str, to: &str) -> Result<String> {
    let provider = aws.credentials_provider().ok_or_else(|| unsigned("there are no credentials"))?;
    let credentials = provider.provide_credentials().await.map_err(unsigned)?;
    let params = Params::builder().region(from).build().map_err(unsigned)?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&params).await.map_err(unsigned)?;
    signed(endpoint.url(), credentials, SystemTime::now(), snapshot, from, to)
}

fn signed(
    endpoint: &str,
    credentials: Credentials,
    at: SystemTime,
    snapshot: &str,
    from: &str,
    to: &str,
) -> Result<String> {
    let wanted = [
        ("Action", "CopySnapshot"),
        ("Version", "2016-11-15"),
        ("SourceRegion", from),
        ("SourceSnapshotId", snapshot),
        ("DestinationRegion", to),
    ];
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

fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.into_iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED)));
    pairs.collect::<Vec<_>>().join("&")
}

fn unsigned(why: impl std::fmt::Display) -> Error {
    Error::Misconfigured(format!("the copy of an encrypted snapshot can't be signed for: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T03:00:07Z.
    const AT: Duration = Duration::from_secs(1_795_230_007);

    #[test]
    fn the_url_is_the_one_that_botocore_signs_with_the_same_credentials_at_the_same_second() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("to/ken+==".to_owned()), None, "test");
        let at = SystemTime::UNIX_EPOCH + AT;
        let ec2 = "https://ec2.eu-west-1.amazonaws.com";
        let url = signed(ec2, credentials, at, "snap-0123456789abcdef0", "eu-west-1", "eu-central-1").expect("signed");
        let (asked, signature) = url.split_once("&X-Amz-").expect("a signature");
        assert_eq!(
            asked,
            "https://ec2.eu-west-1.amazonaws.com/?Action=CopySnapshot&Version=2016-11-15&SourceRegion=eu-west-1\
             &SourceSnapshotId=snap-0123456789abcdef0&DestinationRegion=eu-central-1"
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
                "Signature=68037205c58d10844d897d73591c941927b2f199577a8f83bd676ba38c6b67a4",
                "SignedHeaders=host",
            ]
        );
    }

    #[tokio::test]
    async fn the_request_is_addressed_to_the_sources_region_in_its_partition() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let provider = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
        let aws = SdkConfig::builder().credentials_provider(provider).build();
        let url = copy_url(&aws, "snap-1", "cn-north-1", "cn-northwest-1").await.expect("signed");
        assert!(url.starts_with("https://ec2.cn-north-1.amazonaws.com.cn/?Action=CopySnapshot&"), "{url}");
        let unsigned = copy_url(&SdkConfig::builder().build(), "snap-1", "eu-west-1", "eu-west-1").await;
        assert_eq!(unsigned.expect_err("no credentials").name(), "Misconfigured");
    }
}
