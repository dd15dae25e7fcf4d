//! The case of an instance: who holds it, which findings named the instance, what a person decided, how the instance stands,
//! and who released it.

use std::collections::BTreeSet;

use containment::{Error, Result, Target};

use crate::{CaseTable, Item, Update, held, number, set, text};

/// The case of an instance. At most one is open, from the first containment until the release. The next containment replaces
/// a released case in the table; the released case's journal and evidence stay, under its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// The case's name.
    pub id: String,
    /// The holder: the ARN of the execution that has taken the case. Only one execution at a time acts on the instance;
    /// another one first takes the case over, on condition that the holder is still the one that it found ended.
    pub execution: String,
    /// When the holder took the case, in seconds since 1970.
    pub held_since: i64,
    /// The state of the request for approval: `Pending`, `Approved`, `Refused`, `Unanswered`; absent if nobody was
    /// asked.
    pub approval: Option<String>,
    /// The last verdict on the instance; absent until the holder has one.
    pub verdict: Option<String>,
    /// The findings that named the instance.
    pub findings: BTreeSet<String>,
    /// The findings that a person was asked about. A refusal is about these and no others.
    pub asked_about: BTreeSet<String>,
    /// The release; absent while the case is open.
    pub released: Option<Released>,
}

/// The release that closed a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// When, in UTC: `2026-11-21T03:00:07Z`.
    pub at: String,
    /// The ARN of the execution that did it.
    pub execution: String,
}

/// The record of an instance's last case.
pub(crate) const CASE: &str = "case";

/// The attribute `Status` of a case.
pub(crate) const OPEN: &str = "Open";
const RELEASED: &str = "Released";

/// The attribute for the time since which the instance is monitored. It keeps the name of the first version, whose
/// cases are still in tables.
pub(crate) const MONITORED_SINCE: &str = "WatchedSince";

impl Case {
    /// A case from its item; none if there is no item.
    pub(crate) fn read(item: &Item) -> Option<Case> {
        let released = || Released {
            at: item.text("ReleasedAt").unwrap_or_default(),
            execution: item.text("ReleasedBy").unwrap_or_default(),
        };
        Some(Case {
            id: item.text("CaseId")?,
            execution: item.text("Execution").unwrap_or_default(),
            held_since: item.number("HeldSince").unwrap_or_default(),
            approval: item.text("Approval"),
            verdict: item.text("Verdict"),
            findings: item.set("Findings"),
            asked_about: item.set("AskedAbout"),
            released: (item.text("Status").as_deref() == Some(RELEASED)).then(released),
        })
    }

    /// Whether a step for this target acts in this case, and for the execution that holds it. A function that somebody
    /// invokes directly names no execution.
    pub fn is_held_for(&self, target: &Target) -> bool {
        self.id == target.case_id && target.execution.as_ref().is_none_or(|execution| *execution == self.execution)
    }
}

impl CaseTable {
    /// The instance's open case, if it has one.
    pub async fn case(&self, target: &Target) -> Result<Option<Case>> {
        Ok(self.last_case(target).await?.filter(|case| case.released.is_none()))
    }

    /// The instance's last case, open or released.
    pub async fn last_case(&self, target: &Target) -> Result<Option<Case>> {
        Ok(Case::read(&self.item(&target.key(), CASE).await?))
    }

    /// Opens a case, and replaces a released one. False, and nothing written, if a case is already open: another
    /// execution's, or this one's from an earlier try whose answer was lost.
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
            .item("HeldSince", number(case.held_since));
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
            .expression_attribute_names("#status", "Status") // a reserved word of DynamoDB's
            .expression_attribute_values(":released", text(RELEASED));
        held(put.send().await.map_err(Error::aws("dynamodb:PutItem", &self.table)))
    }

    /// Takes a case over for the execution of `new`, with its findings added, from the holder and with the approval
    /// that `seen` has. False, and nothing written, if either has changed since, or the case was released. A release
    /// ends the monitoring of the instance.
    pub async fn take_over(&self, target: &Target, seen: &Case, new: &Case) -> Result<bool> {
        let mut update = Update::default()
            .set("Execution", text(&new.execution))
            .set("HeldSince", number(new.held_since))
            .remove("Verdict")
            .if_equal("Execution", text(&seen.execution));
        update = match &seen.approval {
            Some(approval) => update.if_equal("Approval", text(approval)),
            None => update.if_absent("Approval"),
        };
        update = match &new.approval {
            Some(approval) => update.set("Approval", text(approval)),
            None => update.remove("Approval"),
        };
        if target.release.is_some() {
            update = update.remove(MONITORED_SINCE);
        }
        for (name, findings) in [("Findings", &new.findings), ("AskedAbout", &new.asked_about)] {
            if !findings.is_empty() {
                update = update.add(name, set(findings));
            }
        }
        self.update(&target.key(), CASE, update.if_absent("ReleasedAt")).await
    }

    /// Adds findings to the instance's case, regardless of its holder. Writes nothing without findings.
    pub async fn add_findings(&self, target: &Target, findings: &BTreeSet<String>) -> Result<()> {
        if findings.is_empty() {
            return Ok(());
        }
        let update = Update::default().add("Findings", set(findings)).if_present("CaseId");
        self.update(&target.key(), CASE, update).await.map(|_| ())
    }

    /// Notes the verdict. False, and nothing written, if another execution has taken the case over: its verdict will
    /// count.
    pub async fn note_verdict(&self, target: &Target, verdict: &str) -> Result<bool> {
        let update = Update::default().set("Verdict", text(verdict));
        self.update(&target.key(), CASE, update.if_equal("Execution", text(holder(target)))).await
    }

    /// Closes the case: the instance is released, at this time (ISO 8601, UTC). False, and nothing written, if another
    /// execution has taken the case over. The execution that has closed it may close it again, which changes nothing.
    pub async fn close(&self, target: &Target, released_at: &str) -> Result<bool> {
        let update = Update::default()
            .set("Status", text(RELEASED))
            .set_once("ReleasedAt", text(released_at))
            .set("ReleasedBy", text(holder(target)))
            .if_equal("Execution", text(holder(target)))
            .if_equal("CaseId", text(&target.case_id));
        self.update(&target.key(), CASE, update).await
    }

    /// Counts automatic containments in this clock hour (such as `2026-11-21T03`). False, and nothing
    /// counted, if that would exceed the limit.
    pub async fn count_automatic(&self, hour: &str, instances: usize, at_most: usize) -> Result<bool> {
        let Some(room) = at_most.checked_sub(instances) else { return Ok(false) };
        let update = Update::default().add("Instances", number(instances)).if_at_most("Instances", number(room));
        self.update("automatic", hour, update).await
    }
}

/// The execution that the target is handled for.
pub(crate) fn holder(target: &Target) -> &str {
    target.execution.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::spelled_out;
    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
    use aws_sdk_dynamodb::operation::put_item::{PutItemError, PutItemOutput};
    use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
    use aws_sdk_dynamodb::types::AttributeValue;
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
    async fn a_new_case_names_its_holder_and_findings_and_a_pending_approval() {
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
    async fn a_case_is_taken_over_only_from_the_holder_and_approval_that_were_read() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let (update, condition) = spelled_out(r);
                condition == "Execution = 'arn:first' AND Approval = 'Pending' AND attribute_not_exists(ReleasedAt)"
                    && update == "SET Execution = 'arn:second', HeldSince = 7 REMOVE Verdict, Approval"
            })
            .then_error(|| UpdateItemError::ConditionalCheckFailedException(condition_failed()));
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let seen = Case { approval: Some("Pending".into()), ..case() };
        let new = Case { execution: "arn:second".into(), ..case() };
        assert!(!table.take_over(&Target::example(), &seen, &new).await.expect("asked"));
    }

    #[test]
    fn a_case_is_held_only_for_the_execution_that_took_it_last() {
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
    async fn once_a_release_starts_drift_detection_stops() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| spelled_out(r).0.contains(" REMOVE Verdict, Approval, WatchedSince"))
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
    async fn a_released_case_is_not_open_and_keeps_its_time_and_execution() {
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
    async fn a_case_with_a_missing_or_unknown_status_is_open() {
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
                let (update, condition) = spelled_out(r);
                condition == "Execution = 'arn:release' AND CaseId = 'c-1'"
                    && update.contains("ReleasedAt = if_not_exists(ReleasedAt, '2026-11-21T03:00:07Z')")
                    && update.contains("Status = 'Released'")
            })
            .then_error(|| UpdateItemError::ConditionalCheckFailedException(condition_failed()));
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        let target = Target { execution: Some("arn:release".into()), ..Target::example() };
        assert!(!table.close(&target, "2026-11-21T03:00:07Z").await.expect("asked"));
        assert_eq!(rule.num_calls(), 1);
    }

    #[tokio::test]
    async fn automatic_containments_are_counted_only_below_the_limit() {
        let rule = mock!(Client::update_item)
            .match_requests(|r| {
                let (update, condition) = spelled_out(r);
                update == "ADD Instances 3" && condition == "(attribute_not_exists(Instances) OR Instances <= 7)"
            })
            .then_output(|| UpdateItemOutput::builder().build());
        let table = CaseTable::new(mock_client!(aws_sdk_dynamodb, [&rule]), "cases");
        assert!(table.count_automatic("2026-11-21T03", 3, 10).await.expect("counted"));
        assert!(!table.count_automatic("2026-11-21T03", 11, 10).await.expect("no room at all"));
        assert_eq!(rule.num_calls(), 1);
    }
}
