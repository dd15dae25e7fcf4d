//! What the case table knows about a contained instance that is watched: since when, when it was last read back, what
//! belongs to it, and what has been done about it so far.
//!
//! Beside the case there are records of its own. `resource-of#INSTANCE` in the partition of a resource
//! (`ACCOUNT/REGION/eni-…`, `ACCOUNT/iam/ROLE/POLICY`) leads from what an API call names to the instance, also when the
//! resource is gone by then; it is a hint, and the case decides. `drift#CASE#EVENT` is a call that somebody made, and
//! `repairs#HOUR` the calls that were answered by another containment in a clock hour.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use containment::{AutoScaling, Error, Outcome, Result, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{CASE, held, now, text};
use crate::{CaseTable, Drift};

/// The options of a case that another containment of it has to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Options {
    /// A ticket, for the tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_ticket: Option<String>,
    /// Who is in charge, for the tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What the Auto Scaling group does about the loss.
    #[serde(default)]
    pub auto_scaling: AutoScaling,
    /// Whether every session of the role is denied.
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

/// An open case of an instance that was contained in it, as far as the watch needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// The case's name.
    pub case_id: String,
    /// The execution that holds the case.
    pub execution: String,
    /// When the holder took it, in seconds since 1970.
    pub held_since: i64,
    /// When the instance first read back as off the network, to the step or to a verification, in seconds since 1970: what
    /// was done before is no drift.
    pub since: i64,
    /// When a verification last read AWS back, in seconds since 1970, or 0; whatever was done before has been seen by it.
    pub verified_at: i64,
    /// Whether that found everything as it should be.
    pub contained: bool,
    /// The case's options.
    pub options: Options,
    /// The execution that was last started because of drift, and when.
    pub repair: Option<(String, i64)>,
    /// The execution that people were told to wait for.
    pub told_to_wait_for: Option<String>,
    /// The clock hour in which a person was last called.
    pub called_in: Option<String>,
}

/// DynamoDB takes so many items in a transaction.
const ITEMS_A_CALL: usize = 100;

const RESOURCE_OF: &str = "resource-of#";

impl CaseTable {
    /// The case of the instance with this key (see [`Target::key`]), if it is watched: open, and contained once.
    pub async fn watched(&self, key: &str) -> Result<Option<Watched>> {
        let item = self.item(key, CASE).await?;
        let text = |name: &str| item.get(name).and_then(|v| v.as_s().ok()).cloned();
        let number = |name: &str| item.get(name).and_then(|v| v.as_n().ok()).and_then(|n| n.parse::<i64>().ok());
        let (Some(case_id), Some("Open"), Some(since)) =
            (text("CaseId"), text("Status").as_deref(), number("WatchedSince"))
        else {
            return Ok(None);
        };
        let options = text("Options").unwrap_or_else(|| "{}".to_owned());
        let options = serde_json::from_str(&options)
            .map_err(|error| Error::Misconfigured(format!("the options of case {case_id}: {error}")))?;
        Ok(Some(Watched {
            case_id,
            execution: text("Execution").unwrap_or_default(),
            held_since: number("HeldSince").unwrap_or_default(),
            since,
            verified_at: number("VerifiedAt").unwrap_or_default(),
            contained: text("Verdict").as_deref() == Some("Contained"),
            options,
            repair: text("Repair").zip(number("RepairSince")),
            told_to_wait_for: text("ToldToWaitFor"),
            called_in: text("CalledIn"),
        }))
    }

    /// Notes the verdict of a verification that began to read at this time (seconds since 1970), and the case's options;
    /// from the first one on that found the instance off the network it is watched. False when another execution has taken
    /// the case over, whose verdict will count.
    pub async fn note_verified(&self, target: &Target, verdict: &str, isolated: bool, began: i64) -> Result<bool> {
        let options = Options::of(target).to_text()?;
        let watched = if isolated { ", WatchedSince = if_not_exists(WatchedSince, :began)" } else { "" };
        let execution = target.execution.as_deref().unwrap_or_default();
        let values = HashMap::from([
            (":verdict".to_owned(), text(verdict)),
            (":began".to_owned(), AttributeValue::N(began.to_string())),
            (":options".to_owned(), text(&options)),
            (":execution".to_owned(), text(execution)),
        ]);
        let update = format!("SET Verdict = :verdict, VerifiedAt = :began, Options = :options{watched}");
        self.update(target, &update, "Execution = :execution", values).await
    }

    /// Watches the instance from now on, by the interfaces and their groups that the outcome of a step names: whoever changes
    /// one of them is noticed before there is a verification. Does nothing for a function that somebody runs by hand, which
    /// holds no case, or where another execution has taken the case over.
    pub async fn watch_from_now(&self, target: &Target, outcome: &Outcome) -> Result<()> {
        let Some(execution) = target.execution.as_deref() else { return Ok(()) };
        let options = Options::of(target).to_text()?;
        let values = HashMap::from([
            (":now".to_owned(), AttributeValue::N(now().to_string())),
            (":options".to_owned(), text(&options)),
            (":execution".to_owned(), text(execution)),
        ]);
        let update = "SET WatchedSince = if_not_exists(WatchedSince, :now), Options = if_not_exists(Options, :options)";
        let resources = interfaces_and_groups(target, outcome);
        let noted = async { if resources.is_empty() { Ok(()) } else { self.note_resources(target, &resources).await } };
        futures::try_join!(noted, self.update(target, update, "Execution = :execution", values)).map(|_| ())
    }

    /// Notes what belongs to the instance, each by its key: one call for up to 100. A transaction, because what may write
    /// a batch may also delete in one; this takes `dynamodb:PutItem`.
    pub async fn note_resources(&self, target: &Target, resources: &BTreeSet<String>) -> Result<()> {
        let put = |resource: &String| {
            let put = Put::builder()
                .table_name(&self.table)
                .item("Instance", text(resource))
                .item("Record", text(&format!("{RESOURCE_OF}{}", target.key())));
            // The table and an item are given, so that building cannot fail.
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

    /// Whether the call is in the case already.
    pub async fn has_drift(&self, key: &str, case: &str, event: &str) -> Result<bool> {
        Ok(!self.item(key, &drift_record(case, event)).await?.is_empty())
    }

    /// Adds a call to the case, write-once.
    pub async fn add_drift(&self, key: &str, case: &str, drift: &Drift) -> Result<()> {
        let json = serde_json::to_string(drift)
            .map_err(|error| Error::Misconfigured(format!("a call can't be written as JSON: {error}")))?;
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("Instance", text(key))
            .item("Record", text(&drift_record(case, &drift.event_id)))
            .item("Drift", text(&json))
            .condition_expression("attribute_not_exists(Drift)")
            .send()
            .await;
        held(sent.map_err(Error::aws("dynamodb:PutItem", &self.table))).map(|_| ())
    }

    /// Counts a call in the record of this name (such as `repairs#2026-11-21T03`), once however often it is asked; false,
    /// and not counted, when there are as many as may be.
    pub async fn count_drift(&self, key: &str, record: &str, event: &str, at_most: usize) -> Result<bool> {
        if at_most == 0 {
            return Ok(false);
        }
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("Instance", text(key))
            .key("Record", text(record))
            .update_expression("ADD Events :one")
            .condition_expression("attribute_not_exists(Events) OR contains(Events, :event) OR size(Events) < :most")
            .expression_attribute_values(":one", AttributeValue::Ss(vec![event.to_owned()]))
            .expression_attribute_values(":event", text(event))
            .expression_attribute_values(":most", AttributeValue::N(at_most.to_string()))
            .send()
            .await;
        held(sent.map_err(Error::aws("dynamodb:UpdateItem", &self.table)))
    }

    /// Claims the next repair for an execution that is about to be started; false when the case, its holder or its last
    /// repair is not what was seen.
    pub async fn claim_repair(&self, key: &str, seen: &Watched, execution: &str, now: i64) -> Result<bool> {
        let last = match &seen.repair {
            Some(_) => "Repair = :last",
            None => "attribute_not_exists(Repair)",
        };
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("Instance", text(key))
            .key("Record", text(CASE))
            .update_expression("SET Repair = :new, RepairSince = :now")
            .condition_expression(format!("CaseId = :case AND Execution = :holder AND #status = :open AND {last}"))
            .expression_attribute_names("#status", "Status")
            .expression_attribute_values(":open", text("Open"))
            .expression_attribute_values(":new", text(execution))
            .expression_attribute_values(":now", AttributeValue::N(now.to_string()))
            .expression_attribute_values(":case", text(&seen.case_id))
            .expression_attribute_values(":holder", text(&seen.execution));
        if let Some((last, _)) = &seen.repair {
            update = update.expression_attribute_values(":last", text(last));
        }
        held(update.send().await.map_err(Error::aws("dynamodb:UpdateItem", &self.table)))
    }

    /// Notes in the case that people were told to wait for an execution.
    pub async fn note_told_to_wait(&self, key: &str, seen: &Watched, execution: &str) -> Result<()> {
        self.note(key, seen, "ToldToWaitFor", execution).await
    }

    /// Notes in the case that a person was called in this clock hour.
    pub async fn note_called(&self, key: &str, seen: &Watched, hour: &str) -> Result<()> {
        self.note(key, seen, "CalledIn", hour).await
    }

    async fn note(&self, key: &str, seen: &Watched, name: &str, value: &str) -> Result<()> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("Instance", text(key))
            .key("Record", text(CASE))
            .update_expression("SET #name = :value")
            .condition_expression("CaseId = :case")
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":value", text(value))
            .expression_attribute_values(":case", text(&seen.case_id))
            .send()
            .await;
        held(sent.map_err(Error::aws("dynamodb:UpdateItem", &self.table))).map(|_| ())
    }

    async fn item(&self, key: &str, record: &str) -> Result<HashMap<String, AttributeValue>> {
        let reply = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("Instance", text(key))
            .key("Record", text(record))
            .consistent_read(true)
            .send()
            .await
            .map_err(Error::aws("dynamodb:GetItem", &self.table))?;
        Ok(reply.item.unwrap_or_default())
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
    async fn an_open_case_is_watched_once_it_was_contained_and_a_released_one_never_is() {
        let open = case(&[("Status", "Open"), ("WatchedSince", "7"), ("Options", "{\"AutoScaling\":\"Decrement\"}")]);
        let watched = table(&[&open]).watched(KEY).await.expect("read").expect("watched");
        assert_eq!((watched.since, watched.options.auto_scaling), (7, AutoScaling::Decrement));
        for other in
            [&[("Status", "Open")][..], &[("Status", "Released"), ("WatchedSince", "7")], &[("WatchedSince", "7")]]
        {
            assert_eq!(table(&[&case(other)]).watched(KEY).await.expect("read"), None);
        }
    }

    #[tokio::test]
    async fn the_first_verification_that_found_it_isolated_is_kept_and_options_go_with_the_verdict() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let values = r.expression_attribute_values().expect("values");
                r.update_expression().expect("an update").contains("WatchedSince = if_not_exists(WatchedSince, :began)")
                    && values[":began"] == AttributeValue::N("9".into())
                    && values[":options"] == text(r#"{"AutoScaling":"Replace","RevokeAllSessions":false}"#)
                    && r.condition_expression() == Some("Execution = :execution")
            })
            .then_output(|| UpdateItemOutput::builder().build());
        assert!(table(&[&rule]).note_verified(&Target::example(), "Contained", true, 9).await.expect("noted"));
        let other = mock!(Client::update_item)
            .match_requests(|r| !r.update_expression().expect("an update").contains("WatchedSince"))
            .then_output(|| UpdateItemOutput::builder().build());
        assert!(table(&[&other]).note_verified(&Target::example(), "NotContained", false, 9).await.expect("noted"));
    }

    #[tokio::test]
    async fn from_the_isolation_on_whoever_changes_an_interface_or_its_group_is_noticed() {
        let case = mock!(Client::update_item)
            .match_requests(|r| {
                let update = r.update_expression().expect("an update");
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
        table.watch_from_now(&Target::example(), &outcome).await.expect("nothing to do");
        assert_eq!((case.num_calls(), named.num_calls()), (0, 0), "nobody holds a case who runs a function by hand");
        let held = Target { execution: Some("arn:first".into()), ..Target::example() };
        table.watch_from_now(&held, &outcome).await.expect("begun");
        assert_eq!((case.num_calls(), named.num_calls()), (1, 1));
    }

    #[tokio::test]
    async fn what_belongs_to_an_instance_is_one_call_for_up_to_a_hundred() {
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
    async fn repairs_are_counted_up_to_the_limit_and_none_is_allowed_where_the_limit_is_none() {
        let full = mock!(Client::update_item)
            .match_requests(|r| {
                let condition = r.condition_expression().expect("a condition");
                condition.contains("contains(Events, :event)") && condition.contains("size(Events) < :most")
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
    async fn a_repair_is_claimed_only_for_the_case_the_holder_and_the_last_repair_that_were_seen() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let condition = r.condition_expression().expect("a condition");
                condition.ends_with("AND #status = :open AND Repair = :last")
                    && r.expression_attribute_values().expect("values")[":last"] == text("arn:x1")
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let seen = Watched { repair: Some(("arn:x1".into(), 3)), ..Watched::default() };
        assert!(table(&[&rule]).claim_repair(KEY, &seen, "arn:x2", 9).await.expect("claimed"));
    }

    #[test]
    fn no_text_of_a_call_is_longer_than_a_message_shows() {
        let drift = Drift { user_agent: "é".repeat(9_000), ..Drift::default() };
        assert_eq!(drift.shortened().user_agent.chars().count(), 400);
    }
}
