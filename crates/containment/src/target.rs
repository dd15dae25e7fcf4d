//! The event of every step: the instance to contain, and the options.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// Whether an Auto Scaling group replaces the instance that is detached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AutoScaling {
    /// The group launches a replacement: its capacity stays the same, and so does the vulnerability
    /// (aws-behaviour#replacement).
    #[default]
    Replace,
    /// The group's desired capacity goes down by one.
    Decrement,
}

/// The capture of the running host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Capture {
    /// Before or after the network is cut.
    #[serde(default)]
    pub mode: CaptureMode,
    /// Whether to take an image of the whole memory too.
    #[serde(default)]
    pub memory: bool,
}

/// Which comes first, the capture or the isolation (aws-behaviour#volatile-evidence).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureMode {
    /// Isolation first; Systems Manager's and S3's endpoints stay open until the capture has ended or timed out.
    #[default]
    IsolateFirst,
    /// The capture first, for a limited time; then isolation, even if the capture failed.
    CaptureFirst,
}

/// One instance of one case. `intake` makes it; every step takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Target {
    /// The account of the instance, 12 digits.
    pub account_id: String,
    /// The Region of the instance.
    pub region: String,
    /// The instance.
    pub instance_id: String,
    /// The case: names the journal, the evidence and the tags. Stays the same when containment is run again.
    pub case_id: String,
    /// The execution's ARN, for the case's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
    /// The steps to release, by name: a step on the list goes back to its journal's values; any other answers
    /// `NotApplicable`. Absent in a containment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Vec<String>>,
    /// Print what would change, and change nothing at all.
    #[serde(default)]
    pub dry_run: bool,
    /// A ticket, for the tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_ticket: Option<String>,
    /// Who is in charge, for the tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether the Auto Scaling group replaces the instance.
    #[serde(default)]
    pub auto_scaling: AutoScaling,
    /// Also deny every session of the role that was issued before now: this hits every other holder
    /// (aws-behaviour#revoked-sessions).
    #[serde(default)]
    pub revoke_all_sessions: bool,
    /// The capture of the running host; absent if none is requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// List the hash of every block of the snapshots, which downloads all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hash_snapshots: bool,
    /// Whether the isolation leaves tcp/443 to the VPC's endpoints open for a capture. `describe-instance` sets this
    /// if a capture was requested and the host can be reached; the workflow resets it when the capture is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capture_window: bool,
    /// Why a person must approve before anything disturbs the workload; absent if no approval is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// The instance profile that the case found first. Credentials outlive the association
    /// (aws-behaviour#issued-credentials), so their revocation must not depend on it. Empty at a release if the
    /// instance had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_profile_arn: Option<String>,
}

impl Target {
    /// A target for tests, in `eu-west-1`.
    #[cfg(any(test, feature = "test-util"))]
    pub fn example() -> Target {
        let event = serde_json::json!({
            "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123456789abcdef0", "CaseId": "c-1"
        });
        Target::parse(event).expect("a good event")
    }

    /// Reads a step's event; the error names the field.
    pub fn parse(event: Value) -> Result<Target> {
        let target: Target = serde_json::from_value(event)
            .map_err(|error| Error::InvalidInput(format!("invalid step event: {error}")))?;
        check_instance_id("InstanceId", &target.instance_id)?;
        check_region("Region", &target.region)?;
        check_account("AccountId", &target.account_id)?;
        Ok(target)
    }

    /// Names the instance across accounts and Regions: `123456789012/eu-west-1/i-0abc…`.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.account_id, self.region, self.instance_id)
    }

    /// The prefix of the case's evidence in the bucket.
    pub fn evidence_prefix(&self) -> String {
        format!("cases/{}/{}/{}", self.account_id, self.region, self.case_id)
    }

    /// The tags that mark a resource as part of the incident. For people to search; never authority
    /// (aws-behaviour#tags).
    pub fn incident_tags(&self) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([
            ("CordonCase".to_owned(), self.case_id.clone()),
            ("Evidence".to_owned(), "Yes".to_owned()),
            ("SecurityIncidentStatus".to_owned(), "Investigation".to_owned()),
        ]);
        tags.extend(self.incident_ticket.clone().map(|ticket| ("IncidentTicket".to_owned(), ticket)));
        tags.extend(self.owner.clone().map(|owner| ("Owner".to_owned(), owner)));
        tags
    }

    /// The ARN's partition, for the Region.
    pub fn partition(&self) -> &'static str {
        match &self.region {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

/// Accepts `i-` and 8 or 17 lower-case hexadecimal digits, as EC2 does.
pub fn check_instance_id(field: &str, id: &str) -> Result<()> {
    let digits = id.strip_prefix("i-").unwrap_or_default();
    let hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex && matches!(digits.len(), 8 | 17) {
        return Ok(());
    }
    Err(Error::InvalidInput(format!(
        "{field}: {id:?} is not an instance id; accepted: \"i-\" followed by 8 or 17 hexadecimal digits"
    )))
}

/// Accepts 12 digits.
pub fn check_account(field: &str, account: &str) -> Result<()> {
    if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(Error::InvalidInput(format!("{field}: {account:?} is not an account; accepted: 12 digits")))
}

/// Accepts a text that looks like a Region's name; only AWS can say whether it exists.
pub fn check_region(field: &str, region: &str) -> Result<()> {
    let parts: Vec<&str> = region.split('-').collect();
    let words = parts.len() >= 3
        && parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    if words && region.len() <= 32 && parts.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Ok(());
    }
    Err(Error::InvalidInput(format!(
        "{field}: {region:?} is not a Region's name; accepted: one such as \"ap-northeast-1\""
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_of_both_lengths_are_accepted_and_nothing_else() {
        for good in ["i-0123abcd", "i-0123456789abcdef0"] {
            assert!(check_instance_id("InstanceId", good).is_ok(), "{good}");
        }
        for bad in
            ["", "i-", "banana", "i-0123ABCD", "i-0123456789abcdef01", "I-0123abcd", "i-0123abcg", "i-０１２３ａｂｃｄ"]
        {
            assert!(check_instance_id("InstanceId", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn region_names_of_every_partition_are_accepted_and_junk_is_not() {
        for good in ["ap-northeast-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "mx-central-1"] {
            assert!(check_region("Region", good).is_ok(), "{good}");
        }
        for bad in ["", "tokyo", "us-east", "us-east-1a", "US-EAST-1", "us-east-1/../x", "us--1"] {
            assert!(check_region("Region", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_ticket_and_the_owner_are_tagged_only_if_given() {
        let event = json!({"AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123abcd", "CaseId": "c", "IncidentTicket": "INC-7"});
        let tags = Target::parse(event).expect("a good event").incident_tags();
        assert_eq!(tags["SecurityIncidentStatus"], "Investigation");
        assert_eq!((tags.get("IncidentTicket").map(String::as_str), tags.get("Owner")), (Some("INC-7"), None));
    }

    #[test]
    fn an_unknown_or_missing_field_is_refused_by_name() {
        let unknown = json!({"AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123abcd", "CaseId": "c", "Dryrun": true});
        assert!(Target::parse(unknown).expect_err("refused").to_string().contains("Dryrun"));
        let missing = json!({"AccountId": "123456789012", "Region": "eu-west-1", "CaseId": "c"});
        assert!(Target::parse(missing).expect_err("refused").to_string().contains("InstanceId"));
    }
}
