//! The result of a fleet: one object per batch in the evidence bucket, and one of all instances.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::Client;
use containment::{Error, Outcome, Result};
use evidence::{Bucket, fleet_prefix};
use futures::stream::{self, StreamExt, TryStreamExt};
use runtime::Aws;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use verdict::{Counts, ExecutionReport, InstanceReport, LeftOut, Verdict, Word, Workflow};

use crate::event::{BatchEnd, Event, Fleet};
use crate::report;
use crate::table::{bounded, start_not_announced};

/// How many objects are read at a time.
const AT_ONCE: usize = 32;

/// The execution's output and the notification carry this many instances, the worst of them first
/// (aws-behaviour#state-size).
const SHOWN_AT_MOST: usize = 100;
const SHOWN_BYTES_AT_MOST: usize = 120_000;

/// How many open lines of one instance its row has.
const OPEN_AT_MOST: usize = 3;

/// The fleet's folder in the evidence bucket.
pub(crate) struct Folder {
    s3: Client,
    name: String,
    bucket: Bucket,
    prefix: String,
}

/// What `prepare-fleet` wrote: the instances of each batch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    batches: BTreeMap<usize, Vec<String>>,
}

/// What a batch's execution left: its report, whole.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchReport {
    execution: String,
    #[serde(flatten)]
    report: ExecutionReport,
}

/// What became of a fleet, with every instance in short.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct FleetReport<'a> {
    id: &'a str,
    execution: &'a str,
    verdict: Verdict,
    counts: &'a Counts,
    problems: &'a [String],
    instances: &'a [Row],
    left_out: &'a [LeftOut],
}

/// One instance of the fleet in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    instance_id: String,
    account_id: String,
    region: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    case_id: Option<String>,
    verdict: Word<Verdict>,
    open: Vec<String>,
    /// The batch's number: its object has all steps with their changes.
    batch: usize,
    /// The batch's execution, where it left a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<String>,
}

impl Folder {
    pub(crate) fn of(aws: &Aws, id: &str) -> Result<Folder> {
        let name = aws.required("EVIDENCE_BUCKET")?;
        Ok(Folder { s3: Client::new(aws.home()), name, bucket: Bucket::of(aws)?, prefix: fleet_prefix(id) })
    }

    fn batch_key(&self, number: usize) -> String {
        format!("{}/batches/{number:05}.json", self.prefix)
    }

    /// Puts a batch's whole report into the bucket, and answers without what the fleet's execution has no room for.
    pub(crate) async fn put(&self, number: usize, event: Event) -> Result<ExecutionReport> {
        let execution = event.execution.clone();
        let whole = BatchReport { execution, report: report(event) };
        let body = json!(whole).to_string().into_bytes();
        let mut report = whole.report;
        report.results = Some(self.bucket.write(self.batch_key(number), "application/json", body).await?);
        for instance in &mut report.instances {
            instance.facts = json!({});
            instance.evidence.clear();
            for step in &mut instance.steps {
                step.changes.clear();
                step.residual_risk.clear();
            }
        }
        Ok(report)
    }

    /// Reads what all batches left, and puts what became of every instance into the bucket.
    pub(crate) async fn combined(&self, fleet: Fleet, event: Event) -> Result<ExecutionReport> {
        let failure = fleet.failure.clone().map(Outcome::from);
        let list: List = match self.get(&format!("{}/fleet.json", self.prefix)).await {
            Ok(list) => list,
            // It was not even written: nothing of the fleet was touched.
            Err(error) if failure.is_none() => return Err(error),
            Err(_) => List { batches: BTreeMap::new() },
        };
        let there = self.keys().await?;
        let reported = list.batches.keys().filter(|number| there.contains(&self.batch_key(**number)));
        let reads: Vec<_> =
            reported.map(|number| async { Ok((*number, self.get(&self.batch_key(*number)).await?)) }).collect();
        let reports: BTreeMap<usize, BatchReport> = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        let (rows, left_out) = rows(&fleet, &list, reports, failure.as_ref());
        self.conclude(&fleet, event, rows, left_out, failure).await
    }

    async fn conclude(
        &self,
        fleet: &Fleet,
        event: Event,
        mut rows: Vec<Row>,
        mut left_out: Vec<LeftOut>,
        failure: Option<Outcome>,
    ) -> Result<ExecutionReport> {
        let workflow = Workflow::Contain;
        rows.sort_by_key(|row| (workflow.read(&row.verdict), row.batch));
        left_out.sort_by_key(|left| !left.has_failed());
        left_out.extend(event.left_out);
        let of_left_out =
            left_out.iter().map(|left| if left.has_failed() { workflow.worst() } else { workflow.nothing() });
        let verdicts: Vec<Word<Verdict>> =
            rows.iter().map(|row| row.verdict.clone()).chain(of_left_out.map(Word::from)).collect();
        let mut counts = Counts { instances: fleet.instances, ..Counts::default() };
        verdicts.iter().for_each(|verdict| *counts.verdicts.entry(verdict.as_str().to_owned()).or_default() += 1);
        let (verdict, succeeded) = match failure {
            Some(_) => (workflow.worst(), false),
            None => workflow.conclude(&verdicts, event.dry_run),
        };
        let whole = json!(FleetReport {
            id: &fleet.id,
            execution: &event.execution,
            verdict,
            counts: &counts,
            problems: &fleet.problems,
            instances: &rows,
            left_out: &left_out,
        });
        let key = format!("{}/instances.json", self.prefix);
        let written = self.bucket.write(key, "application/json", whole.to_string().into_bytes()).await;
        let mut table = vec![heading(fleet, &counts)];
        table.extend(start_not_announced(event.told.map(Outcome::from).as_ref()));
        table.extend(failure.map(|f| format!("{} Failed: {}", f.step, f.reason.unwrap_or_default())));
        table.extend(fleet.problems.iter().map(|problem| format!("prepare-fleet: {problem}")));
        table.push(match &written {
            Ok(pointer) => format!("all instances: s3://{}/{}", pointer.bucket, pointer.key),
            Err(error) => format!("the list of all instances could not be stored: {error}"),
        });
        let is_bad = |row: &&Row| !row.verdict.known().is_some_and(Verdict::is_as_asked);
        table.extend(rows.iter().filter(is_bad).flat_map(lines));
        table.extend(left_out.iter().filter(|left| left.has_failed()).map(|left| {
            let place = [left.instance_id.as_deref(), left.region.as_deref()].into_iter().flatten();
            format!("{}: {}: {}", place.collect::<Vec<_>>().join(" in "), workflow.worst(), left.reason)
        }));
        // Without a stored list there is nowhere to read the whole result: that is no success either.
        let succeeded = succeeded && written.is_ok();
        left_out.truncate(SHOWN_AT_MOST);
        Ok(ExecutionReport {
            verdict: verdict.into(),
            succeeded,
            instances: shown(&rows),
            left_out,
            table: bounded(&table),
            counts: Some(counts),
            results: written.ok(),
        })
    }

    async fn keys(&self) -> Result<BTreeSet<String>> {
        let prefix = format!("{}/batches/", self.prefix);
        let mut pages = self.s3.list_objects_v2().bucket(&self.name).prefix(&prefix).into_paginator().send();
        let mut keys = BTreeSet::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(Error::aws("s3:ListBucket", format!("{}/{prefix}", self.name)))?;
            keys.extend(page.contents().iter().filter_map(|object| object.key.clone()));
        }
        Ok(keys)
    }

    async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let place = format!("{}/{key}", self.name);
        let reply = self.s3.get_object().bucket(&self.name).key(key).send().await;
        let body = reply.map_err(Error::aws("s3:GetObject", &place))?.body;
        // A conflict, so that the workflow tries again.
        let bytes = body.collect().await.map_err(|e| Error::Conflict(format!("reading {place} was cut short: {e}")))?;
        serde_json::from_slice(&bytes.into_bytes())
            .map_err(|error| Error::Misconfigured(format!("{place} is not what Cordon writes there: {error}")))
    }
}

/// A row for every instance of the list: what its batch reported, or that it reported nothing. None is ever missing.
fn rows(
    fleet: &Fleet,
    list: &List,
    mut reports: BTreeMap<usize, BatchReport>,
    failure: Option<&Outcome>,
) -> (Vec<Row>, Vec<LeftOut>) {
    let ends: BTreeMap<usize, &BatchEnd> = fleet.ends.iter().map(|end| (end.number, end)).collect();
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for (number, ids) in &list.batches {
        let mut missing: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let (execution, report) = match reports.remove(number) {
            Some(BatchReport { execution, report }) => (Some(execution), report),
            None => (None, ExecutionReport::default()),
        };
        for instance in report.instances {
            let row = row(instance, fleet, *number, execution.clone());
            if missing.remove(row.instance_id.as_str()) {
                rows.push(row);
            }
        }
        for left in report.left_out {
            if left.instance_id.as_deref().is_some_and(|id| missing.remove(id)) {
                left_out.push(left);
            }
        }
        let why = unreported(*number, ends.get(number).copied(), failure);
        rows.extend(missing.into_iter().map(|id| Row {
            instance_id: id.to_owned(),
            account_id: fleet.account_id.clone(),
            region: fleet.region.clone(),
            case_id: None,
            verdict: Workflow::Contain.worst().into(),
            open: vec![why.clone()],
            batch: *number,
            execution: execution.clone(),
        }));
    }
    (rows, left_out)
}

fn row(instance: InstanceReport, fleet: &Fleet, batch: usize, execution: Option<String>) -> Row {
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    Row {
        instance_id: instance.instance_id,
        account_id: or(instance.account_id, &fleet.account_id),
        region: or(instance.region, &fleet.region),
        case_id: instance.case_id,
        verdict: match instance.verdict {
            Word::Unknown(text) if text.is_empty() => Workflow::Contain.worst().into(),
            verdict => verdict,
        },
        open: instance.open.iter().take(OPEN_AT_MOST).map(|line| line.chars().take(300).collect()).collect(),
        batch,
        execution,
    }
}

fn unreported(number: usize, end: Option<&BatchEnd>, failure: Option<&Outcome>) -> String {
    let how = match end {
        Some(BatchEnd { status: Some(status), .. }) => format!("its execution ended {status}"),
        Some(BatchEnd { error: Some(error), cause, .. }) => {
            format!("{error}: {}", cause.as_deref().unwrap_or("no cause given"))
        }
        _ => match failure {
            Some(failure) => {
                format!("the fleet stopped early: {}", failure.reason.as_deref().unwrap_or("no reason given"))
            }
            None => "nothing is known of its execution".to_owned(),
        },
    };
    format!("batch {number} left no report of it: {how}; treat it as not contained, and run it again")
}

/// The first of them, as the output of any containment has an instance.
fn shown(rows: &[Row]) -> Vec<InstanceReport> {
    let mut bytes = 0;
    let shown = rows.iter().take(SHOWN_AT_MOST).map(|row| {
        let Row { instance_id, account_id, region, case_id, verdict, open, batch, execution } = row.clone();
        InstanceReport {
            instance_id,
            account_id,
            region,
            case_id,
            verdict,
            open,
            batch: Some(batch),
            execution,
            facts: json!({}),
            ..InstanceReport::default()
        }
    });
    let fits = |report: &InstanceReport| {
        bytes += json!(report).to_string().len();
        bytes <= SHOWN_BYTES_AT_MOST
    };
    shown.take_while(fits).collect()
}

fn heading(fleet: &Fleet, counts: &Counts) -> String {
    let counts: Vec<String> = counts.verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    format!("fleet of {} instances in {}: {}", fleet.instances, fleet.region, counts.join(", "))
}

fn lines(row: &Row) -> Vec<String> {
    let place = format!("{} in {}: {}", row.instance_id, row.region, row.verdict);
    std::iter::once(place).chain(row.open.iter().map(|line| format!("  {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::operation::get_object::GetObjectOutput;
    use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
    use aws_sdk_s3::operation::put_object::PutObjectOutput;
    use aws_sdk_s3::primitives::ByteStream;
    use aws_sdk_s3::types::Object;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use runtime::Caller;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    fn folder(rules: &[&Rule]) -> Folder {
        let s3 = mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules);
        Folder {
            bucket: Bucket::new(s3.clone(), "evidence", Caller::default()),
            s3,
            name: "evidence".into(),
            prefix: fleet_prefix("f-1"),
        }
    }

    fn listed(numbers: &'static [usize]) -> Rule {
        mock!(Client::list_objects_v2).match_requests(|r| r.prefix() == Some("fleets/f-1/batches/")).then_output(
            move || {
                let key = |n: &usize| Object::builder().key(format!("fleets/f-1/batches/{n:05}.json")).build();
                ListObjectsV2Output::builder().set_contents(Some(numbers.iter().map(key).collect())).build()
            },
        )
    }

    fn object(key: &'static str, content: Value) -> Rule {
        mock!(Client::get_object).match_requests(move |r| r.key() == Some(key)).then_output(move || {
            GetObjectOutput::builder().body(ByteStream::from(content.to_string().into_bytes())).build()
        })
    }

    fn kept(into: Arc<Mutex<Vec<Value>>>) -> Rule {
        mock!(Client::put_object)
            .match_requests(move |r| {
                let body = r.body().bytes().map(|bytes| serde_json::from_slice(bytes).expect("JSON"));
                into.lock().expect("lock").extend(body);
                true
            })
            .then_output(|| PutObjectOutput::builder().version_id("v1").build())
    }

    fn instance(id: &str, verdict: &str) -> Value {
        json!({ "InstanceId": id, "AccountId": "123456789012", "Region": "eu-west-1", "CaseId": format!("{id}-c"),
                "Verdict": verdict, "Open": [], "Steps": [{ "Step": "isolate-network", "Status": "Done" }] })
    }

    fn event(more: Value) -> (Fleet, Event) {
        let mut fleet = json!({ "Id": "f-1", "AccountId": "123456789012", "Region": "eu-west-1", "Instances": 4 });
        fleet.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        let event = json!({ "Instances": [], "Execution": "arn:fleet" });
        (serde_json::from_value(fleet).expect("a fleet"), serde_json::from_value(event).expect("an event"))
    }

    fn list() -> Rule {
        object("fleets/f-1/fleet.json", json!({ "Batches": { "0": ["i-1", "i-2"], "1": ["i-3", "i-4"] } }))
    }

    #[tokio::test]
    async fn every_instance_of_a_batch_that_broke_is_listed_and_none_is_lost() {
        let first = json!({ "Execution": "arn:b-0", "Instances": [instance("i-1", "Contained"), instance("i-2", "Contained")] });
        let whole = Arc::new(Mutex::new(Vec::new()));
        let rules = [list(), listed(&[0]), object("fleets/f-1/batches/00000.json", first), kept(Arc::clone(&whole))];
        let (fleet, event) =
            event(json!({ "Ends": [{ "Number": 1, "Status": "ABORTED", "Error": "States.TaskFailed" }] }));
        let report = folder(&rules.iter().collect::<Vec<_>>()).combined(fleet, event).await.expect("a report");
        assert!(report.verdict == Verdict::NotContained && !report.succeeded, "{report:?}");
        let counts = [("Contained".to_owned(), 2), ("NotContained".to_owned(), 2)];
        assert_eq!(report.counts.expect("counts").verdicts, counts.into());
        assert_eq!(report.instances[0].instance_id, "i-3", "the failed ones come first");
        assert!(
            report.table.contains(
                "i-4 in eu-west-1: NotContained\n  batch 1 left no report of it: its execution ended ABORTED"
            ),
            "{}",
            report.table
        );
        assert_eq!(whole.lock().expect("lock").last().expect("written")["Instances"].as_array().map(Vec::len), Some(4));
    }

    #[tokio::test]
    async fn a_fleet_succeeds_when_all_are_contained_and_says_where_the_whole_result_is() {
        let of = |ids: [&str; 2]| json!({ "Execution": "arn:b", "Instances": ids.map(|id| instance(id, "Contained")) });
        let rules = [
            list(),
            listed(&[0, 1]),
            kept(Arc::default()),
            object("fleets/f-1/batches/00000.json", of(["i-1", "i-2"])),
            object("fleets/f-1/batches/00001.json", of(["i-3", "i-4"])),
        ];
        let (fleet, event) = event(json!({}));
        let report = folder(&rules.iter().collect::<Vec<_>>()).combined(fleet, event).await.expect("a report");
        assert!(report.verdict == Verdict::Contained && report.succeeded, "{report:?}");
        assert_eq!(report.results.expect("a pointer").key, "fleets/f-1/instances.json");
    }

    #[tokio::test]
    async fn what_a_batch_left_out_counts_as_in_any_containment() {
        let left = json!({ "InstanceId": "i-2", "Status": "Failed", "Reason": "it is Cordon's own" });
        let first = json!({ "Execution": "arn:b-0", "Instances": [instance("i-1", "Contained")], "LeftOut": [left] });
        let second = json!({ "Execution": "arn:b-1", "Instances": [instance("i-3", "Contained"), instance("i-4", "Contained")] });
        let rules = [
            list(),
            listed(&[0, 1]),
            kept(Arc::default()),
            object("fleets/f-1/batches/00000.json", first),
            object("fleets/f-1/batches/00001.json", second),
        ];
        let (fleet, event) = event(json!({}));
        let report = folder(&rules.iter().collect::<Vec<_>>()).combined(fleet, event).await.expect("a report");
        assert!(report.verdict == Verdict::NotContained && report.left_out.len() == 1, "{report:?}");
        assert!(report.table.contains("i-2: NotContained: it is Cordon's own"), "{}", report.table);
    }

    #[tokio::test]
    async fn a_fleet_that_could_not_be_prepared_fails_with_the_reason() {
        let failure =
            json!({ "Step": "prepare-fleet", "Error": "AccessDenied", "Cause": "ec2:DescribeInstances: denied" });
        let rules = [list(), listed(&[]), kept(Arc::default())];
        let (fleet, event) = event(json!({ "Failure": failure }));
        let report = folder(&rules.iter().collect::<Vec<_>>()).combined(fleet, event).await.expect("a report");
        assert!(!report.succeeded);
        assert!(
            report.table.contains("prepare-fleet Failed: AccessDenied: ec2:DescribeInstances: denied"),
            "{}",
            report.table
        );
    }

    #[test]
    fn the_output_of_the_largest_fleet_is_bounded_even_when_everything_failed() {
        let row = Row {
            instance_id: "i-0123456789abcdef0".into(),
            account_id: "123456789012".into(),
            region: "ap-northeast-1".into(),
            case_id: None,
            verdict: Verdict::NotContained.into(),
            open: vec!["壊".repeat(300); OPEN_AT_MOST],
            batch: 7,
            execution: Some("a".repeat(200)),
        };
        let shown = shown(&vec![row.clone(); 10_000]);
        let table = bounded(&std::iter::repeat_n(&row, 10_000).flat_map(lines).collect::<Vec<_>>());
        assert!(table.chars().count() < 32_768);
        assert!(
            json!(shown).to_string().len() + table.len() < 220_000,
            "{}",
            json!(shown).to_string().len() + table.len()
        );
    }
}
