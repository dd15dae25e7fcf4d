//! Keeps contained instances contained: when an API call may have undone a containment, contains the instance again,
//! adds the call to the case, and calls a person if repairs do not last.
//!
//! Reads and writes the case table and the evidence bucket, and starts executions. This function neither reads nor
//! changes the instance: the execution that it starts reads AWS, repairs the differences and reports them.

mod call;

use std::time::SystemTime;

use aws_sdk_sfn::primitives::{DateTime, DateTimeFormat};
use cases::{CaseTable, Drift, Monitored, now};
use containment::{Error, Result, Target};
use evidence::Bucket;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use lambda_runtime::tracing;
use notifications::{Publisher, Started, WorkflowMessage};
use request::Holder;
use runtime::Aws;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use call::{Call, Named, Own};

/// The name of the function and of its evidence.
pub const NAME: &str = "watch-drift";

/// Messages from the queue, each with an event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Batch {
    /// The messages.
    pub records: Vec<Record>,
}

/// A message.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its id in the queue.
    pub message_id: String,
    /// The event as EventBridge delivers it.
    pub body: String,
}

/// The function's answer.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The messages that stay in the queue and come again.
    pub batch_item_failures: Vec<Failure>,
}

/// A message that comes again.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Its id in the queue.
    pub item_identifier: String,
}

/// EC2 may show a change some seconds after the call: a verification that began earlier than this after it may have
/// missed it (aws-behaviour#eventual-consistency).
const SHOWS_WITHIN: i64 = 5;

/// The first calls of a case go into the bucket as well, further ones into the table only. The ledger is one item, and
/// an attacker's calls must not fill it.
const STORED_AT_MOST: usize = 40;

/// The most instances that one shared resource (such as a security group) leads to.
const INSTANCES_AT_MOST: usize = 20;

/// The function: takes a batch of events, and answers with those that must come again.
pub async fn handle(aws: &Aws, event: Value) -> Result<Answer> {
    let batch: Batch =
        serde_json::from_value(event).map_err(|error| Error::InvalidInput(format!("the event of {NAME}: {error}")))?;
    let limit = aws.required("REPAIRS_PER_HOUR")?;
    let detection = DriftDetection {
        cases: aws.case_table()?,
        bucket: Bucket::of(aws)?,
        sfn: aws_sdk_sfn::Client::new(aws.home()),
        machine: aws.required("STATE_MACHINE_ARN")?,
        own: Own {
            account: aws.required("RESPONDER_ACCOUNT")?,
            stack: aws.required("STACK_NAME")?,
            member_role: aws.required("MEMBER_ROLE")?,
            forensic_role: aws.setting("FORENSIC_ROLE"),
        },
        repairs_per_hour: limit
            .parse()
            .map_err(|_| Error::Misconfigured(format!("the function's environment has REPAIRS_PER_HOUR {limit:?}")))?,
        tell: Box::new(|message| tell(aws, message).boxed()),
    };
    Ok(detection.all(batch, now()).await)
}

/// Drift detection's clients and settings.
struct DriftDetection<'a> {
    cases: CaseTable,
    bucket: Bucket,
    sfn: aws_sdk_sfn::Client,
    /// The state machine that contains.
    machine: String,
    own: Own,
    repairs_per_hour: usize,
    tell: Box<dyn Fn(WorkflowMessage) -> BoxFuture<'a, Result<()>> + Send + Sync + 'a>,
}

/// The response to a call, for one instance.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Another containment was started, or had been by an earlier try.
    Repairing(String),
    /// A verification has read the instance since then: there is nothing to repair.
    Seen,
    /// An execution holds the case: the call comes again when that execution has ended.
    Waits(String),
    /// This hour's repairs are used up: a person was called, and the call comes again.
    PersonCalled,
}

impl Outcome {
    /// Whether the call must come again.
    fn comes_again(&self) -> bool {
        matches!(self, Outcome::Waits(_) | Outcome::PersonCalled)
    }
}

impl DriftDetection<'_> {
    async fn all(&self, batch: Batch, now: i64) -> Answer {
        let mut answer = Answer::default();
        // One after the other, so that each sees what the one before has started.
        for record in batch.records {
            // Boxed, because the whole future's type is too deep for the compiler's default limit.
            match self.one(&record.body, now).boxed_local().await {
                Ok(outcomes) if !outcomes.iter().any(Outcome::comes_again) => {}
                Ok(_) => answer.batch_item_failures.push(Failure { item_identifier: record.message_id }),
                Err(error) => {
                    tracing::error!(error_type = error.name(), "{error}");
                    answer.batch_item_failures.push(Failure { item_identifier: record.message_id });
                }
            }
        }
        answer
    }

    /// Responds to one event.
    async fn one(&self, body: &str, now: i64) -> Result<Vec<Outcome>> {
        let event: Value = serde_json::from_str(body)
            .map_err(|error| Error::InvalidInput(format!("the message is not an event: {error}")))?;
        let Some(call) = call::read(&event, &self.own) else { return Ok(Vec::new()) };
        let mut outcomes = Vec::new();
        for named in &call.named {
            let touched = self.touched(named, &call, now).await?;
            let drift = Drift { resource: named.id.clone(), ..call.drift.clone() };
            let mut recorded = Vec::new();
            for (key, monitored) in &touched {
                recorded.push(self.record(key, monitored, &drift, &call.event).boxed_local().await);
            }
            // Every instance that shares the resource, such as a group's rules: any of them may be at its limit, held,
            // or terminated by now. And several instances may have one address, each in its own VPC; which one was
            // meant is unknown here.
            for (key, monitored) in &touched {
                let outcome = self.respond(key, monitored, &call, &drift, now).boxed_local().await?;
                tracing::info!(
                    event = drift.event_id,
                    "{} on {}: {key}: {outcome:?}",
                    drift.event_name,
                    drift.resource
                );
                outcomes.push(outcome);
            }
            // A failure to record a call is tried again, and does not keep the instance from being repaired.
            recorded.into_iter().collect::<Result<Vec<()>>>()?;
        }
        Ok(outcomes)
    }

    /// The monitored instances that the call touches by this resource.
    async fn touched(&self, named: &Named, call: &Call, now: i64) -> Result<Vec<(String, Monitored)>> {
        let keys = match named.instance {
            true => vec![named.key.clone()],
            false => self.cases.instances_of(&named.key).await?,
        };
        let at = call.at.unwrap_or(now);
        let read = stream::iter(keys).map(|key| async { (self.cases.monitored(&key).await, key) }).buffered(10);
        let mut read = std::pin::pin!(read);
        let mut found = Vec::new();
        while let Some((monitored, key)) = read.next().await {
            // A call before the containment cannot have undone it.
            let later = |monitored: &Monitored| monitored.since <= at + SHOWS_WITHIN;
            found.extend(monitored?.filter(later).map(|monitored| (key, monitored)));
            if found.len() == INSTANCES_AT_MOST {
                break;
            }
        }
        Ok(found)
    }

    /// Adds the call to the case, once: to the table and, up to the limit, to the evidence.
    async fn record(&self, key: &str, monitored: &Monitored, drift: &Drift, event: &Value) -> Result<()> {
        if self.cases.has_drift(key, &monitored.case.id, &drift.event_id).await? {
            return Ok(());
        }
        if self
            .cases
            .count_drift(key, &format!("stored#{}", monitored.case.id), &drift.event_id, STORED_AT_MOST)
            .await?
        {
            let target = target(key, monitored)?;
            let entry = self.bucket.put(&target, NAME, &json!({ "Drift": drift, "Event": event })).await?;
            evidence::enter(&self.cases, &target, &entry).await?;
        }
        self.cases.add_drift(key, &monitored.case.id, drift).await
    }

    async fn respond(&self, key: &str, monitored: &Monitored, call: &Call, drift: &Drift, now: i64) -> Result<Outcome> {
        // A verification has seen it and found nothing open, or a whole containment has begun since.
        let shown_at = call.at.unwrap_or(now) + SHOWS_WITHIN;
        if monitored.verified_at >= shown_at && (monitored.is_contained() || monitored.case.held_since >= shown_at) {
            return Ok(Outcome::Seen);
        }
        let target = target(key, monitored)?;
        let name = format!("drift-{}-{}", target.instance_id, drift.event_id);
        let execution = format!("{}:{name}", self.machine.replacen(":stateMachine:", ":execution:", 1));
        // An earlier try may have claimed the repair and stopped there; the same name never starts two executions.
        let mine = monitored.repair.as_ref().is_some_and(|(claimed, _)| *claimed == execution);
        if !mine {
            let holders = [
                Some((&monitored.case.execution, monitored.case.held_since)),
                monitored.repair.as_ref().map(|(r, at)| (r, *at)),
            ];
            for (holder, since) in holders.into_iter().flatten() {
                if request::holder(&self.sfn, holder, since).await? == Holder::Running {
                    self.tell_to_wait(key, monitored, &target, drift, holder).await?;
                    return Ok(Outcome::Waits(holder.clone()));
                }
            }
            let hour = hour(now);
            let record = format!("repairs#{hour}");
            if !self.cases.count_drift(key, &record, &drift.event_id, self.repairs_per_hour).await? {
                self.call_a_person(key, monitored, &target, drift, &hour).await?;
                return Ok(Outcome::PersonCalled);
            }
            if !self.cases.claim_repair(key, monitored, &execution, now).await? {
                return Err(Error::Conflict(format!("another execution has just taken the case of {key}")));
            }
        }
        self.start(&name, &target, drift).await?;
        Ok(Outcome::Repairing(execution))
    }

    async fn start(&self, name: &str, target: &Target, drift: &Drift) -> Result<()> {
        let input = json!({
            "InstanceIds": [target.instance_id], "Region": target.region, "AccountId": target.account_id, "Drift": drift,
        });
        let call = self.sfn.start_execution().state_machine_arn(&self.machine).name(name).input(input.to_string());
        match call.send().await.map_err(Error::aws("states:StartExecution", &self.machine)) {
            Err(error) if error.code() == Some("ExecutionAlreadyExists") => Ok(()),
            sent => sent.map(|_| ()),
        }
    }

    /// Notifies people once for each execution that drift detection waits for, except a repair, which they know about.
    async fn tell_to_wait(
        &self,
        key: &str,
        monitored: &Monitored,
        target: &Target,
        drift: &Drift,
        holder: &str,
    ) -> Result<()> {
        let repair = holder.rsplit(':').next().is_some_and(|name| name.starts_with("drift-"));
        if repair || monitored.told_to_wait_for.as_deref() == Some(holder) {
            return Ok(());
        }
        (self.tell)(WorkflowMessage::DriftFound(change(holder, target, drift))).await?;
        self.cases.note_told_to_wait(key, monitored, holder).await
    }

    async fn call_a_person(
        &self,
        key: &str,
        monitored: &Monitored,
        target: &Target,
        drift: &Drift,
        hour: &str,
    ) -> Result<()> {
        if monitored.called_in.as_deref() == Some(hour) {
            return Ok(());
        }
        let repairs_per_hour = json!(self.repairs_per_hour);
        let change = Started { repairs_per_hour, ..change(&monitored.case.execution, target, drift) };
        (self.tell)(WorkflowMessage::DriftNotRepaired(change)).await?;
        self.cases.note_called(key, monitored, hour).await
    }
}

/// The notification's data: the instance that the call changed, and the execution that holds its case.
fn change(execution: &str, target: &Target, drift: &Drift) -> Started {
    Started {
        execution: json!({ "Id": execution }),
        targets: json!([target]),
        trigger: json!({ "Source": "Drift", "Findings": [], "Drift": drift }),
        ..Started::default()
    }
}

async fn tell(aws: &Aws, message: WorkflowMessage) -> Result<()> {
    let publisher = Publisher::new(aws_sdk_sns::Client::new(aws.home()), aws.required("TOPIC_ARN")?);
    let now = DateTime::from(SystemTime::now());
    match notifications::message(&message, &now) {
        Some(message) => publisher.publish(&message, &now).await.map(|_| ()),
        None => Ok(()),
    }
}

/// The instance with its case, for evidence and messages.
fn target(key: &str, monitored: &Monitored) -> Result<Target> {
    let mut parts = key.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    Target::parse(json!({
        "AccountId": part(), "Region": part(), "InstanceId": part(), "CaseId": monitored.case.id,
        "Execution": monitored.case.execution,
    }))
}

/// The clock hour, as `2026-11-21T03`.
fn hour(now: i64) -> String {
    let time = DateTime::from_secs(now).fmt(DateTimeFormat::DateTime).unwrap_or_default();
    time.get(..13).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
