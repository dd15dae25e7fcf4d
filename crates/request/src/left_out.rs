//! What an execution does nothing about.

use containment::{Status, Target};
use serde::Serialize;

/// An instance that the execution does nothing about, or a finding that names none, and why.
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
    /// `NotApplicable` where nothing had to be done; `Failed` where something should have been.
    pub status: Status,
    /// One sentence.
    pub reason: String,
    /// Whether there is nothing in it to tell anybody: a repetition, or below the minimum severity.
    #[serde(skip)]
    pub quiet: bool,
}

impl LeftOut {
    /// Leaves out something that names no usable instance.
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

    /// The same, with something to tell or without.
    pub fn quiet(self, quiet: bool) -> Self {
        LeftOut { quiet, ..self }
    }
}
