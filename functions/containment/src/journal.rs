//! Where "before" is kept: write-once, ahead of the first change (traps H8, L1).

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::future::Future;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use serde_json::Value;

use crate::{Error, Key, Result, Target};

/// First values by key; null where there was none.
pub type First = BTreeMap<Key, Value>;

/// A write-once memory of what each step of a case found first.
pub trait Journal: Sync {
    /// What the step found first, so far.
    fn first(&self, target: &Target, step: &str) -> impl Future<Output = Result<First>> + Send;

    /// Keeps each value unless the key has one already; answers what is kept.
    fn keep_first(&self, target: &Target, step: &str, found: &First) -> impl Future<Output = Result<First>> + Send;
}

/// The case table in DynamoDB. Key: `Instance` (account/Region/id) and `Record` (`case`, `guardrail`, or
/// `journal#CASE#STEP`).
///
/// A journal record has one attribute for each key, `RESOURCE|ATTRIBUTE`, holding the first value as JSON text;
/// `if_not_exists` makes each of them write-once, in one call, whatever runs at the same time.
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

fn first_values(item: &HashMap<String, AttributeValue>) -> Result<First> {
    let values = item.iter().filter_map(|(name, value)| Some((Key::from_text(name)?, value.as_s().ok()?)));
    values
        .map(|(key, text)| {
            let value = serde_json::from_str(text).map_err(|error| {
                Error::Misconfigured(format!("the journal of {} is not JSON: {error}", key.resource))
            })?;
            Ok((key, value))
        })
        .collect()
}

impl Journal for CaseTable {
    async fn first(&self, target: &Target, step: &str) -> Result<First> {
        first_values(&self.record(target, &journal_record(target, step)).await?)
    }

    async fn keep_first(&self, target: &Target, step: &str, found: &First) -> Result<First> {
        let mut kept = First::new();
        let entries: Vec<(&Key, &Value)> = found.iter().collect();
        for entries in entries.chunks(KEYS_A_CALL) {
            let mut update = self
                .client
                .update_item()
                .table_name(&self.table)
                .key("Instance", AttributeValue::S(target.key()))
                .key("Record", AttributeValue::S(journal_record(target, step)))
                .return_values(ReturnValue::AllNew);
            let mut assignments = Vec::new();
            for (n, (key, value)) in entries.iter().enumerate() {
                assignments.push(format!("#k{n} = if_not_exists(#k{n}, :v{n})"));
                update = update
                    .expression_attribute_names(format!("#k{n}"), key.to_text())
                    .expression_attribute_values(format!(":v{n}"), AttributeValue::S(value.to_string()));
            }
            let reply = update
                .update_expression(format!("SET {}", assignments.join(", ")))
                .send()
                .await
                .map_err(Error::aws("dynamodb:UpdateItem", &self.table))?;
            kept.append(&mut first_values(&reply.attributes.unwrap_or_default())?);
        }
        Ok(kept)
    }
}

/// A journal in memory, for tests of the loop.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Memory(std::sync::Mutex<HashMap<String, First>>);

#[cfg(test)]
impl Journal for Memory {
    async fn first(&self, target: &Target, step: &str) -> Result<First> {
        Ok(self.0.lock().expect("lock").get(&journal_record(target, step)).cloned().unwrap_or_default())
    }

    async fn keep_first(&self, target: &Target, step: &str, found: &First) -> Result<First> {
        let mut all = self.0.lock().expect("lock");
        let kept = all.entry(journal_record(target, step)).or_default();
        for (key, value) in found {
            kept.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Ok(kept.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::operation::update_item::UpdateItemOutput;
    use aws_smithy_mocks::{mock, mock_client};
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
