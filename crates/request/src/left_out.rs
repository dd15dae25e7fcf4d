//! Instances and findings that an execution does not act on.

use containment::{Status, Target};
use serde::Serialize;

/// An instance that the execution does not act on, or a finding that names none, with the reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LeftOut {
    /// The instance, as the input names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Its account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Its Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `NotApplicable` if nothing had to be done; `Failed` if something should have been.
    pub status: Status,
    /// One sentence.
    pub reason: String,
    /// Whether it is not worth a notification: a repetition, or below the minimum severity.
    #[serde(skip)]
    pub quiet: bool,
}

impl LeftOut {
    /// Leaves out a finding without a usable instance.
    pub fn finding(status: Status, reason: impl Into<String>) -> Self {
        LeftOut { instance_id: None, account_id: None, region: None, status, reason: reason.into(), quiet: false }
    }

    /// Leaves out an instance.
    pub fn instance(target: &Target, status: Status, reason: impl Into<String>) -> Self {
        LeftOut {
            instance_id: Some(target.instance_id.clone()),
            account_id: Some(target.account_id.clone()),
            region: Some(target.region.clone()),
            ..LeftOut::finding(status, reason)
        }
    }

    /// The same, worth a notification or not.
    pub fn quiet(self, quiet: bool) -> Self {
        LeftOut { quiet, ..self }
    }
}
