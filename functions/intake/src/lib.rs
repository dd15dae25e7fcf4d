//! Turns the execution's input into a plan, whatever started it: a target for each instance to respond to, whether a
//! person is asked first, and what is left out and why. A person's bad input is refused before anything is touched.
//!
//! Reads and writes the case table, so that there is one containment of an instance at a time. Changes nothing else.

mod alert;
mod candidates;
mod drift;
mod fleet;
mod manual;
mod respond;

use std::collections::BTreeSet;

use aws_config::SdkConfig;
use containment::{CaptureMode, Error, Result, Target};
use futures::FutureExt;
use request::{Event, Execution, LeftOut, MemberAccounts, check_region_exists};
use runtime::Aws;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use candidates::{Candidate, Request};
pub use candidates::{Source, Trigger, TriggerFinding};
pub use fleet::{Batch, Fleet};
use respond::Intake;

/// The plan for an execution.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Plan {
    /// Whether the execution is to change nothing.
    pub dry_run: bool,
    /// Whether that is because the finding is a sample, whose instance need not exist.
    pub sample: bool,
    /// Whether nothing is worth a notification.
    pub quiet: bool,
    /// Why the execution was started.
    pub trigger: Trigger,
    /// One target for each distinct instance, in the order of the input.
    pub targets: Vec<Target>,
    /// The instances and findings that this execution does not act on.
    pub left_out: Vec<LeftOut>,
    /// The instances in batches, if there are too many for one execution; `targets` is then empty.
    pub fleet: Option<Fleet>,
    /// Which fleet's batch this is, if it is one.
    pub batch: Option<Batch>,
}

/// How Cordon responds to an instance when nobody started the containment by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ResponseMode {
    /// It is contained.
    Contain,
    /// Steps that do not disturb the workload run; a person is asked about the others.
    RequestApproval,
    /// People are notified.
    NotifyOnly,
}

/// The template's parameters for automatic starts, and the accounts that Cordon may act in.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `RESPONSE_MODE`.
    pub response_mode: ResponseMode,
    /// `MINIMUM_SEVERITY`, on GuardDuty's scale.
    pub minimum_severity: f64,
    /// `INSTANCES_PER_EXECUTION`: more instances at once need approval.
    pub instances_per_execution: usize,
    /// `INSTANCES_PER_HOUR`: further instances in a clock hour need approval.
    pub instances_per_hour: usize,
    /// The accounts other than Cordon's own.
    pub member_accounts: MemberAccounts,
    /// `CAPTURE_ON_FINDING`: whether the host of a finding is captured, and before or after it is isolated.
    pub capture_on_finding: Option<CaptureMode>,
    /// `FLEET_ABOVE`: more instances than this are contained in batches. All instances of one execution share states of
    /// 256 KiB and a history of 25,000 events (aws-behaviour#state-size, #execution-history), and 40 of them wait at a
    /// time in its second Map.
    pub fleet_above: usize,
    /// `INSTANCES_PER_BATCH`.
    pub instances_per_batch: usize,
}

impl Settings {
    fn from(aws: &Aws) -> Result<Self> {
        Ok(Settings {
            response_mode: parsed("RESPONSE_MODE", &Value::from(aws.required("RESPONSE_MODE")?).to_string())?,
            minimum_severity: parsed("MINIMUM_SEVERITY", &aws.required("MINIMUM_SEVERITY")?)?,
            instances_per_execution: parsed("INSTANCES_PER_EXECUTION", &aws.required("INSTANCES_PER_EXECUTION")?)?,
            instances_per_hour: parsed("INSTANCES_PER_HOUR", &aws.required("INSTANCES_PER_HOUR")?)?,
            member_accounts: MemberAccounts::named(&aws.setting("MEMBER_ACCOUNTS").unwrap_or_default()),
            capture_on_finding: match aws.required("CAPTURE_ON_FINDING")?.as_str() {
                "None" => None,
                mode => Some(parsed("CAPTURE_ON_FINDING", &Value::from(mode).to_string())?),
            },
            fleet_above: parsed("FLEET_ABOVE", &aws.required("FLEET_ABOVE")?)?,
            instances_per_batch: parsed("INSTANCES_PER_BATCH", &aws.required("INSTANCES_PER_BATCH")?)?,
        })
    }
}

fn parsed<T: serde::de::DeserializeOwned>(name: &str, json: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|error| Error::Misconfigured(format!("the function's environment has {name} {json}: {error}")))
}

/// Reads the input. Pure: only AWS can say whether the Regions exist and which execution holds each case.
fn request(event: Event, settings: &Settings) -> Result<(Request, Execution)> {
    let Event { input, execution } = event;
    execution.check()?;
    let request = match finding::is_event(&input) {
        true => alert::read(&input, &execution, settings)?,
        false if drift::is_drift(&input) => drift::read(&input, &execution, settings)?,
        false => manual::read(&input, &execution, settings)?,
    };
    Ok((request, execution))
}

/// The function: the input and the execution in, the plan out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Plan> {
    let event: Event = serde_json::from_value(event)
        .map_err(|error| Error::InvalidInput(format!("the event of intake is not {{Input, Execution}}: {error}")))?;
    let settings = Settings::from(aws)?;
    let (mut request, execution) = request(event, &settings)?;
    let intake = Intake { cases: aws.case_table()?, sfn: aws_sdk_sfn::Client::new(aws.home()) };
    // Boxed here and below, because the whole future's type is too deep for the compiler's default limit.
    if request.trigger.source == Source::Drift {
        request = drift::with_options(&intake.cases, request).boxed().await?;
    }
    match &request.batch {
        // The fleet's execution has checked the Region.
        Some(batch) => fleet::check(&intake.sfn, batch).boxed().await?,
        None => check_regions(aws.home(), &mut request).await?,
    }
    match request.is_fleet {
        true => Ok(fleet::plan(request, &execution, &settings)),
        false => intake.respond(request, &execution, &settings).boxed().await,
    }
}

/// Refuses a Region that does not exist if a person typed it; if an event names it, leaves out the instances in it.
async fn check_regions(home: &SdkConfig, request: &mut Request) -> Result<()> {
    let regions: BTreeSet<String> = request.candidates.iter().map(|w| w.target.region.clone()).collect();
    for region in regions {
        match check_region_exists(home, &region).await {
            Err(Error::InvalidInput(reason)) if request.trigger.source != Source::Hand => {
                let (gone, rest): (Vec<Candidate>, Vec<Candidate>) =
                    request.candidates.drain(..).partition(|w| w.target.region == region);
                request.candidates = rest;
                let left_out =
                    gone.iter().map(|w| LeftOut::instance(&w.target, alert::missed(w.target.dry_run), reason.clone()));
                request.left_out.extend(left_out);
            }
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
