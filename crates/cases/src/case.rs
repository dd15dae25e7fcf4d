//! The case of an instance: who contains it, which findings named it, what a person said, how it stands, who released it.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;
use containment::{Error, Result, Target};

use crate::CaseTable;

/// The case of an instance: at most one is open, from the first containment until the release. The next containment puts
/// a new case in the place of a released one, whose journal and evidence stay under its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// The case's name.
    pub id: String,
    /// The execution that holds the case. It is one containment at a time: whoever wants to act first takes the case
    /// over, on condition that the holder is still the one that was seen to have ended.
    pub execution: String,
    /// When the holder took it, in seconds since 1970.
    pub held_since: i64,
    /// What became of the question whether to contain: `Pending`, `Approved`, `Refused`, `Unanswered`.
    pub approval: Option<String>,
    /// The last verdict on the instance.
    pub verdict: Option<String>,
    /// The findings that named the instance.
    pub findings: BTreeSet<String>,
    /// Those that a person has been asked about: a refusal is about them and about no others.
    pub asked_about: BTreeSet<String>,
    /// Who released the instance, and when; absent for as long as the case is open.
    pub released: Option<Released>,
}

/// The end of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// When, in UTC: `2026-11-21T03:00:07Z`.
    pub at: String,
    /// The execution that did it, an ARN.
    pub execution: String,
}

/// What the responders have laid down about an instance, in their own account: whoever owns the instance's account can
/// edit its tags, so a tag protects nothing and nobody (aws-behaviour#tags).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guardrail {
    /// `Protected`: a person is asked before it is contained. `Cordon`: it is Cordon's own, and is never contained.
    pub rule: String,
    /// Why, for the person who is asked.
    pub reason: String,
}

/// Now, as a case's times are: in seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

pub(crate) const CASE: &str = "case";
const GUARDRAIL: &str = "guardrail";

/// What the attribute `Status` of a case has.
const OPEN: &str = "Open";
const RELEASED: &str = "Released";

impl Case {
    /// Whether a step for this target acts in this case, and for the execution that holds it. A function that somebody
    /// runs by hand names no execution.
    pub fn is_held_for(&self, target: &Target) -> bool {
        self.id == target.case_id && target.execution.as_ref().is_none_or(|execution| *execution == self.execution)
    }
}

impl CaseTable {
    /// The instance's open case, if there is one.
    pub async fn case(&self, target: &Target) -> Result<Option<Case>> {
        Ok(self.last_case(target).await?.filter(|case| case.released.is_none()))
    }

    /// The instance's case, open or released.
    pub async fn last_case(&self, target: &Target) -> Result<Option<Case>> {
        let item = self.record(target, CASE).await?;
        let text = |name: &str| item.get(name).and_then(|v| v.as_s().ok()).cloned();
        let Some(id) = text("CaseId") else { return Ok(None) };
        let held_since = item.get("HeldSince").and_then(|v| v.as_n().ok()).and_then(|n| n.parse().ok());
        let set = |name: &str| item.get(name).and_then(|v| v.as_ss().ok()).into_iter().flatten().cloned().collect();
        let released = (text("Status").as_deref() == Some(RELEASED)).then(|| Released {
            at: text("ReleasedAt").unwrap_or_default(),
            execution: text("ReleasedBy").unwrap_or_default(),
        });
        Ok(Some(Case {
            id,
            released,
            execution: text("Execution").unwrap_or_default(),
            held_since: held_since.unwrap_or_default(),
            approval: text("Approval"),
            verdict: text("Verdict"),
            findings: set("Findings"),
            asked_about: set("AskedAbout"),
        }))
    }

    /// What is laid down about the instance, if anything.
    pub async fn guardrail(&self, target: &Target) -> Result<Option<Guardrail>> {
        let item = self.record(target, GUARDRAIL).await?;
        let text = |name: &str| item.get(name).and_then(|v| v.as_s().ok()).cloned();
        let reason = text("Reason").unwrap_or_else(|| "no reason is given".to_owned());
        Ok(text("Rule").map(|rule| Guardrail { rule, reason }))
    }

    /// Opens a case, in the place of a released one if there is one; false when one is open by now: another execution's,
    /// or this one's, whose answer was lost.
    pub async fn open(&self, target: &Target, case: &Case) -> Result<bool> {
        let mut put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("Instance", text(&target.key()))
            .item("Record", text(CASE))
            .item("CaseId", text(&case.id))
            .item("Status", text(OPEN))
            .item("Execution", text(&case.execution))
            .item("HeldSince", AttributeValue::N(case.held_since.to_string()));
        if let Some(approval) = &case.approval {
            put = put.item("Approval", text(approval));
        }
        for (name, findings) in [("Findings", &case.findings), ("AskedAbout", &case.asked_about)] {
            if !findings.is_empty() {
                put = put.item(name, set(findings));
            }
        }
        let put = put
            .condition_expression("attribute_not_exists(CaseId) OR #status = :released")
            .expression_attribute_names("#status", "Status") // a word that DynamoDB keeps for itself
            .expression_attribute_values(":released", text(RELEASED));
        let sent = put.send().await;
        held(sent.map_err(Error::aws("dynamodb:PutItem", &self.table)))
    }

    /// Takes over a case from the execution, and in the state of its question, that `seen` has; false when it is
    /// another's by now, or this one's, whose answer was lost, or released, or when the question has been answered since.
    /// Adds the new holder's findings.
    pub async fn take_over(&self, target: &Target, seen: &Case, new: &Case) -> Result<bool> {
        let mut values = HashMap::from([
            (":seen".to_owned(), text(&seen.execution)),
            (":execution".to_owned(), text(&new.execution)),
            (":since".to_owned(), AttributeValue::N(new.held_since.to_string())),
        ]);
        let unanswered = match &seen.approval {
            Some(approval) => {
                values.insert(":asked".to_owned(), text(approval));
                "Approval = :asked"
            }
            None => "attribute_not_exists(Approval)",
        };
        let mut update = "SET Execution = :execution, HeldSince = :since".to_owned();
        match &new.approval {
            Some(approval) => {
                values.insert(":approval".to_owned(), text(approval));
                update += ", Approval = :approval REMOVE Verdict";
            }
            None => update += " REMOVE Verdict, Approval",
        }
        // What somebody has begun to release is not to be contained again because it changes.
        if target.release.is_some() {
            update += ", WatchedSince";
        }
        let mut additions = Vec::new();
        for (name, value, findings) in
            [("Findings", ":findings", &new.findings), ("AskedAbout", ":about", &new.asked_about)]
        {
            if !findings.is_empty() {
                values.insert(value.to_owned(), set(findings));
                additions.push(format!("{name} {value}"));
            }
        }
        if !additions.is_empty() {
            update += &format!(" ADD {}", additions.join(", "));
        }
        let condition = format!("Execution = :seen AND {unanswered} AND attribute_not_exists(ReleasedAt)");
        self.update(target, &update, &condition, values).await
    }

    /// Adds findings to the open case, whoever holds it.
    pub async fn add_findings(&self, target: &Target, findings: &BTreeSet<String>) -> Result<()> {
        if findings.is_empty() {
            return Ok(());
        }
        let values = HashMap::from([(":findings".to_owned(), set(findings))]);
        self.update(target, "ADD Findings :findings", "attribute_exists(CaseId)", values).await.map(|_| ())
    }

    /// Notes the verdict; false when another execution has taken the case over, whose verdict will count.
    pub async fn note_verdict(&self, target: &Target, verdict: &str) -> Result<bool> {
        let execution = target.execution.as_deref().unwrap_or_default();
        let values =
            HashMap::from([(":verdict".to_owned(), text(verdict)), (":execution".to_owned(), text(execution))]);
        self.update(target, "SET Verdict = :verdict", "Execution = :execution", values).await
    }

    /// Closes the case: the instance is released. The time is in UTC, as ISO 8601. False when another execution has taken
    /// the case over. Closing a case again that the same execution has closed leaves it as it was.
    pub async fn close(&self, target: &Target, released_at: &str) -> Result<bool> {
        let execution = target.execution.as_deref().unwrap_or_default();
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("Instance", text(&target.key()))
            .key("Record", text(CASE))
            .update_expression(
                "SET #status = :released, ReleasedAt = if_not_exists(ReleasedAt, :at), ReleasedBy = :execution",
            )
            .condition_expression("Execution = :execution AND CaseId = :case")
            .expression_attribute_names("#status", "Status")
            .expression_attribute_values(":released", text(RELEASED))
            .expression_attribute_values(":at", text(released_at))
            .expression_attribute_values(":execution", text(execution))
            .expression_attribute_values(":case", text(&target.case_id))
            .send()
            .await;
        held(sent.map_err(Error::aws("dynamodb:UpdateItem", &self.table)))
    }

    /// Counts instances that are contained without a person in this hour (such as `2026-11-21T03`); false, and nothing
    /// counted, when that would be more than the limit.
    pub async fn count_automatic(&self, hour: &str, instances: usize, at_most: usize) -> Result<bool> {
        let Some(room) = at_most.checked_sub(instances) else { return Ok(false) };
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("Instance", text("automatic"))
            .key("Record", text(hour))
            .update_expression("ADD Instances :instances")
            .condition_expression("attribute_not_exists(Instances) OR Instances <= :room")
            .expression_attribute_values(":instances", AttributeValue::N(instances.to_string()))
            .expression_attribute_values(":room", AttributeValue::N(room.to_string()))
            .send()
            .await;
        held(sent.map_err(Error::aws("dynamodb:UpdateItem", &self.table)))
    }

    pub(crate) async fn update(
        &self,
        target: &Target,
        update: &str,
        condition: &str,
        values: HashMap<String, AttributeValue>,
    ) -> Result<bool> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("Instance", text(&target.key()))
            .key("Record", text(CASE))
            .update_expression(update)
            .condition_expression(condition)
            .set_expression_attribute_values(Some(values))
            .send()
            .await;
        held(sent.map_err(Error::aws("dynamodb:UpdateItem", &self.table)))
    }
}

pub(crate) fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn set(values: &BTreeSet<String>) -> AttributeValue {
    AttributeValue::Ss(values.iter().cloned().collect())
}

/// Whether a conditional write's condition held.
pub(crate) fn held<T>(sent: Result<T>) -> Result<bool> {
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::operation::put_item::{PutItemError, PutItemOutput};
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;

    fn case() -> Case {
        Case { id: "c-1".into(), execution: "arn:first".into(), held_since: 7, ..Case::default() }
    }

    fn condition_failed() -> ConditionalCheckFailedException {
        let meta = ErrorMetadata::builder().code("ConditionalCheckFailedException").build();
        ConditionalCheckFailedException::builder().meta(meta).build()
    }

    #[tokio::test]
    async fn two_executions_that_open_a_case_at_once_leave_one_case() {
        let taken = mock!(Client::put_item)
            .match_requests(|r| r.condition_expression() == Some("attribute_not_exists(CaseId) OR #status = :released"))
            .then_error(|| PutItemError::ConditionalCheckFailedException(condition_failed()));
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&taken]), "cases");
        assert!(!table.open(&Target::example(), &case()).await.expect("asked"));
    }

    #[tokio::test]
    async fn a_new_case_names_its_holder_and_the_findings_and_says_when_a_person_is_being_asked() {
        let rule = mock!(Client::put_item)
            .match_requests(|r| {
                let item = r.item().expect("item");
                item["Execution"] == text("arn:first")
                    && item["Approval"] == text("Pending")
                    && item["Findings"] == AttributeValue::Ss(vec!["f-1".into()])
            })
            .then_output(|| PutItemOutput::builder().build());
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let asked = Case { approval: Some("Pending".into()), findings: BTreeSet::from(["f-1".to_owned()]), ..case() };
        assert!(table.open(&Target::example(), &asked).await.expect("opened"));
    }

    #[tokio::test]
    async fn a_case_is_taken_over_only_from_the_holder_that_was_seen_and_before_the_answer_came() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let values = r.expression_attribute_values().expect("values");
                r.condition_expression()
                    == Some("Execution = :seen AND Approval = :asked AND attribute_not_exists(ReleasedAt)")
                    && values[":seen"] == text("arn:first")
                    && r.update_expression()
                        == Some("SET Execution = :execution, HeldSince = :since REMOVE Verdict, Approval")
            })
            .then_error(|| UpdateItemError::ConditionalCheckFailedException(condition_failed()));
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let seen = Case { approval: Some("Pending".into()), ..case() };
        let new = Case { execution: "arn:second".into(), ..case() };
        assert!(!table.take_over(&Target::example(), &seen, &new).await.expect("asked"));
    }

    #[test]
    fn a_case_is_held_for_the_execution_that_took_it_last_and_for_no_earlier_one() {
        let target = |case: &str, execution: Option<&str>| Target {
            case_id: case.into(),
            execution: execution.map(ToOwned::to_owned),
            ..Target::example()
        };
        assert!(case().is_held_for(&target("c-1", Some("arn:first"))) && case().is_held_for(&target("c-1", None)));
        assert!(!case().is_held_for(&target("c-1", Some("arn:stopped"))));
        assert!(!case().is_held_for(&target("c-0", Some("arn:first"))));
    }

    #[tokio::test]
    async fn an_instance_whose_release_begins_is_no_longer_watched() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                r.update_expression().is_some_and(|u| u.ends_with("REMOVE Verdict, Approval, WatchedSince"))
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let released = Target { release: Some(vec!["isolate-network".into()]), ..Target::example() };
        assert!(table.take_over(&released, &case(), &case()).await.expect("taken"));
    }

    #[tokio::test]
    async fn a_case_is_read_back_as_it_was_written() {
        let rule = mock!(Client::get_item).then_output(|| {
            let item = [
                ("CaseId", text("c-1")),
                ("Execution", text("arn:first")),
                ("HeldSince", AttributeValue::N("7".into())),
                ("Verdict", text("Contained")),
                ("Findings", AttributeValue::Ss(vec!["f-1".into()])),
            ];
            let item = item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            GetItemOutput::builder().set_item(Some(item)).build()
        });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let read = table.case(&Target::example()).await.expect("read").expect("a case");
        let written =
            Case { verdict: Some("Contained".into()), findings: BTreeSet::from(["f-1".to_owned()]), ..case() };
        assert_eq!(read, written);
    }

    fn item(more: &[(&str, &str)]) -> GetItemOutput {
        let fields = [("CaseId", "c-1"), ("Execution", "arn:first")];
        let fields = fields.iter().chain(more).map(|(name, value)| ((*name).to_owned(), text(value)));
        GetItemOutput::builder().set_item(Some(fields.collect())).build()
    }

    #[tokio::test]
    async fn a_released_case_is_no_open_one_and_still_says_when_and_by_whom_it_was_released() {
        let rule = mock!(Client::get_item).then_output(|| {
            item(&[
                ("Status", "Released"),
                ("ReleasedAt", "2026-11-21T03:00:07Z"),
                ("ReleasedBy", "arn:release"),
                ("Verdict", "Released"),
            ])
        });
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&rule]), "cases");
        assert_eq!(table.case(&Target::example()).await.expect("read"), None);
        let released = table.last_case(&Target::example()).await.expect("read").expect("a case").released;
        let wanted = Released { at: "2026-11-21T03:00:07Z".into(), execution: "arn:release".into() };
        assert_eq!(released, Some(wanted));
    }

    #[tokio::test]
    async fn a_case_without_a_status_or_with_another_one_is_open() {
        for more in [&[][..], &[("Status", "Open")]] {
            let rule = mock!(Client::get_item).then_output(move || item(more));
            let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
            assert!(table.case(&Target::example()).await.expect("read").is_some());
        }
    }

    #[tokio::test]
    async fn a_case_is_closed_only_by_the_execution_that_holds_it() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let values = r.expression_attribute_values().expect("values");
                r.condition_expression() == Some("Execution = :execution AND CaseId = :case")
                    && values[":execution"] == text("arn:release")
                    && values[":case"] == text("c-1")
                    && values[":at"] == text("2026-11-21T03:00:07Z")
            })
            .then_error(|| UpdateItemError::ConditionalCheckFailedException(condition_failed()));
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let target = Target { execution: Some("arn:release".into()), ..Target::example() };
        assert!(!table.close(&target, "2026-11-21T03:00:07Z").await.expect("asked"));
        assert_eq!(rule.num_calls(), 1);
    }

    #[tokio::test]
    async fn automatic_containments_are_counted_on_condition_that_there_is_room() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                r.expression_attribute_values().expect("values")[":room"] == AttributeValue::N("7".into())
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        assert!(table.count_automatic("2026-11-21T03", 3, 10).await.expect("counted"));
        assert!(!table.count_automatic("2026-11-21T03", 11, 10).await.expect("no room at all"));
        assert_eq!(rule.num_calls(), 1);
    }
}
