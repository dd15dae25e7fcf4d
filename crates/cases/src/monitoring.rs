//! Drift detection's part of the table: since when an instance is monitored, when it was last read back, which resources lead
//! to it, and which repairs its drift has started.
//!
//! The record `resource-of#INSTANCE` leads from what an API call names to the instance, even if the resource is gone by then.
//! It is a hint; the case decides.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use containment::{AutoScaling, Error, Outcome, Result, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{CASE, MONITORED_SINCE, OPEN, holder};
use crate::{Case, CaseTable, Drift, Item, Update, held, now, number, text};

/// The options of a case, which a repair keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Options {
    /// A ticket, for the tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_ticket: Option<String>,
    /// Who is in charge, for the tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether the Auto Scaling group replaces the instance when it is detached.
    #[serde(default)]
    pub auto_scaling: AutoScaling,
    /// Whether to deny all sessions of the role, not only those of the instance.
    #[serde(default)]
    pub revoke_all_sessions: bool,
}

impl Options {
    fn of(target: &Target) -> Self {
        Options {
            incident_ticket: target.incident_ticket.clone(),
            owner: target.owner.clone(),
            auto_scaling: target.auto_scaling,
            revoke_all_sessions: target.revoke_all_sessions,
        }
    }

    fn to_text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::Misconfigured(format!("options can't be written as JSON: {error}")))
    }
}

/// An open case whose instance was contained in it: from then until the release, drift detection looks at each call on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Monitored {
    /// The case.
    pub case: Case,
    /// When the instance was first read back as isolated, by the step or by a verification, in seconds since 1970.
    /// Earlier calls are no drift.
    pub since: i64,
    /// When a verification last started to read AWS, in seconds since 1970, or 0. It has seen all earlier changes.
    pub verified_at: i64,
    /// The case's options.
    pub options: Options,
    /// The ARN of the last repair's execution, and when it was claimed, in seconds since 1970.
    pub repair: Option<(String, i64)>,
    /// The execution that people were told to wait for.
    pub told_to_wait_for: Option<String>,
    /// The clock hour in which a person was last called: `2026-11-21T03`.
    pub called_in: Option<String>,
}

impl Monitored {
    fn read(item: &Item) -> Result<Option<Monitored>> {
        let (Some(case), Some(OPEN), Some(since)) =
            (Case::read(item), item.text("Status").as_deref(), item.number(MONITORED_SINCE))
        else {
            return Ok(None);
        };
        let options = item.text("Options").unwrap_or_else(|| "{}".to_owned());
        let options = serde_json::from_str(&options)
            .map_err(|error| Error::Misconfigured(format!("the options of case {}: {error}", case.id)))?;
        Ok(Some(Monitored {
            case,
            since,
            verified_at: item.number("VerifiedAt").unwrap_or_default(),
            options,
            repair: item.text("Repair").zip(item.number("RepairSince")),
            told_to_wait_for: item.text("ToldToWaitFor"),
            called_in: item.text("CalledIn"),
        }))
    }

    /// Whether the last verification found the instance contained.
    pub fn is_contained(&self) -> bool {
        self.case.verdict.as_deref() == Some("Contained")
    }
}

/// The most items that DynamoDB takes in a transaction.
const ITEMS_A_CALL: usize = 100;

const RESOURCE_OF: &str = "resource-of#";

impl CaseTable {
    /// The case of the instance with this key (see [`Target::key`]), if the instance is monitored: the case is open, and the
    /// instance was contained in it.
    ///
    /// Errors: `Misconfigured` if the case's options are not JSON.
    pub async fn monitored(&self, key: &str) -> Result<Option<Monitored>> {
        Monitored::read(&self.item(key, CASE).await?)
    }

    /// Notes a verification that started at this time (seconds since 1970): its verdict and the case's options. From the
    /// first one on that found the instance isolated, the instance is monitored. False, and nothing written, if another
    /// execution has taken the case over: its verdict will count.
    pub async fn note_verified(&self, target: &Target, verdict: &str, isolated: bool, began: i64) -> Result<bool> {
        let mut update = Update::default()
            .set("Verdict", text(verdict))
            .set("VerifiedAt", number(began))
            .set("Options", text(&Options::of(target).to_text()?))
            .if_equal("Execution", text(holder(target)));
        if isolated {
            update = update.set_once(MONITORED_SINCE, number(began));
        }
        self.update(&target.key(), CASE, update).await
    }

    /// Monitors the instance from now on, by the interfaces and their groups that a step's outcome names: their drift is
    /// detected before there is a verification. Writes nothing for a function that somebody invokes directly, which holds no
    /// case, and leaves the case alone if another execution has taken it over.
    pub async fn monitor_from_now(&self, target: &Target, outcome: &Outcome) -> Result<()> {
        let Some(execution) = target.execution.as_deref() else { return Ok(()) };
        let update = Update::default()
            .set_once(MONITORED_SINCE, number(now()))
            .set_once("Options", text(&Options::of(target).to_text()?))
            .if_equal("Execution", text(execution));
        let resources = interfaces_and_groups(target, outcome);
        let noted = async { if resources.is_empty() { Ok(()) } else { self.note_resources(target, &resources).await } };
        let key = target.key();
        futures::try_join!(noted, self.update(&key, CASE, update)).map(|_| ())
    }

    /// Notes what belongs to the instance, each resource by its key: one call for up to 100. A transaction, because the
    /// permission to write a batch is one to delete as well; a transaction of puts needs `dynamodb:PutItem` alone.
    pub async fn note_resources(&self, target: &Target, resources: &BTreeSet<String>) -> Result<()> {
        let put = |resource: &String| {
            let put = Put::builder()
                .table_name(&self.table)
                .item("Instance", text(resource))
                .item("Record", text(&format!("{RESOURCE_OF}{}", target.key())));
            // The table and an item are given, so building cannot fail.
            TransactWriteItem::builder().set_put(put.build().ok()).build()
        };
        let all: Vec<TransactWriteItem> = resources.iter().map(put).collect();
        for chunk in all.chunks(ITEMS_A_CALL) {
            let sent = self.client.transact_write_items().set_transact_items(Some(chunk.to_vec())).send().await;
            sent.map_err(Error::aws("dynamodb:PutItem", &self.table))?;
        }
        Ok(())
    }

    /// The keys of the instances that the resource belonged to when they were last verified; their cases may be over.
    pub async fn instances_of(&self, resource: &str) -> Result<Vec<String>> {
        let pages = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("Instance = :resource AND begins_with(#record, :of)")
            .expression_attribute_names("#record", "Record")
            .expression_attribute_values(":resource", text(resource))
            .expression_attribute_values(":of", text(RESOURCE_OF))
            .into_paginator()
            .items()
            .send();
        let found: Vec<_> = pages.try_collect().await.map_err(Error::aws("dynamodb:Query", &self.table))?;
        let record = |item: &HashMap<String, AttributeValue>| {
            Some(item.get("Record")?.as_s().ok()?.strip_prefix(RESOURCE_OF)?.to_owned())
        };
        Ok(found.iter().filter_map(record).collect())
    }

    /// Whether the case already has the call.
    pub async fn has_drift(&self, key: &str, case: &str, event: &str) -> Result<bool> {
        Ok(self.item(key, &drift_record(case, event)).await?.exists())
    }

    /// Adds a call to the case. Changes nothing if the case already has it.
    pub async fn add_drift(&self, key: &str, case: &str, drift: &Drift) -> Result<()> {
        let json = serde_json::to_string(drift)
            .map_err(|error| Error::Misconfigured(format!("a call can't be written as JSON: {error}")))?;
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("Instance", text(key))
            .item("Record", text(&drift_record(case, &drift.event_id)))
            .item("Drift", text(&json))
            .condition_expression("attribute_not_exists(Drift)");
        held(put.send().await.map_err(Error::aws("dynamodb:PutItem", &self.table))).map(|_| ())
    }

    /// Counts a call in the record of this name (such as `repairs#2026-11-21T03`), only once, however often this is
    /// called. False, and nothing counted, if the limit is reached.
    pub async fn count_drift(&self, key: &str, record: &str, event: &str, at_most: usize) -> Result<bool> {
        if at_most == 0 {
            return Ok(false);
        }
        let update = Update::default().add("Events", AttributeValue::Ss(vec![event.to_owned()])).if_room(
            "Events",
            text(event),
            number(at_most),
        );
        self.update(key, record, update).await
    }

    /// Claims the next repair, at this time, for an execution that is about to be started. False, and nothing written,
    /// if the case, its holder or its last repair is no longer what `seen` has.
    pub async fn claim_repair(&self, key: &str, seen: &Monitored, execution: &str, now: i64) -> Result<bool> {
        let update = Update::default()
            .set("Repair", text(execution))
            .set("RepairSince", number(now))
            .if_equal("CaseId", text(&seen.case.id))
            .if_equal("Execution", text(&seen.case.execution))
            .if_equal("Status", text(OPEN));
        let update = match &seen.repair {
            Some((last, _)) => update.if_equal("Repair", text(last)),
            None => update.if_absent("Repair"),
        };
        self.update(key, CASE, update).await
    }

    /// Notes in the case that people were told to wait for an execution.
    pub async fn note_told_to_wait(&self, key: &str, seen: &Monitored, execution: &str) -> Result<()> {
        self.note(key, seen, "ToldToWaitFor", execution).await
    }

    /// Notes in the case that a person was called in this clock hour.
    pub async fn note_called(&self, key: &str, seen: &Monitored, hour: &str) -> Result<()> {
        self.note(key, seen, "CalledIn", hour).await
    }

    async fn note(&self, key: &str, seen: &Monitored, name: &str, value: &str) -> Result<()> {
        let update = Update::default().set(name, text(value)).if_equal("CaseId", text(&seen.case.id));
        self.update(key, CASE, update).await.map(|_| ())
    }
}

fn drift_record(case: &str, event: &str) -> String {
    format!("drift#{case}#{event}")
}

/// The keys of the interfaces that an outcome names, and of the groups that they are on now.
fn interfaces_and_groups(target: &Target, outcome: &Outcome) -> BTreeSet<String> {
    let interfaces = outcome.changes.iter().filter(|change| change.resource.starts_with("eni-"));
    let ids = interfaces.flat_map(|change| {
        let groups = change.after.as_array().into_iter().flatten().filter_map(Value::as_str);
        groups.chain([change.resource.as_str()])
    });
    ids.map(|id| format!("{}/{}/{id}", target.account_id, target.region)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::spelled_out;
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::operation::query::QueryOutput;
    use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsOutput;
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use containment::{Change, Status};
    use serde_json::json;

    const KEY: &str = "123456789012/eu-west-1/i-0123456789abcdef0";

    fn table(rules: &[&Rule]) -> CaseTable {
        CaseTable::new(mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, rules), "cases")
    }

    fn case(more: &'static [(&'static str, &'static str)]) -> Rule {
        mock!(Client::get_item).then_output(move || {
            let value = |v: &str| match v.parse::<i64>() {
                Ok(_) => AttributeValue::N(v.to_owned()),
                Err(_) => text(v),
            };
            let fields = [("CaseId", "c-1"), ("Execution", "arn:first")];
            let item = fields.iter().chain(more).map(|(name, v)| ((*name).to_owned(), value(v))).collect();
            GetItemOutput::builder().set_item(Some(item)).build()
        })
    }

    #[tokio::test]
    async fn an_open_case_is_monitored_once_contained_and_a_released_one_never_is() {
        let open = case(&[("Status", "Open"), ("WatchedSince", "7"), ("Options", "{\"AutoScaling\":\"Decrement\"}")]);
        let monitored = table(&[&open]).monitored(KEY).await.expect("read").expect("monitored");
        assert_eq!((monitored.since, monitored.options.auto_scaling), (7, AutoScaling::Decrement));
        for other in
            [&[("Status", "Open")][..], &[("Status", "Released"), ("WatchedSince", "7")], &[("WatchedSince", "7")]]
        {
            assert_eq!(table(&[&case(other)]).monitored(KEY).await.expect("read"), None);
        }
    }

    #[tokio::test]
    async fn the_first_verification_that_found_the_instance_isolated_is_kept_with_the_options() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let (update, condition) = spelled_out(r);
                update.contains("WatchedSince = if_not_exists(WatchedSince, 9)")
                    && update.contains(r#"Options = '{"AutoScaling":"Replace","RevokeAllSessions":false}'"#)
                    && condition == "Execution = ''"
            })
            .then_output(|| UpdateItemOutput::builder().build());
        assert!(table(&[&rule]).note_verified(&Target::example(), "Contained", true, 9).await.expect("noted"));
        let other = mock!(Client::update_item)
            .match_requests(|r| !spelled_out(r).0.contains("WatchedSince"))
            .then_output(|| UpdateItemOutput::builder().build());
        assert!(table(&[&other]).note_verified(&Target::example(), "NotContained", false, 9).await.expect("noted"));
    }

    #[tokio::test]
    async fn once_isolated_an_interface_or_its_group_leads_to_the_instance() {
        let case = mock!(Client::update_item)
            .match_requests(|r| {
                let (update, _) = spelled_out(r);
                update.contains("WatchedSince = if_not_exists") && update.contains("Options = if_not_exists")
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let named = mock!(Client::transact_write_items)
            .match_requests(|r| {
                let put = |n: usize| r.transact_items()[n].put().expect("a put").item()["Instance"].clone();
                [put(0), put(1)] == [text("123456789012/eu-west-1/eni-1"), text("123456789012/eu-west-1/sg-isolation")]
            })
            .then_output(|| TransactWriteItemsOutput::builder().build());
        let change = |resource: &str, after: Value| Change {
            resource: resource.to_owned(),
            attribute: "Groups".to_owned(),
            before: Value::Null,
            after,
        };
        let changes = vec![change("eni-1", json!(["sg-isolation"])), change("vpc-1", json!(["sg-other"]))];
        let outcome = Outcome { changes, ..Outcome::new("isolate-network", Status::Done, None) };
        let table = table(&[&case, &named]);
        table.monitor_from_now(&Target::example(), &outcome).await.expect("nothing to do");
        assert_eq!((case.num_calls(), named.num_calls()), (0, 0), "a function that is run by hand holds no case");
        let held = Target { execution: Some("arn:first".into()), ..Target::example() };
        table.monitor_from_now(&held, &outcome).await.expect("begun");
        assert_eq!((case.num_calls(), named.num_calls()), (1, 1));
    }

    #[tokio::test]
    async fn up_to_a_hundred_resources_are_noted_in_one_call() {
        let rule = mock!(Client::transact_write_items)
            .match_requests(|r| {
                r.transact_items().iter().all(|one| {
                    one.put().is_some_and(|put| {
                        put.table_name() == "cases" && put.item()["Record"] == text(&format!("resource-of#{KEY}"))
                    })
                })
            })
            .then_output(|| TransactWriteItemsOutput::builder().build());
        let table = table(&[&rule]);
        let resources = |count| (0..count).map(|n| format!("123456789012/eu-west-1/snap-{n}")).collect();
        table.note_resources(&Target::example(), &resources(100)).await.expect("noted");
        assert_eq!(rule.num_calls(), 1);
        table.note_resources(&Target::example(), &resources(101)).await.expect("noted");
        assert_eq!(rule.num_calls(), 3);
    }

    #[tokio::test]
    async fn a_resource_leads_to_its_instances() {
        let rule = mock!(Client::query)
            .match_requests(|r| r.expression_attribute_values().expect("values")[":resource"] == text("a/r/eni-1"))
            .then_output(|| {
                let item = [("Record".to_owned(), text(&format!("resource-of#{KEY}")))];
                QueryOutput::builder().items(item.into()).build()
            });
        assert_eq!(table(&[&rule]).instances_of("a/r/eni-1").await.expect("read"), [KEY]);
    }

    #[tokio::test]
    async fn repairs_are_counted_up_to_the_limit_which_may_be_zero() {
        let full = mock!(Client::update_item)
            .match_requests(|r| {
                let (_, condition) = spelled_out(r);
                condition.contains("contains(Events, 'e-5')") && condition.contains("size(Events) < 4")
            })
            .then_error(|| {
                let meta = ErrorMetadata::builder().code("ConditionalCheckFailedException").build();
                UpdateItemError::ConditionalCheckFailedException(
                    ConditionalCheckFailedException::builder().meta(meta).build(),
                )
            });
        let table = table(&[&full]);
        assert!(!table.count_drift(KEY, "repairs#2026-11-21T03", "e-5", 4).await.expect("asked"));
        assert!(!table.count_drift(KEY, "repairs#2026-11-21T03", "e-1", 0).await.expect("not even asked"));
        assert_eq!(full.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_repair_is_claimed_only_if_case_holder_and_last_repair_are_unchanged() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let (_, condition) = spelled_out(r);
                condition == "CaseId = '' AND Execution = '' AND Status = 'Open' AND Repair = 'arn:x1'"
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let seen = Monitored { repair: Some(("arn:x1".into(), 3)), ..Monitored::default() };
        assert!(table(&[&rule]).claim_repair(KEY, &seen, "arn:x2", 9).await.expect("claimed"));
    }
}
