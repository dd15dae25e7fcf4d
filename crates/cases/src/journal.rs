//! The journal of a case, in the case table.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use containment::{Error, Journal, Journaled, Key, Result, Target};

use crate::case::held;

/// The case table in DynamoDB. Key: `Instance` (account/Region/id) and `Record` (`case`, `guardrail`, or
/// `journal#CASE#STEP`).
///
/// A journal record has one attribute for each key, `RESOURCE|ATTRIBUTE`, with the first value as JSON text, and `Seen` with
/// the baseline. `if_not_exists` makes each of them write-once, in one call, whatever runs at the same time.
#[derive(Debug, Clone)]
pub struct CaseTable {
    pub(crate) client: Client,
    pub(crate) table: String,
}

/// An update expression has 4 KB, an assignment here some 35 bytes.
const KEYS_A_CALL: usize = 80;

/// The attribute of the baseline.
const BASELINE: &str = "Seen";

impl CaseTable {
    /// The table by this name.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        CaseTable { client, table: table.into() }
    }

    pub(crate) async fn record(&self, target: &Target, record: &str) -> Result<HashMap<String, AttributeValue>> {
        let reply = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("Instance", AttributeValue::S(target.key()))
            .key("Record", AttributeValue::S(record.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(Error::aws("dynamodb:GetItem", &self.table))?;
        Ok(reply.item.unwrap_or_default())
    }

    async fn write_once(
        &self,
        target: &Target,
        step: &str,
        new: &Journaled,
        condition: Option<&str>,
    ) -> Result<Journaled> {
        let mut all = Journaled::default();
        let entries = attributes(new)?;
        for entries in entries.chunks(KEYS_A_CALL) {
            let mut update = self
                .client
                .update_item()
                .table_name(&self.table)
                .key("Instance", AttributeValue::S(target.key()))
                .key("Record", AttributeValue::S(journal_record(target, step)))
                .return_values(ReturnValue::AllNew)
                .set_condition_expression(condition.map(ToOwned::to_owned));
            let mut assignments = Vec::new();
            for (n, (name, text)) in entries.iter().enumerate() {
                assignments.push(format!("#k{n} = if_not_exists(#k{n}, :v{n})"));
                update = update
                    .expression_attribute_names(format!("#k{n}"), name)
                    .expression_attribute_values(format!(":v{n}"), AttributeValue::S(text.clone()));
            }
            let reply = update
                .update_expression(format!("SET {}", assignments.join(", ")))
                .send()
                .await
                .map_err(Error::aws("dynamodb:UpdateItem", &self.table))?;
            all = journaled(&reply.attributes.unwrap_or_default())?;
        }
        Ok(all)
    }
}

impl Journal for CaseTable {
    async fn read(&self, target: &Target, step: &str) -> Result<Journaled> {
        journaled(&self.record(target, &journal_record(target, step)).await?)
    }

    async fn keep(&self, target: &Target, step: &str, new: &Journaled) -> Result<Journaled> {
        self.write_once(target, step, new, None).await
    }

    /// Asks and writes in one call: it is on the way to isolation.
    async fn keep_ahead(&self, target: &Target, step: &str, new: &Journaled) -> Result<bool> {
        held(self.write_once(target, step, new, Some("attribute_not_exists(Seen)")).await)
    }
}

fn journal_record(target: &Target, step: &str) -> String {
    format!("journal#{}#{step}", target.case_id)
}

/// The record's attributes, as the table has them.
fn attributes(new: &Journaled) -> Result<Vec<(String, String)>> {
    let first = new.first.iter().map(|(key, value)| Ok((key.to_text(), value.to_string())));
    let baseline = new.baseline.iter().map(|baseline| {
        let text = serde_json::to_string(baseline).map_err(|error| Error::Misconfigured(error.to_string()))?;
        Ok((BASELINE.to_owned(), text))
    });
    first.chain(baseline).collect()
}

fn journaled(item: &HashMap<String, AttributeValue>) -> Result<Journaled> {
    let unreadable = |of: &str, error| Error::Misconfigured(format!("the journal of {of} is not JSON: {error}"));
    let mut journaled = Journaled::default();
    for (name, value) in item {
        let Ok(text) = value.as_s() else { continue };
        if let Some(key) = Key::from_text(name) {
            let value = serde_json::from_str(text).map_err(|error| unreadable(&key.resource, error))?;
            journaled.first.insert(key, value);
        } else if name == BASELINE {
            journaled.baseline = Some(serde_json::from_str(text).map_err(|error| unreadable(BASELINE, error))?);
        }
    }
    Ok(journaled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use containment::First;
    use serde_json::{Value, json};

    fn target() -> Target {
        Target::example()
    }

    #[tokio::test]
    async fn every_first_value_is_written_only_if_it_is_not_there_yet() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                r.update_expression() == Some("SET #k0 = if_not_exists(#k0, :v0)")
                    && r.expression_attribute_names().expect("names")["#k0"] == "eni-1|Groups"
                    && r.key().expect("key")["Record"] == AttributeValue::S("journal#c-1#isolate-network".into())
            })
            .then_output(|| {
                let kept = AttributeValue::S(r#"["sg-first"]"#.into());
                UpdateItemOutput::builder().attributes("eni-1|Groups", kept).build()
            });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let found = First::from([(Key::new("eni-1", "Groups"), json!(["sg-second"]))]);
        let held = table.keep(&target(), "isolate-network", &found.into()).await.expect("kept");
        assert_eq!(held.first[&Key::new("eni-1", "Groups")], json!(["sg-first"]), "what was there first stands");
    }

    #[tokio::test]
    async fn a_baseline_is_written_once_beside_the_first_values_and_is_none_of_them() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let (names, values) = (r.expression_attribute_names(), r.expression_attribute_values());
                let (names, values) = (names.expect("names"), values.expect("values"));
                r.update_expression() == Some("SET #k0 = if_not_exists(#k0, :v0), #k1 = if_not_exists(#k1, :v1)")
                    && (names["#k0"].as_str(), names["#k1"].as_str()) == ("vol-1|DeleteOnTermination", "Seen")
                    && values[":v1"]
                        == AttributeValue::S(
                            r#"{"vol-1|DeleteOnTermination":true,"vol-2|DeleteOnTermination":false}"#.into(),
                        )
            })
            .then_output(|| {
                let first = AttributeValue::S("true".into());
                let seen = AttributeValue::S(r#"{"vol-9|DeleteOnTermination":true}"#.into());
                UpdateItemOutput::builder()
                    .attributes("vol-1|DeleteOnTermination", first)
                    .attributes("Seen", seen)
                    .build()
            });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let volume = |id: &str| Key::new(id, "DeleteOnTermination");
        let first = First::from([(volume("vol-1"), json!(true))]);
        let baseline = First::from([(volume("vol-1"), json!(true)), (volume("vol-2"), json!(false))]);
        let new = Journaled { first: first.clone(), baseline: Some(baseline) };
        let held = table.keep(&target(), "preserve-volumes", &new).await.expect("kept");
        assert_eq!(held, Journaled { first, baseline: Some([(volume("vol-9"), json!(true))].into()) });
    }

    /// As build 2800eab wrote it.
    #[tokio::test]
    async fn a_record_of_the_first_version_is_read_as_it_was_written() {
        let rule = mock!(Client::get_item).then_output(|| {
            let text = |text: &str| AttributeValue::S(text.to_owned());
            GetItemOutput::builder()
                .item("Instance", text("123456789012/eu-west-1/i-0123456789abcdef0"))
                .item("Record", text("journal#c-1#deregister-targets"))
                .item("tg|1|Target i-1", text(r#"{"Id":"i-1","State":"registered"}"#))
                .item("web|ClassicLoadBalancer", text("null"))
                .item("Seen", text(r#"{"tg|1|Target i-1":{"Id":"i-1","State":"registered"}}"#))
                .build()
        });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let held = table.read(&target(), "deregister-targets").await.expect("read");
        let registered = (Key::new("tg|1", "Target i-1"), json!({ "Id": "i-1", "State": "registered" }));
        let first = [registered.clone(), (Key::new("web", "ClassicLoadBalancer"), Value::Null)].into();
        assert_eq!(held, Journaled { first, baseline: Some([registered].into()) });
    }

    #[tokio::test]
    async fn what_is_kept_ahead_of_a_step_takes_one_call_and_is_kept_only_before_its_first_run() {
        let has_run = mock!(Client::update_item)
            .match_requests(|r| r.condition_expression() == Some("attribute_not_exists(Seen)"))
            .then_error(|| {
                let meta = ErrorMetadata::builder().code("ConditionalCheckFailedException").build();
                UpdateItemError::ConditionalCheckFailedException(
                    ConditionalCheckFailedException::builder().meta(meta).build(),
                )
            });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&has_run]), "cases");
        let first = First::from([(Key::new("web", "Membership"), json!("InService"))]);
        assert!(!table.keep_ahead(&target(), "detach-autoscaling", &first.into()).await.expect("asked"));
        assert_eq!(has_run.num_calls(), 1);
    }

    #[tokio::test]
    async fn more_values_than_an_expression_holds_go_in_several_calls() {
        let rule = mock!(Client::update_item).then_output(|| UpdateItemOutput::builder().build());
        let table =
            CaseTable::new(mock_client!(aws_sdk_dynamodb, aws_smithy_mocks::RuleMode::MatchAny, [&rule]), "cases");
        let found =
            (0..KEYS_A_CALL * 2 + 1).map(|n| (Key::new(format!("vol-{n}"), "DeleteOnTermination"), json!(true)));
        table.keep(&target(), "preserve-volumes", &found.collect::<First>().into()).await.expect("kept");
        assert_eq!(rule.num_calls(), 3);
    }
}
