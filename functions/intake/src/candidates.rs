//! What is asked for, before anybody has looked whether it may be done.

use std::collections::BTreeSet;

use cases::Drift;
use containment::Target;
use request::LeftOut;
use serde::Serialize;

use crate::fleet::Batch;

/// What starts an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Source {
    /// A person, in the console or a terminal, who names the instances. That is its own approval.
    Hand,
    /// A person, with a button in Security Hub, who names findings.
    SecurityHubCustomAction,
    /// Nobody: a GuardDuty finding.
    GuardDuty,
    /// Nobody: a finding that Security Hub has imported.
    SecurityHub,
    /// Nobody: somebody other than Cordon has changed a contained instance, which is contained again. The decision is that
    /// of its case.
    Drift,
}

impl Source {
    /// Whether the decision to contain has been made, by the start itself or with the case.
    pub(crate) fn is_decided(self) -> bool {
        matches!(self, Source::Hand | Source::Drift)
    }

    /// Whether nobody is there: the response mode and the minimum severity are for such starts.
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
    /// What was done to the instance, in a start for that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// A finding in a few words. Its texts come from outside: they are data, never part of a command.
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
    /// Why a person is to be asked first, so far.
    pub(crate) ask: Vec<String>,
}

impl Candidate {
    /// The target, which says why a person is asked first, if one is. A dry run asks nobody.
    pub(crate) fn into_target(self) -> Target {
        let approval = (!self.target.dry_run && !self.ask.is_empty()).then(|| self.ask.join("; "));
        Target { approval, ..self.target }
    }
}

/// What an input asks for.
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
