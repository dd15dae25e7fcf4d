//! A request for containment, before the guardrails and the case table are checked.

use std::collections::BTreeSet;

use cases::Drift;
use containment::Target;
use request::LeftOut;
use serde::Serialize;

use crate::fleet::Batch;

/// The origin of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Source {
    /// A person names the instances, in the console or a terminal. That is its own approval.
    Hand,
    /// A person chooses findings in Security Hub and uses the custom action.
    SecurityHubCustomAction,
    /// A GuardDuty finding, without a person.
    GuardDuty,
    /// A finding that Security Hub has imported, without a person.
    SecurityHub,
    /// Drift: somebody other than Cordon has changed a contained instance, and Cordon contains it again. The case's own
    /// decision holds.
    Drift,
}

impl Source {
    /// Whether the decision to contain has been made, by the start itself or with the case.
    pub(crate) fn is_decided(self) -> bool {
        matches!(self, Source::Hand | Source::Drift)
    }

    /// Whether the start is automatic: the response mode and the minimum severity apply to such starts.
    pub(crate) fn is_automatic(self) -> bool {
        matches!(self, Source::GuardDuty | Source::SecurityHub)
    }
}

/// Why the execution was started, for notifications.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Trigger {
    /// Who or what started it.
    pub source: Source,
    /// The findings of the event, at most 20 of them.
    pub findings: Vec<TriggerFinding>,
    /// The change to the instance, if drift started the execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// A finding in a few words. Its texts are untrusted: data, never part of a command.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TriggerFinding {
    /// The finding's ARN or id.
    pub id: String,
    /// Such as `Backdoor:EC2/C&CActivity.B!DNS`.
    pub finding_type: String,
    /// The finding's own headline.
    pub title: String,
    /// On GuardDuty's scale, 0 to 10.
    pub severity: Option<f64>,
    /// Whether it is a sample.
    pub sample: bool,
}

/// An instance to respond to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) target: Target,
    /// The findings that name it.
    pub(crate) findings: BTreeSet<String>,
    /// The reasons found so far to ask a person first.
    pub(crate) ask: Vec<String>,
}

impl Candidate {
    /// The target, which says why a person is asked first, if one is. A dry run asks nobody.
    pub(crate) fn into_target(self) -> Target {
        let approval = (!self.target.dry_run && !self.ask.is_empty()).then(|| self.ask.join("; "));
        Target { approval, ..self.target }
    }
}

/// The request that an input makes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) trigger: Trigger,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) left_out: Vec<LeftOut>,
    /// Whether there are too many for one execution.
    pub(crate) is_fleet: bool,
    /// Which fleet's batch this is, if it is one.
    pub(crate) batch: Option<Batch>,
}
