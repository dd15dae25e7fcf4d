//! The journal of a case, in the case table.

use aws_sdk_dynamodb::types::ReturnValue;
use containment::{Error, Journal, Journaled, Key, Result, Target};

use crate::{CaseTable, Item, Update, held, text};

/// An update expression has 4 KB, an assignment here some 35 bytes.
const KEYS_A_CALL: usize = 80;

/// The attribute of the baseline.
const BASELINE: &str = "Seen";

impl CaseTable {
    async fn write_once(&self, target: &Target, step: &str, new: &Journaled, only_ahead: bool) -> Result<Journaled> {
        let mut all = Journaled::default();
        let entries = attributes(new)?;
        for entries in entries.chunks(KEYS_A_CALL) {
            let update =
                entries.iter().fold(Update::default(), |update, (name, json)| update.set_once(name, text(json)));
            let update = if only_ahead { update.if_absent(BASELINE) } else { update };
            let call = self.client.update_item().table_name(&self.table).return_values(ReturnValue::AllNew);
            let call = call.key("Instance", text(&target.key())).key("Record", text(&journal_record(target, step)));
            let reply = update.apply(call).send().await.map_err(Error::aws("dynamodb:UpdateItem", &self.table))?;
            all = journaled(&Item::from(reply.attributes.unwrap_or_default()))?;
        }
        Ok(all)
    }
}

impl Journal for CaseTable {
    async fn read(&self, target: &Target, step: &str) -> Result<Journaled> {
        journaled(&self.item(&target.key(), &journal_record(target, step)).await?)
    }

    async fn keep(&self, target: &Target, step: &str, new: &Journaled) -> Result<Journaled> {
        self.write_once(target, step, new, false).await
    }

    /// Reads and writes in one call, because isolation waits for it.
    async fn keep_ahead(&self, target: &Target, step: &str, new: &Journaled) -> Result<bool> {
        held(self.write_once(target, step, new, true).await)
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

fn journaled(item: &Item) -> Result<Journaled> {
    let unreadable = |of: &str, error| Error::Misconfigured(format!("the journal of {of} is not JSON: {error}"));
    let mut journaled = Journaled::default();
    for (name, text) in item.texts() {
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
    use crate::update::spelled_out;
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::AttributeValue;
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;
    use containment::First;
    use serde_json::{Value, json};

    fn target() -> Target {
        Target::example()
    }

    #[tokio::test]
    async fn a_first_value_is_written_only_once() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                spelled_out(r).0 == r#"SET eni-1|Groups = if_not_exists(eni-1|Groups, '["sg-second"]')"#
                    && r.key().expect("key")["Record"] == AttributeValue::S("journal#c-1#isolate-network".into())
            })
            .then_output(|| {
                let kept = AttributeValue::S(r#"["sg-first"]"#.into());
                UpdateItemOutput::builder().attributes("eni-1|Groups", kept).build()
            });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let found = First::from([(Key::new("eni-1", "Groups"), json!(["sg-second"]))]);
        let held = table.keep(&target(), "isolate-network", &found.into()).await.expect("kept");
        assert_eq!(held.first[&Key::new("eni-1", "Groups")], json!(["sg-first"]), "the first value stays");
    }

    #[tokio::test]
    async fn a_baseline_is_written_once_and_apart_from_the_first_values() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let baseline = r#"'{"vol-1|DeleteOnTermination":true,"vol-2|DeleteOnTermination":false}'"#;
                let first = "vol-1|DeleteOnTermination = if_not_exists(vol-1|DeleteOnTermination, 'true')";
                spelled_out(r).0 == format!("SET {first}, Seen = if_not_exists(Seen, {baseline})")
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
    async fn values_kept_ahead_of_a_step_take_one_call_before_its_first_run() {
        let has_run = mock!(Client::update_item)
            .match_requests(|r| spelled_out(r).1 == "attribute_not_exists(Seen)")
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
