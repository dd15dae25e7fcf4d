//! Follows an execution: reads what is new in its history until it has ended. Changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sfn::Client;
use aws_sdk_sfn::operation::describe_execution::DescribeExecutionOutput;
use aws_sdk_sfn::types::{ExecutionStatus, HistoryEvent};
use containment::{Error, Result};
use serde_json::Value;

use crate::home::part_of_arn;
use crate::outcome::{Ended, Output};
use crate::progress::{Line, Progress};

/// Between two polls. Both calls have token buckets that everybody in the account and Region shares, so polls get rarer the
/// longer nothing happens: snapshots can take hours.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(10);

/// DescribeExecution is eventually consistent: a new execution may take a moment to appear.
const POLLS_FOR_A_NEW_ONE: u32 = 10;

/// Polls that may fail in a row, on top of the SDK's own retries.
const FAILURES_IN_A_ROW: u32 = 5;

/// The most events that a page can have.
const PAGE: i32 = 1000;

/// What a running execution has to report.
#[derive(Debug)]
pub enum Update<'a> {
    /// A state was entered or left.
    State(&'a Line),
    /// The progress of a Distributed Map, whose items run in executions of their own.
    Items(&'a Items),
    /// That progress could not be read; the rest is still followed.
    Uncounted(&'a Error),
}

/// The progress of a Distributed Map's items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Items {
    /// The Map's name in the state machine.
    pub map: String,
    /// All of them.
    pub total: i64,
    /// Those not started yet.
    pub pending: i64,
    /// Those running.
    pub running: i64,
    /// Those whose executions succeeded.
    pub succeeded: i64,
    /// Those whose executions failed, timed out or were stopped.
    pub failed: i64,
}

/// Follows the execution to its end and reports what is new at each poll. `new` says that it was started just now.
///
/// Errors: that of a call that keeps failing; the execution goes on regardless.
pub async fn follow(sfn: &Client, arn: &str, new: bool, mut report: impl FnMut(Update<'_>)) -> Result<Ended> {
    let (mut progress, mut items) = (Progress::default(), Elsewhere::default());
    let (mut pause, mut failures, mut polls) = (SOON, 0, 0);
    loop {
        polls += 1;
        match poll(sfn, arn, &mut progress, &mut items, &mut report).await {
            Ok((described, _)) if has_ended(&described) => return Ok(ended(described, &progress)),
            Ok((_, news)) => {
                failures = 0;
                pause = if news { SOON } else { (pause + pause / 2).min(LATER) };
            }
            Err(error) if error.code() == Some("ExecutionDoesNotExist") && new && polls < POLLS_FOR_A_NEW_ONE => {}
            Err(error) if error.is_transient() && failures < FAILURES_IN_A_ROW => {
                failures += 1;
                pause = LATER;
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
    }
}

/// One poll; answers whether anything was new.
async fn poll(
    sfn: &Client,
    arn: &str,
    progress: &mut Progress,
    elsewhere: &mut Elsewhere,
    report: &mut impl FnMut(Update<'_>),
) -> Result<(DescribeExecutionOutput, bool)> {
    // Before the history, or its last events could be missed.
    let described = describe(sfn, arn).await?;
    let events = newer(sfn, arn, progress.last()).await?;
    let mut news = !events.is_empty();
    for event in &events {
        if let Some(line) = progress.take(event) {
            report(Update::State(&line));
        }
    }
    if progress.has_items_elsewhere() && !elsewhere.uncounted {
        match map_runs(sfn, arn).await {
            Ok(runs) => {
                for (run, now) in runs {
                    if elsewhere.known.get(&run) != Some(&now) {
                        report(Update::Items(&now));
                        elsewhere.known.insert(run, now);
                        news = true;
                    }
                }
            }
            Err(error) if error.is_transient() => {}
            Err(error) => {
                elsewhere.uncounted = true;
                report(Update::Uncounted(&error));
            }
        }
    }
    Ok((described, news))
}

/// What was reported of items that run in executions of their own.
#[derive(Debug, Default)]
struct Elsewhere {
    /// By the ARN of the Map's run.
    known: BTreeMap<String, Items>,
    /// Whether they cannot be read.
    uncounted: bool,
}

/// What Step Functions says of the execution now.
pub async fn describe(sfn: &Client, arn: &str) -> Result<DescribeExecutionOutput> {
    let sent = sfn.describe_execution().execution_arn(arn).send().await;
    sent.map_err(Error::aws("states:DescribeExecution", arn))
}

/// The events after one, oldest first. They are read from the end, so that polling a long history is quick.
async fn newer(sfn: &Client, arn: &str, than: i64) -> Result<Vec<HistoryEvent>> {
    let ask = sfn.get_execution_history().execution_arn(arn).reverse_order(true).max_results(PAGE);
    let mut pages = ask.include_execution_data(true).into_paginator().send();
    let mut events = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(Error::aws("states:GetExecutionHistory", arn))?;
        let known = page.events.iter().any(|event| event.id() <= than);
        events.extend(page.events.into_iter().filter(|event| event.id() > than));
        if known {
            break;
        }
    }
    events.reverse();
    Ok(events)
}

/// The runs of the execution's Distributed Maps.
async fn map_runs(sfn: &Client, arn: &str) -> Result<Vec<(String, Items)>> {
    let mut found = Vec::new();
    let mut pages = sfn.list_map_runs().execution_arn(arn).into_paginator().send();
    while let Some(page) = pages.next().await {
        for run in page.map_err(Error::aws("states:ListMapRuns", arn))?.map_runs {
            let run = run.map_run_arn;
            let sent = sfn.describe_map_run().map_run_arn(&run).send().await;
            let described = sent.map_err(Error::aws("states:DescribeMapRun", &run))?;
            let Some(counts) = described.item_counts() else { continue };
            // arn:…:mapRun:MACHINE/LABEL:UUID
            let label = part_of_arn(&run, 6).and_then(|name| name.split('/').nth(1)).unwrap_or_default();
            let items = Items {
                map: label.to_owned(),
                total: counts.total(),
                pending: counts.pending(),
                running: counts.running(),
                succeeded: counts.succeeded(),
                failed: counts.failed() + counts.timed_out() + counts.aborted(),
            };
            found.push((run, items));
        }
    }
    Ok(found)
}

fn has_ended(described: &DescribeExecutionOutput) -> bool {
    !matches!(described.status, ExecutionStatus::Running | ExecutionStatus::PendingRedrive)
}

/// How an execution ended that need not be followed: its history is read only if its output does not say everything.
pub async fn look_back(sfn: &Client, arn: &str) -> Result<Option<Ended>> {
    let described = describe(sfn, arn).await?;
    if !has_ended(&described) {
        return Ok(None);
    }
    let mut progress = Progress::default();
    if described.status != ExecutionStatus::Succeeded {
        for event in newer(sfn, arn, 0).await? {
            progress.take(&event);
        }
    }
    Ok(Some(ended(described, &progress)))
}

fn ended(described: DescribeExecutionOutput, progress: &Progress) -> Ended {
    let output = described.output().and_then(|output| serde_json::from_str::<Value>(output).ok());
    let (start, stop) = (described.start_date(), described.stop_date());
    Ended {
        arn: described.execution_arn().to_owned(),
        status: described.status().as_str().to_owned(),
        started: Some(*start),
        stopped: stop.copied(),
        error: described.error().map(ToOwned::to_owned),
        cause: described.cause().map(ToOwned::to_owned),
        // An execution that failed has no output, but its report says what was done.
        output: output.or_else(|| progress.report().cloned()).map(Output::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::RECORDED;
    use aws_sdk_sfn::operation::describe_execution::DescribeExecutionError;
    use aws_sdk_sfn::operation::describe_map_run::DescribeMapRunOutput;
    use aws_sdk_sfn::operation::get_execution_history::GetExecutionHistoryOutput;
    use aws_sdk_sfn::operation::list_map_runs::{ListMapRunsError, ListMapRunsOutput};
    use aws_sdk_sfn::types::builders::{MapRunItemCountsBuilder, StateEnteredEventDetailsBuilder};
    use aws_sdk_sfn::types::{HistoryEventType, MapRunExecutionCounts, MapRunListItem, MapRunStatus};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use aws_smithy_runtime_api::http::{Response, StatusCode};
    use aws_smithy_types::DateTime;
    use aws_smithy_types::error::ErrorMetadata;

    const ARN: &str = "arn:aws:states:eu-west-1:123456789012:execution:cordon-contain:x";

    fn described(status: &str) -> DescribeExecutionOutput {
        let times =
            DescribeExecutionOutput::builder().start_date(DateTime::from_secs(0)).stop_date(DateTime::from_secs(9));
        let named = times.execution_arn(ARN).state_machine_arn("arn:machine");
        named.status(ExecutionStatus::from(status)).build().expect("complete")
    }

    fn map_entered(id: i64) -> HistoryEvent {
        let map = StateEnteredEventDetailsBuilder::default().name("Batches").build().expect("a name");
        let event = HistoryEvent::builder().id(id).timestamp(DateTime::from_secs(0));
        event.r#type(HistoryEventType::MapStateEntered).state_entered_event_details(map).build().expect("complete")
    }

    fn statuses(statuses: &'static [&'static str]) -> Rule {
        let mut rule = mock!(Client::describe_execution).sequence();
        for status in statuses {
            rule = rule.output(|| described(status));
        }
        rule.build()
    }

    /// What was reported, without the events' times.
    async fn reported(rules: &[&Rule]) -> (Result<Ended>, Vec<String>) {
        let client = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, rules);
        let mut reported = Vec::new();
        let ended = follow(&client, ARN, true, |update| {
            reported.push(match update {
                Update::State(line) => line.state.clone(),
                Update::Items(items) => format!("{}/{} of {}", items.succeeded, items.total, items.map),
                Update::Uncounted(error) => error.to_string(),
            });
        });
        (ended.await, reported)
    }

    /// The recorded history from its end, as it was asked for, in pages of ten events.
    fn history() -> Rule {
        let recorded: Value = serde_json::from_str(RECORDED).expect("JSON");
        let newest_first: Vec<Value> = recorded["events"].as_array().expect("events").iter().rev().cloned().collect();
        let pages: Vec<Vec<Value>> = newest_first.chunks(10).map(<[Value]>::to_vec).collect();
        let mut rule = mock!(Client::get_execution_history)
            .match_requests(|r| r.reverse_order() == Some(true) && r.include_execution_data() == Some(true))
            .sequence();
        let last = pages.len() - 1;
        for (n, page) in pages.into_iter().enumerate() {
            let token = if n < last { serde_json::json!(format!("page {}", n + 1)) } else { Value::Null };
            let body = serde_json::json!({ "events": page, "nextToken": token }).to_string();
            let status = StatusCode::try_from(200).expect("a status");
            rule = rule.http_response(move || Response::new(status, body.clone().into()));
        }
        rule.build()
    }

    #[tokio::test(start_paused = true)]
    async fn an_execution_that_failed_is_followed_page_by_page_and_its_report_is_the_output() {
        let (ended, reported) = reported(&[&statuses(&["FAILED"]), &history()]).await;
        let ended = ended.expect("followed");
        assert_eq!(
            (reported.first().map(String::as_str), reported.last().map(String::as_str)),
            (Some("Validate input"), Some("Report"))
        );
        assert_eq!(ended.status, "FAILED");
        assert_eq!(ended.document()["Output"]["Verdict"], "Contained");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_reported_twice_and_items_elsewhere_are_counted_when_they_change() {
        let page = |events: Vec<HistoryEvent>| {
            GetExecutionHistoryOutput::builder().set_events(Some(events)).build().expect("events")
        };
        let history = mock!(Client::get_execution_history).then_output(move || page(vec![map_entered(1)]));
        let run = "arn:aws:states:eu-west-1:123456789012:mapRun:cordon-contain/Batches:r";
        let runs = mock!(Client::list_map_runs).then_output(move || {
            let run = MapRunListItem::builder().map_run_arn(run).execution_arn(ARN).state_machine_arn("arn:m");
            let run = run.start_date(DateTime::from_secs(0)).build().expect("complete");
            ListMapRunsOutput::builder().map_runs(run).build().expect("runs")
        });
        let counted = move |succeeded: i64| {
            let none = MapRunItemCountsBuilder::default()
                .pending(0)
                .running(0)
                .failed(0)
                .timed_out(0)
                .aborted(0)
                .results_written(0);
            let counts = none.succeeded(succeeded).total(3).build();
            let run = DescribeMapRunOutput::builder().map_run_arn(run).execution_arn(ARN).item_counts(counts);
            let run = run.status(MapRunStatus::Running).start_date(DateTime::from_secs(0)).max_concurrency(0);
            let run = run.tolerated_failure_count(0).tolerated_failure_percentage(0.0);
            run.execution_counts(MapRunExecutionCounts::builder().build()).build().expect("complete")
        };
        let rule = mock!(Client::describe_map_run).sequence();
        let counts = rule.output(move || counted(1)).output(move || counted(1)).output(move || counted(3)).build();
        let (ended, reported) =
            reported(&[&statuses(&["RUNNING", "RUNNING", "SUCCEEDED"]), &history, &runs, &counts]).await;
        assert_eq!(ended.expect("followed").status, "SUCCEEDED");
        assert_eq!(reported, ["1/3 of Batches", "3/3 of Batches"]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_permission_to_count_items_elsewhere_the_rest_is_still_followed() {
        let page = || GetExecutionHistoryOutput::builder().events(map_entered(1)).build().expect("events");
        let history = mock!(Client::get_execution_history).then_output(page);
        let denied = mock!(Client::list_map_runs)
            .then_error(|| ListMapRunsError::generic(ErrorMetadata::builder().code("AccessDeniedException").build()));
        let (ended, reported) = reported(&[&statuses(&["RUNNING", "RUNNING", "SUCCEEDED"]), &history, &denied]).await;
        assert!(ended.is_ok());
        assert_eq!(reported.len(), 1);
        assert!(reported[0].starts_with("states:ListMapRuns on arn:aws:states:"), "{reported:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_execution_may_appear_late_and_a_missing_old_one_is_an_error() {
        let missing =
            || DescribeExecutionError::generic(ErrorMetadata::builder().code("ExecutionDoesNotExist").build());
        let rule = mock!(Client::describe_execution).sequence().error(missing).output(|| described("ABORTED")).build();
        let empty = || GetExecutionHistoryOutput::builder().set_events(Some(Vec::new())).build().expect("events");
        let history = mock!(Client::get_execution_history).then_output(empty);
        assert_eq!(reported(&[&rule, &history]).await.0.expect("it showed").status, "ABORTED");
        let client = mock_client!(aws_sdk_sfn, [&mock!(Client::describe_execution).then_error(missing)]);
        let error = follow(&client, ARN, false, |_| {}).await.expect_err("there is none");
        assert_eq!(error.code(), Some("ExecutionDoesNotExist"));
    }
}
