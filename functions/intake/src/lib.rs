//! Makes the execution's input into a plan, whatever started it: a target for each instance to respond to, whether a
//! person is asked first, and what is left out and why. Bad input of a person is refused before anything is touched.
//!
//! Reads and writes the case table, so that there is one containment of an instance at a time. Changes nothing else.

mod alert;
pub mod by_hand;
mod drift;
mod fleet;
mod request;
mod respond;

use std::collections::BTreeSet;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Filter;
use containment::{AutoScaling, CaptureMode, Error, Result, Target};
use futures::FutureExt;
use runtime::Aws;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use fleet::{Batch, Fleet};
pub use request::{LeftOut, Source, Trigger, TriggerFinding};
use request::{Request, Wanted};
use respond::Desk;
pub use respond::{Holder, holder};

/// What the state machine hands over: the execution's input as it came, and the execution.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Event {
    /// The execution's input: what a responder typed, or an event of EventBridge as it came.
    pub input: Value,
    /// Which execution it is.
    pub execution: Execution,
}

/// The execution's own data, from the Step Functions context object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Execution {
    /// The execution's ARN, which has Cordon's account and Region.
    pub id: String,
    /// When it was started: `2026-11-21T03:00:00.000Z`.
    pub start_time: String,
}

/// What intake makes of it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Plan {
    /// Whether the execution is to change nothing.
    pub dry_run: bool,
    /// Whether that is because the finding is a sample, whose instance need not exist.
    pub sample: bool,
    /// Whether there is nothing to tell anybody.
    pub quiet: bool,
    /// Why the execution was started.
    pub trigger: Trigger,
    /// One target for each distinct instance, in the order of the input.
    pub targets: Vec<Target>,
    /// What nothing is done about.
    pub left_out: Vec<LeftOut>,
    /// The instances in batches, where there are too many for one execution; `targets` is then empty.
    pub fleet: Option<Fleet>,
    /// Which fleet's batch this is, if it is one.
    pub batch: Option<Batch>,
}

/// What becomes of an instance when nobody started the containment by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ResponseMode {
    /// It is contained.
    Contain,
    /// What disturbs nobody is done, and a person is asked about the rest.
    RequestApproval,
    /// Somebody is told.
    NotifyOnly,
}

/// The template's parameters for starts that nobody typed, and the accounts that Cordon may act in.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `RESPONSE_MODE`.
    pub response_mode: ResponseMode,
    /// `MINIMUM_SEVERITY`, on GuardDuty's scale.
    pub minimum_severity: f64,
    /// `INSTANCES_PER_EXECUTION`: more than these at once are not contained without a person.
    pub instances_per_execution: usize,
    /// `INSTANCES_PER_HOUR`: more than these in a clock hour are not contained without a person.
    pub instances_per_hour: usize,
    /// The accounts beside Cordon's own.
    pub member_accounts: MemberAccounts,
    /// `CAPTURE_ON_FINDING`: whether the host of a finding is captured, and before or after it is isolated.
    pub capture_on_finding: Option<CaptureMode>,
    /// `FLEET_ABOVE`: more than these are contained in batches. All instances of one execution share states of 256 KiB
    /// and a history of 25,000 events (traps H3, H4), and 40 of them wait at a time in its second Map.
    pub fleet_above: usize,
    /// `INSTANCES_PER_BATCH`.
    pub instances_per_batch: usize,
}

/// The accounts beside Cordon's own that it may act in: `MEMBER_ACCOUNTS`, separated by commas.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemberAccounts(BTreeSet<String>);

impl MemberAccounts {
    /// Those that the function's environment names.
    pub fn from(aws: &Aws) -> Self {
        let named = aws.setting("MEMBER_ACCOUNTS").unwrap_or_default();
        let accounts = named.split(',').map(|account| account.trim().to_owned());
        accounts.filter(|account| !account.is_empty()).collect()
    }

    fn allow(&self, account: &str, own: &str) -> bool {
        account == own || self.0.contains(account)
    }

    fn accepted(&self, own: &str) -> String {
        let members: Vec<&str> = self.0.iter().map(String::as_str).take(20).collect();
        match members.is_empty() {
            true => format!("{own}, Cordon's own account (the parameter MemberAccounts names no other)"),
            false => format!("{own}, Cordon's own account, and those of MemberAccounts: {}", members.join(", ")),
        }
    }
}

impl FromIterator<String> for MemberAccounts {
    fn from_iter<I: IntoIterator<Item = String>>(accounts: I) -> Self {
        MemberAccounts(accounts.into_iter().collect())
    }
}

impl Settings {
    fn from(aws: &Aws) -> Result<Self> {
        Ok(Settings {
            response_mode: parsed("RESPONSE_MODE", &Value::from(aws.required("RESPONSE_MODE")?).to_string())?,
            minimum_severity: parsed("MINIMUM_SEVERITY", &aws.required("MINIMUM_SEVERITY")?)?,
            instances_per_execution: parsed("INSTANCES_PER_EXECUTION", &aws.required("INSTANCES_PER_EXECUTION")?)?,
            instances_per_hour: parsed("INSTANCES_PER_HOUR", &aws.required("INSTANCES_PER_HOUR")?)?,
            member_accounts: MemberAccounts::from(aws),
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

impl Execution {
    /// Cordon's own account. Empty where [`check`](Execution::check) was not asked.
    pub fn account(&self) -> &str {
        self.id.split(':').nth(4).unwrap_or_default()
    }

    /// The clock hour of the start: `2026-11-21T03`.
    fn hour(&self) -> &str {
        self.start_time.get(..13).unwrap_or_default()
    }

    fn stamp(&self) -> String {
        let digits: String = self.start_time.chars().filter(char::is_ascii_digit).take(14).collect();
        match digits.split_at_checked(8) {
            Some((day, time)) if time.len() == 6 => format!("{day}T{time}Z"),
            _ => String::new(),
        }
    }

    /// The start to the millisecond and what of the execution's name needs no quoting: 70 characters at most, so that a
    /// batch's number fits behind them in the 80 of an execution's name.
    fn fleet_id(&self) -> String {
        let digits: String = self.start_time.chars().filter(char::is_ascii_digit).take(17).collect();
        let (day, time) = digits.split_at_checked(8).unwrap_or_default();
        let name = self.id.splitn(8, ':').nth(7).unwrap_or_default();
        let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(50).collect();
        format!("{day}T{time}Z-{plain}")
    }

    /// Refuses what is no execution. Calls nothing.
    pub fn check(&self) -> Result<()> {
        if self.account().len() != 12 {
            return Err(Error::InvalidInput(format!("Execution.Id: {:?} is not an execution's ARN", self.id)));
        }
        if self.stamp().is_empty() || self.hour().is_empty() {
            return Err(Error::InvalidInput(format!(
                "Execution.StartTime: {:?} is not a time such as 2026-11-21T03:00:00.000Z",
                self.start_time
            )));
        }
        Ok(())
    }

    /// A target with a new case and nothing special about it.
    pub fn target(&self, account_id: &str, region: &str, instance_id: &str) -> Target {
        Target {
            account_id: account_id.to_owned(),
            region: region.to_owned(),
            instance_id: instance_id.to_owned(),
            case_id: format!("{instance_id}-{}", self.stamp()),
            execution: Some(self.id.clone()),
            release: None,
            dry_run: false,
            incident_ticket: None,
            owner: None,
            auto_scaling: AutoScaling::default(),
            revoke_all_sessions: false,
            capture: None,
            hash_snapshots: false,
            capture_window: false,
            approval: None,
            instance_profile_arn: None,
        }
    }
}

/// What is asked for. Pure; whether the Regions exist, and who is at it already, is for AWS to say.
fn request(event: Event, settings: &Settings) -> Result<(Request, Execution)> {
    let Event { input, execution } = event;
    execution.check()?;
    let request = match finding::is_event(&input) {
        true => alert::read(&input, &execution, settings)?,
        false if drift::is_drift(&input) => drift::read(&input, &execution, settings)?,
        false => by_hand::read(&input, &execution, settings)?,
    };
    Ok((request, execution))
}

/// The function: the input and the execution in, the plan out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Plan> {
    let event: Event = serde_json::from_value(event)
        .map_err(|error| Error::InvalidInput(format!("the event of intake is not {{Input, Execution}}: {error}")))?;
    let settings = Settings::from(aws)?;
    let (mut request, execution) = request(event, &settings)?;
    let desk = Desk { cases: aws.case_table()?, sfn: aws_sdk_sfn::Client::new(aws.home()) };
    // Boxed here and below, because the whole future's type is too deep for the compiler's default limit.
    if request.trigger.source == Source::Drift {
        request = drift::with_options(&desk.cases, request).boxed().await?;
    }
    match &request.batch {
        // Its fleet has asked about the Region.
        Some(batch) => fleet::check(&desk.sfn, batch).boxed().await?,
        None => check_regions(aws.home(), &mut request).await?,
    }
    match request.is_fleet {
        true => Ok(fleet::plan(request, &execution, &settings)),
        false => desk.respond(request, &execution, &settings).boxed().await,
    }
}

/// Refuses a person's Region that does not exist; of an event, leaves out the instances that are said to be in one.
async fn check_regions(home: &SdkConfig, request: &mut Request) -> Result<()> {
    let regions: BTreeSet<String> = request.wanted.iter().map(|w| w.target.region.clone()).collect();
    for region in regions {
        match check_region_exists(home, &region).await {
            Err(Error::InvalidInput(reason)) if request.trigger.source != Source::Hand => {
                let (gone, rest): (Vec<Wanted>, Vec<Wanted>) =
                    request.wanted.drain(..).partition(|w| w.target.region == region);
                request.wanted = rest;
                let left_out =
                    gone.iter().map(|w| LeftOut::instance(&w.target, alert::missed(w.target.dry_run), reason.clone()));
                request.left_out.extend(left_out);
            }
            other => other?,
        }
    }
    Ok(())
}

/// Refuses a Region that Cordon's own account has not. Its own Region needs no question: Cordon runs there.
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

/// Refuses a value in one sentence, and does not throw all of a huge one back.
pub fn refuse<T>(field: &str, value: &Value, accepted: &str) -> Result<T> {
    let mut shown = value.to_string();
    if shown.chars().count() > 120 {
        shown = shown.chars().take(120).chain("…".chars()).collect();
    }
    Err(Error::InvalidInput(format!("{field}: {shown} is not accepted; accepted: {accepted}")))
}

#[cfg(test)]
mod tests;
