//! The result of a fleet: one object per batch in the evidence bucket, and one of all instances.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::Client;
use containment::{Error, Outcome, Result, Status};
use evidence::{Bucket, fleet_prefix};
use futures::stream::{self, StreamExt, TryStreamExt};
use runtime::Aws;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{BatchEnd, Event, Fleet, LeftOut, Report, Workflow, bounded, conclude, report};

/// How many objects are read at a time.
const AT_ONCE: usize = 32;

/// The execution's output and the notification carry so many instances, the worst of them first (trap H3).
const SHOWN_AT_MOST: usize = 100;
const SHOWN_BYTES_AT_MOST: usize = 120_000;

/// What is left open of one instance, in a row.
const OPEN_AT_MOST: usize = 3;

/// The fleet's folder in the evidence bucket.
pub(crate) struct Folder {
    s3: Client,
    name: String,
    bucket: Bucket,
    prefix: String,
}

/// What prepare-fleet has written down.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    batches: BTreeMap<usize, Vec<String>>,
}

/// What a batch's execution has left.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Left {
    execution: String,
    #[serde(default)]
    instances: Vec<Value>,
    #[serde(default)]
    left_out: Vec<LeftOut>,
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
    verdict: String,
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
    pub(crate) async fn put(&self, number: usize, event: Event) -> Result<Report> {
        let execution = event.execution.clone();
        let mut report = report(event);
        let mut whole = json!(report);
        whole["Execution"] = json!(execution);
        let key = self.batch_key(number);
        report.results = Some(self.bucket.write(key, "application/json", whole.to_string().into_bytes()).await?);
        for instance in report.instances.iter_mut().filter_map(Value::as_object_mut) {
            instance.insert("Facts".to_owned(), json!({}));
            instance.insert("Evidence".to_owned(), json!([]));
            let steps = instance.get_mut("Steps").and_then(Value::as_array_mut);
            for step in steps.into_iter().flatten().filter_map(Value::as_object_mut) {
                step.insert("Changes".to_owned(), json!([]));
                step.insert("ResidualRisk".to_owned(), json!([]));
            }
        }
        Ok(report)
    }

    /// Reads what all batches have left, and puts what became of every instance into the bucket.
    pub(crate) async fn combined(&self, fleet: Fleet, event: Event) -> Result<Report> {
        let failure = fleet.failure.clone().map(Outcome::from);
        let list: List = match self.get(&format!("{}/fleet.json", self.prefix)).await {
            Ok(list) => list,
            // It was not even written down: nothing of it was touched.
            Err(error) if failure.is_none() => return Err(error),
            Err(_) => List { batches: BTreeMap::new() },
        };
        let there = self.keys().await?;
        let left = list.batches.keys().filter(|number| there.contains(&self.batch_key(**number)));
        let reads = left.map(|number| async { Ok((*number, self.get::<Left>(&self.batch_key(*number)).await?)) });
        let reads: Vec<_> = reads.collect();
        let left: BTreeMap<usize, Left> = stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await?;
        let (rows, left_out) = rows(&fleet, &list, left, failure.as_ref());
        self.conclude(fleet, event, rows, left_out, failure).await
    }

    async fn conclude(
        &self,
        fleet: Fleet,
        event: Event,
        mut rows: Vec<Row>,
        mut left_out: Vec<LeftOut>,
        failure: Option<Outcome>,
    ) -> Result<Report> {
        rows.sort_by_key(|row| (rank(&row.verdict), row.batch));
        left_out.sort_by_key(|left| left.status != Status::Failed);
        left_out.extend(event.left_out);
        let of_left_out =
            left_out.iter().map(|l| if l.status == Status::Failed { "NotContained" } else { "NothingDone" });
        let verdicts: Vec<&str> = rows.iter().map(|row| row.verdict.as_str()).chain(of_left_out).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        verdicts.iter().for_each(|verdict| *counts.entry(*verdict).or_default() += 1);
        let counts = json!({ "Instances": fleet.instances, "Verdicts": counts });
        let (verdict, succeeded) = match failure {
            Some(_) => ("NotContained", false),
            None => conclude(verdicts, Workflow::Contain, event.dry_run),
        };
        let whole = json!({
            "Id": fleet.id, "Execution": event.execution, "Verdict": verdict, "Counts": counts,
            "Problems": fleet.problems, "Instances": rows, "LeftOut": left_out,
        });
        let key = format!("{}/instances.json", self.prefix);
        let written = self.bucket.write(key, "application/json", whole.to_string().into_bytes()).await;
        let told = event.told.map(Outcome::from).filter(|told| told.status == Status::Failed);
        let mut table = vec![heading(&fleet, &counts)];
        table.extend(
            told.map(|told| format!("nobody could be told that it begins: {}", told.reason.unwrap_or_default())),
        );
        table.extend(failure.map(|f| format!("{} Failed: {}", f.step, f.reason.unwrap_or_default())));
        table.extend(fleet.problems.iter().map(|problem| format!("prepare-fleet: {problem}")));
        table.push(match &written {
            Ok(pointer) => format!("all instances: s3://{}/{}", pointer.bucket, pointer.key),
            Err(error) => format!("the list of all instances could not be stored: {error}"),
        });
        let good = |verdict: &str| matches!(verdict, "Contained" | "Planned" | "NothingDone");
        table.extend(rows.iter().filter(|row| !good(&row.verdict)).flat_map(lines));
        table.extend(left_out.iter().filter(|l| l.status == Status::Failed).map(|l| {
            let place = [l.instance_id.as_deref(), l.region.as_deref()].into_iter().flatten().collect::<Vec<_>>();
            format!("{}: NotContained: {}", place.join(" in "), l.reason)
        }));
        // The pointer may be missing where the list could not be stored: that is no success either.
        let succeeded = succeeded && written.is_ok();
        left_out.truncate(SHOWN_AT_MOST);
        Ok(Report {
            verdict,
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

    async fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let place = format!("{}/{key}", self.name);
        let reply = self.s3.get_object().bucket(&self.name).key(key).send().await;
        let body = reply.map_err(Error::aws("s3:GetObject", &place))?.body;
        // Which the workflow tries again.
        let bytes = body.collect().await.map_err(|e| Error::Conflict(format!("reading {place} broke off: {e}")))?;
        serde_json::from_slice(&bytes.into_bytes())
            .map_err(|error| Error::Misconfigured(format!("{place} is not what Cordon writes there: {error}")))
    }
}

/// A row for every instance of the list: what its batch reported, or that it reported nothing. None is ever missing.
fn rows(
    fleet: &Fleet,
    list: &List,
    mut left: BTreeMap<usize, Left>,
    failure: Option<&Outcome>,
) -> (Vec<Row>, Vec<LeftOut>) {
    let ends: BTreeMap<usize, &BatchEnd> = fleet.ends.iter().map(|end| (end.number, end)).collect();
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for (number, ids) in &list.batches {
        let left = left.remove(number);
        let mut missing: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let execution = left.as_ref().map(|left| left.execution.clone());
        let (instances, out) = left.map(|left| (left.instances, left.left_out)).unwrap_or_default();
        for instance in instances {
            let row = row(&instance, fleet, *number, execution.clone());
            if missing.remove(row.instance_id.as_str()) {
                rows.push(row);
            }
        }
        for out in out {
            if out.instance_id.as_deref().is_some_and(|id| missing.remove(id)) {
                left_out.push(out);
            }
        }
        let why = unreported(*number, ends.get(number).copied(), failure);
        rows.extend(missing.into_iter().map(|id| Row {
            instance_id: id.to_owned(),
            account_id: fleet.account_id.clone(),
            region: fleet.region.clone(),
            case_id: None,
            verdict: "NotContained".to_owned(),
            open: vec![why.clone()],
            batch: *number,
            execution: execution.clone(),
        }));
    }
    (rows, left_out)
}

fn row(instance: &Value, fleet: &Fleet, batch: usize, execution: Option<String>) -> Row {
    let text = |name: &str| instance[name].as_str().map(ToOwned::to_owned);
    let open = instance["Open"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Row {
        instance_id: text("InstanceId").unwrap_or_default(),
        account_id: text("AccountId").unwrap_or_else(|| fleet.account_id.clone()),
        region: text("Region").unwrap_or_else(|| fleet.region.clone()),
        case_id: text("CaseId"),
        verdict: text("Verdict").unwrap_or_else(|| "NotContained".to_owned()),
        open: open.take(OPEN_AT_MOST).map(|line| line.chars().take(300).collect()).collect(),
        batch,
        execution,
    }
}

fn unreported(number: usize, end: Option<&BatchEnd>, failure: Option<&Outcome>) -> String {
    let how = match end {
        Some(BatchEnd { status: Some(status), .. }) => format!("its execution ended {status}"),
        Some(BatchEnd { error: Some(error), cause, .. }) => {
            format!("{error}: {}", cause.as_deref().unwrap_or("without a cause"))
        }
        _ => match failure {
            Some(failure) => {
                format!("the fleet broke off: {}", failure.reason.as_deref().unwrap_or("without a reason"))
            }
            None => "nothing is known of its execution".to_owned(),
        },
    };
    format!("batch {number} gave no report of it: {how}; take it as not contained, and run it again")
}

/// The first of them, as the output of any containment has an instance.
fn shown(rows: &[Row]) -> Vec<Value> {
    let mut bytes = 0;
    let shown = rows.iter().take(SHOWN_AT_MOST).map(|row| {
        let mut shown = json!(row);
        for empty in ["ResidualRisk", "Steps", "Evidence"] {
            shown[empty] = json!([]);
        }
        shown["Facts"] = json!({});
        shown
    });
    let fits = |row: &Value| {
        bytes += row.to_string().len();
        bytes <= SHOWN_BYTES_AT_MOST
    };
    shown.take_while(fits).collect()
}

fn heading(fleet: &Fleet, counts: &Value) -> String {
    let counts = counts["Verdicts"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts.map(|(verdict, count)| format!("{count} {verdict}")).collect();
    format!("a fleet of {} instances in {}: {}", fleet.instances, fleet.region, counts.join(", "))
}

fn lines(row: &Row) -> Vec<String> {
    let place = format!("{} in {}: {}", row.instance_id, row.region, row.verdict);
    std::iter::once(place).chain(row.open.iter().map(|line| format!("  {line}"))).collect()
}

/// A verdict's place from worst to best; one that nobody knows is as bad as the worst.
fn rank(verdict: &str) -> usize {
    Workflow::Contain.verdicts().iter().position(|known| *known == verdict).unwrap_or_default()
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
    async fn a_batch_that_broke_is_listed_instance_by_instance_and_none_is_lost() {
        let first = json!({ "Execution": "arn:b-0", "Instances": [instance("i-1", "Contained"), instance("i-2", "Contained")] });
        let whole = Arc::new(Mutex::new(Vec::new()));
        let rules = [list(), listed(&[0]), object("fleets/f-1/batches/00000.json", first), kept(Arc::clone(&whole))];
        let (fleet, event) =
            event(json!({ "Ends": [{ "Number": 1, "Status": "ABORTED", "Error": "States.TaskFailed" }] }));
        let report = folder(&rules.iter().collect::<Vec<_>>()).combined(fleet, event).await.expect("a report");
        assert_eq!((report.verdict, report.succeeded), ("NotContained", false));
        assert_eq!(report.counts.expect("counts")["Verdicts"], json!({ "Contained": 2, "NotContained": 2 }));
        assert_eq!(report.instances[0]["InstanceId"], "i-3", "the failed ones come first");
        assert!(
            report.table.contains(
                "i-4 in eu-west-1: NotContained\n  batch 1 gave no report of it: its execution ended ABORTED"
            ),
            "{}",
            report.table
        );
        assert_eq!(whole.lock().expect("lock").last().expect("written")["Instances"].as_array().map(Vec::len), Some(4));
    }

    #[tokio::test]
    async fn a_fleet_of_which_every_instance_is_contained_succeeds_and_says_where_the_whole_result_is() {
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
        assert_eq!((report.verdict, report.succeeded), ("Contained", true));
        assert_eq!(report.results.expect("a pointer").key, "fleets/f-1/instances.json");
    }

    #[tokio::test]
    async fn what_a_batch_left_out_counts_as_it_does_in_any_containment() {
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
        assert_eq!((report.verdict, report.left_out.len()), ("NotContained", 1));
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
    fn the_output_of_the_largest_fleet_is_bounded_when_everything_failed() {
        let row = Row {
            instance_id: "i-0123456789abcdef0".into(),
            account_id: "123456789012".into(),
            region: "ap-northeast-1".into(),
            case_id: None,
            verdict: "NotContained".into(),
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
