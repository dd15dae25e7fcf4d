//! The journal of a case, in the case table.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use containment::{Error, First, Journal, Kept, Key, Result, Target};
use serde_json::Value;

use crate::case::held;

/// The case table in DynamoDB. Key: `Instance` (account/Region/id) and `Record` (`case`, `guardrail`, or
/// `journal#CASE#STEP`).
///
/// A journal record has one attribute for each key, `RESOURCE|ATTRIBUTE`, holding the first value as JSON text, and `Seen`
/// with all that was seen; `if_not_exists` makes each of them write-once, in one call, whatever runs at the same time.
#[derive(Debug, Clone)]
pub struct CaseTable {
    pub(crate) client: Client,
    pub(crate) table: String,
}

/// An update expression has 4 KB, an assignment here some 35 bytes.
const KEYS_A_CALL: usize = 80;

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
}

fn journal_record(target: &Target, step: &str) -> String {
    format!("journal#{}#{step}", target.case_id)
}

const SEEN: &str = "Seen";

fn kept(item: &HashMap<String, AttributeValue>) -> Result<Kept> {
    let unreadable = |of: &str, error| Error::Misconfigured(format!("the journal of {of} is not JSON: {error}"));
    let mut kept = Kept::default();
    for (name, value) in item {
        let Ok(text) = value.as_s() else { continue };
        if let Some(key) = Key::from_text(name) {
            let value = serde_json::from_str(text).map_err(|error| unreadable(&key.resource, error))?;
            kept.first.insert(key, value);
        } else if name == SEEN {
            let seen: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|error| unreadable(SEEN, error))?;
            kept.seen =
                Some(seen.into_iter().filter_map(|(key, value)| Some((Key::from_text(&key)?, value))).collect());
        }
    }
    Ok(kept)
}

/// What was seen, as the table has it.
fn seen_text(seen: &First) -> Result<String> {
    let seen: BTreeMap<String, &Value> = seen.iter().map(|(key, value)| (key.to_text(), value)).collect();
    serde_json::to_string(&seen)
        .map_err(|error| Error::Misconfigured(format!("what was seen can't be written as JSON: {error}")))
}

impl Journal for CaseTable {
    async fn kept(&self, target: &Target, step: &str) -> Result<Kept> {
        kept(&self.record(target, &journal_record(target, step)).await?)
    }

    async fn keep(&self, target: &Target, step: &str, first: &First, seen: Option<&First>) -> Result<Kept> {
        self.write_once(target, step, first, seen, None).await
    }

    /// On the way to the isolation, so in one call.
    async fn keep_ahead(&self, target: &Target, step: &str, first: &First, seen: Option<&First>) -> Result<bool> {
        held(self.write_once(target, step, first, seen, Some("attribute_not_exists(Seen)")).await)
    }
}

impl CaseTable {
    async fn write_once(
        &self,
        target: &Target,
        step: &str,
        first: &First,
        seen: Option<&First>,
        condition: Option<&str>,
    ) -> Result<Kept> {
        let mut all = Kept::default();
        let seen = seen.map(seen_text).transpose()?.map(|text| (SEEN.to_owned(), text));
        let entries: Vec<(String, String)> =
            first.iter().map(|(key, value)| (key.to_text(), value.to_string())).chain(seen).collect();
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
            all = kept(&reply.attributes.unwrap_or_default())?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use serde_json::json;

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
        let found = [(Key::new("eni-1", "Groups"), json!(["sg-second"]))].into();
        let kept = table.keep_first(&target(), "isolate-network", &found).await.expect("kept");
        assert_eq!(kept[&Key::new("eni-1", "Groups")], json!(["sg-first"]), "what was there first stands");
    }

    #[tokio::test]
    async fn what_was_seen_is_written_once_with_the_first_values_and_is_none_of_them() {
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
        let first = [(volume("vol-1"), json!(true))].into();
        let seen = [(volume("vol-1"), json!(true)), (volume("vol-2"), json!(false))].into();
        let kept = table.keep(&target(), "preserve-volumes", &first, Some(&seen)).await.expect("kept");
        assert_eq!((kept.first, kept.seen), (first, Some([(volume("vol-9"), json!(true))].into())));
    }

    #[tokio::test]
    async fn what_is_kept_ahead_of_a_step_is_kept_in_one_call_and_only_if_the_step_has_not_looked_yet() {
        let looked = mock!(Client::update_item)
            .match_requests(|r| r.condition_expression() == Some("attribute_not_exists(Seen)"))
            .then_error(|| {
                let meta = ErrorMetadata::builder().code("ConditionalCheckFailedException").build();
                UpdateItemError::ConditionalCheckFailedException(
                    ConditionalCheckFailedException::builder().meta(meta).build(),
                )
            });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&looked]), "cases");
        let first = [(Key::new("web", "Membership"), json!("InService"))].into();
        assert!(!table.keep_ahead(&target(), "detach-autoscaling", &first, None).await.expect("asked"));
        assert_eq!(looked.num_calls(), 1);
    }

    #[tokio::test]
    async fn more_values_than_an_expression_holds_go_in_several_calls() {
        let rule = mock!(Client::update_item).then_output(|| UpdateItemOutput::builder().build());
        let table =
            CaseTable::new(mock_client!(aws_sdk_dynamodb, aws_smithy_mocks::RuleMode::MatchAny, [&rule]), "cases");
        let found =
            (0..KEYS_A_CALL * 2 + 1).map(|n| (Key::new(format!("vol-{n}"), "DeleteOnTermination"), json!(true)));
        table.keep_first(&target(), "preserve-volumes", &found.collect()).await.expect("kept");
        assert_eq!(rule.num_calls(), 3);
    }
}
