//! What the state machine passes: what became of each instance, verified or not.

use containment::{Outcome, Reported, Status};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use verdict::{InstanceReport, LeftOut, Workflow};

/// What the state machine passes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Event {
    /// Which workflow it was.
    #[serde(default)]
    pub(crate) workflow: Workflow,
    /// Whether it was a dry run.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Whether that is because the finding is a sample, whose instance need not exist.
    #[serde(default)]
    pub(crate) sample: bool,
    /// What intake left out, and why.
    #[serde(default)]
    pub(crate) left_out: Vec<LeftOut>,
    /// Whether the start notification was sent.
    #[serde(default)]
    pub(crate) told: Option<Reported>,
    /// What became of each instance.
    pub(crate) instances: Vec<Ended>,
    /// The execution's ARN.
    #[serde(default)]
    pub(crate) execution: String,
    /// Which batch of a fleet it is, if it is one.
    #[serde(default)]
    pub(crate) batch: Option<Batch>,
    /// How the fleet's batches ended, if it is a fleet.
    #[serde(default)]
    pub(crate) fleet: Option<Fleet>,
}

/// A batch of a fleet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Batch {
    /// The fleet's id.
    pub(crate) id: String,
    /// The batch's number, from 0.
    pub(crate) number: usize,
}

/// A fleet whose batches have ended, or that could not be started.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Fleet {
    /// Names its folder in the evidence bucket.
    pub(crate) id: String,
    /// The account of its instances.
    pub(crate) account_id: String,
    /// The Region of its instances.
    pub(crate) region: String,
    /// How many instances it has.
    pub(crate) instances: usize,
    /// What could not be prepared for all of them.
    #[serde(default)]
    pub(crate) problems: Vec<String>,
    /// How the execution of each batch ended.
    #[serde(default)]
    pub(crate) ends: Vec<BatchEnd>,
    /// Why it was not started, or stopped early.
    #[serde(default)]
    pub(crate) failure: Option<Reported>,
}

/// How the execution of a batch ended.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct BatchEnd {
    /// The batch's number.
    pub(crate) number: usize,
    /// The execution's status, such as `ABORTED`; absent where it could not be started.
    #[serde(default)]
    pub(crate) status: Option<String>,
    /// The error that the fleet's workflow caught.
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// The beginning of its cause.
    #[serde(default)]
    pub(crate) cause: Option<String>,
}

/// What became of one instance.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The verifier's report, and why its evidence could not be sealed.
    Verified(Box<InstanceReport>, Option<Reported>),
    /// What failed before there was one, with what was done until then.
    Unverified { instance: Box<InstanceReport>, failure: Option<Reported> },
}

impl<'de> Deserialize<'de> for Ended {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ended = Value::deserialize(deserializer)?;
        let failure = |value: Value| Reported::deserialize(value).ok();
        let take = |ended: &mut Value, name: &str| ended.get_mut(name).map(Value::take).unwrap_or_default();
        let unsealed = failure(take(&mut ended, "Unsealed"));
        if ended["Verdict"].is_string() {
            return Ok(Ended::Verified(Box::new(InstanceReport::read(ended)), unsealed));
        }
        let (target, facts, failed) =
            (take(&mut ended, "Target"), take(&mut ended, "Facts"), failure(take(&mut ended, "Failure")));
        let outcomes = match take(&mut ended, "Outcomes") {
            Value::Array(branches) => branches,
            _ => Vec::new(),
        };
        let outcomes = outcomes.into_iter().flat_map(|branch| match branch {
            Value::Array(outcomes) => outcomes,
            outcome => vec![outcome],
        });
        let text = |name: &str| target[name].as_str().unwrap_or_default().to_owned();
        let instance = InstanceReport {
            instance_id: text("InstanceId"),
            account_id: text("AccountId"),
            region: text("Region"),
            case_id: target["CaseId"].as_str().map(ToOwned::to_owned),
            steps: outcomes.filter_map(|outcome| Reported::deserialize(outcome).ok()).map(Outcome::from).collect(),
            facts,
            ..InstanceReport::default()
        };
        Ok(Ended::Unverified { instance: Box::new(instance), failure: failed })
    }
}

impl Ended {
    /// The instance's report. Nothing good is known of one that was not verified; but that a sample's instance does not
    /// exist is no failure, since the service made it up.
    pub(crate) fn report(self, workflow: Workflow, sample: bool) -> InstanceReport {
        match self {
            Ended::Verified(report, None) => *report,
            Ended::Verified(mut report, Some(unsealed)) => {
                let outcome = Outcome::from(unsealed);
                report.leave_open(outcome.open_line());
                report.steps.push(outcome);
                *report
            }
            Ended::Unverified { instance: mut report, failure } => {
                let made_up =
                    sample && matches!(&failure, Some(Reported::Failure { error, .. }) if error == "NotFound");
                report.steps.extend(failure.map(Outcome::from));
                for step in &mut report.steps {
                    if made_up && step.status == Status::Failed {
                        step.status = Status::NotApplicable;
                    }
                    step.residual_risk.truncate(1);
                    step.changes.truncate(2);
                }
                let failed = report.steps.iter().filter(|step| step.status == Status::Failed);
                report.open = failed.map(Outcome::open_line).collect();
                let verdict = if made_up { workflow.nothing() } else { workflow.worst() };
                report.verdict = verdict.into();
                *report
            }
        }
    }
}
