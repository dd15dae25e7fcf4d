//! Whether a Region exists.

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Filter;
use containment::{Error, Result};
use futures::FutureExt;

use crate::refuse;

/// Refuses a Region that Cordon's own account does not have. Cordon's own Region is not checked: Cordon runs there.
///
/// Calls `ec2:DescribeRegions`.
pub async fn check_region_exists(home: &SdkConfig, region: &str) -> Result<()> {
    match home.region().is_some_and(|own| own.as_ref() == region) {
        true => Ok(()),
        // Boxed for the same reason as the rest of the function: see `handle`.
        false => exists(&Client::new(home), region).boxed().await,
    }
}

/// Asks EC2 whether Cordon's own account has the Region.
async fn exists(ec2: &Client, region: &str) -> Result<()> {
    let named = Filter::builder().name("region-name").values(region).build();
    let reply = ec2.describe_regions().all_regions(true).filters(named).send().await;
    let reply = reply.map_err(Error::aws("ec2:DescribeRegions", region))?;
    match reply.regions().iter().find(|r| r.region_name() == Some(region)) {
        None => refuse("Region", &region.into(), "a Region that EC2 has, such as \"ap-northeast-1\""),
        Some(found) if found.opt_in_status() == Some("not-opted-in") => {
            refuse("Region", &region.into(), "a Region that is enabled in Cordon's account; this one is not")
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_regions::DescribeRegionsOutput;
    use aws_sdk_ec2::types::Region;
    use aws_smithy_mocks::{mock, mock_client};

    #[tokio::test]
    async fn an_unknown_region_or_one_that_is_not_enabled_is_refused() {
        let rule = mock!(Client::describe_regions)
            .match_requests(|r| r.all_regions() == Some(true))
            .then_compute_output(|r| {
                let status = |name: &str| if name == "me-south-1" { "not-opted-in" } else { "opt-in-not-required" };
                let known = r.filters()[0].values().iter().filter(|name| *name != "xx-nowhere-9");
                let regions = known.map(|name| Region::builder().region_name(name).opt_in_status(status(name)).build());
                DescribeRegionsOutput::builder().set_regions(Some(regions.collect())).build()
            });
        let ec2 = mock_client!(aws_sdk_ec2, aws_smithy_mocks::RuleMode::MatchAny, [&rule]);
        assert!(exists(&ec2, "eu-west-1").await.is_ok());
        assert!(exists(&ec2, "xx-nowhere-9").await.expect_err("unknown").to_string().contains("a Region that EC2 has"));
        assert!(exists(&ec2, "me-south-1").await.expect_err("off").to_string().contains("enabled in Cordon's account"));
    }
}
