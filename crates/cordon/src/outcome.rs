//! How an execution ended: its report as tables or as JSON, and the exit code.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};
use verdict::{ExecutionReport, InstanceReport, LeftOut, Verdict};

use crate::home::{RELEASE, part_of_arn};
use crate::table::{GREEN, RED, Screen, cell};
use crate::text::harmless;

/// Everything was as it should be.
pub const GOOD: u8 = 0;
/// Something is not.
pub const NOT_GOOD: u8 = 1;
/// The command was used wrongly, or its input was rejected; nothing was touched. It is clap's own code as well.
pub const REJECTED: u8 = 2;
/// AWS was unreachable, or the execution could not be followed.
pub const UNKNOWN: u8 = 3;
/// Somebody has pressed Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// More instances than this are shown in a line each.
const TABLES_AT_MOST: usize = 10;

/// An execution that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its ARN.
    pub arn: String,
    /// `SUCCEEDED`, `FAILED`, `TIMED_OUT` or `ABORTED`.
    pub status: String,
    /// When it was started.
    pub started: Option<DateTime>,
    /// When it ended.
    pub stopped: Option<DateTime>,
    /// The error of one that failed.
    pub error: Option<String>,
    /// Its cause.
    pub cause: Option<String>,
    /// The report of all instances, if the execution got that far.
    pub output: Option<Output>,
}

/// A report: as the execution wrote it, for programs, and as this version reads it.
#[derive(Debug, Clone)]
pub struct Output {
    written: Value,
    report: ExecutionReport,
}

impl From<Value> for Output {
    /// Reads what an execution wrote, which may be of another version of Cordon. One that cannot be read reassures nobody.
    fn from(written: Value) -> Self {
        let report = serde_json::from_value(written.clone()).unwrap_or_default();
        Output { written, report }
    }
}

/// A moment as AWS writes it, in UTC.
pub fn time(moment: &DateTime) -> String {
    moment.fmt(Format::DateTime).unwrap_or_default()
}

impl Ended {
    /// How long it took, in seconds.
    fn seconds(&self) -> Option<f64> {
        Some(self.stopped?.as_secs_f64() - self.started?.as_secs_f64())
    }

    fn report(&self) -> Option<&ExecutionReport> {
        self.output.as_ref().map(|output| &output.report)
    }

    fn instances(&self) -> &[InstanceReport] {
        self.report().map_or(&[], |report| &report.instances)
    }

    fn left_out(&self) -> &[LeftOut] {
        self.report().map_or(&[], |report| &report.left_out)
    }

    /// How many instances have each verdict. The output of a fleet lists only some of them, and counts all.
    fn counts(&self) -> Vec<(String, usize)> {
        if let Some(counts) = self.report().and_then(|report| report.counts.as_ref()) {
            return counts.verdicts.iter().map(|(verdict, count)| (verdict.clone(), *count)).collect();
        }
        let mut counts = Vec::<(String, usize)>::new();
        for instance in self.instances() {
            let verdict = match instance.verdict.as_str() {
                "" => "without a verdict",
                verdict => verdict,
            };
            match counts.iter_mut().find(|(known, _)| known == verdict) {
                Some((_, count)) => *count += 1,
                None => counts.push((verdict.to_owned(), 1)),
            }
        }
        counts
    }

    /// Where the whole result of a fleet lies: `s3://BUCKET/KEY`.
    fn results(&self) -> Option<String> {
        let results = self.report()?.results.as_ref()?;
        Some(format!("s3://{}/{}", harmless(&results.bucket), harmless(&results.key)))
    }

    /// The report of one instance.
    pub fn instance(&self, id: &str) -> Option<&InstanceReport> {
        self.report()?.instance(id)
    }

    /// The exit code. `asked` says that the command started the execution, so that an instance that was left out, for
    /// example because another execution holds its case, is not as it should be.
    pub fn exit_code(&self, asked: bool) -> u8 {
        if self.status == "FAILED" && self.error.as_deref() == Some("InvalidInput") {
            return REJECTED;
        }
        let verdict = self.report().and_then(|report| report.verdict.known());
        let is_as_asked = |verdict: &str| Verdict::from_name(verdict).is_some_and(Verdict::is_as_asked);
        // A release of some steps, as requested, is partial and leaves nothing open.
        let all = match verdict {
            Some(Verdict::PartiallyReleased) => self.instances().iter().all(|instance| instance.open.is_empty()),
            Some(verdict) => verdict.is_as_asked() && self.counts().iter().all(|(verdict, _)| is_as_asked(verdict)),
            None => false,
        };
        // An instance that was never contained, or is released already, is as whoever asked for its release wants it.
        let is_release = part_of_arn(&self.arn, 6).is_some_and(|machine| machine.ends_with(RELEASE));
        let nothing_left_out = !asked || is_release || self.left_out().is_empty();
        if self.status == "SUCCEEDED" && all && nothing_left_out { GOOD } else { NOT_GOOD }
    }

    /// The same for programs: the report as it was written, and the execution.
    pub fn document(&self) -> Value {
        json!({
            "ExecutionArn": self.arn, "Status": self.status, "StartDate": self.started.as_ref().map(time),
            "StopDate": self.stopped.as_ref().map(time), "Error": self.error, "Cause": self.cause,
            "Output": self.output.as_ref().map(|output| &output.written),
        })
    }

    /// The same for people: each instance's steps with their changes, what is open, and the verdict.
    pub fn in_words(&self, screen: Screen) -> String {
        let mut parts = Vec::new();
        match self.instances() {
            all if all.len() > TABLES_AT_MOST || self.results().is_some() => parts.push(in_lines(all, screen)),
            all => parts.extend(all.iter().map(|instance| in_steps(instance, screen))),
        }
        if let Some(place) = self.results() {
            parts.push(format!("Every instance, with all of its steps: aws s3 cp {place} -"));
        }
        if !self.left_out().is_empty() {
            let lines = self.left_out().iter().map(|left| format!("  - {}", left_out(left)));
            parts.push(format!("Left out:\n{}", lines.collect::<Vec<_>>().join("\n")));
        }
        if self.instances().is_empty() && self.left_out().is_empty() {
            parts.extend(self.why());
        }
        let color = if self.exit_code(false) == GOOD { GREEN } else { RED };
        parts.push(screen.in_color(&self.summary(), color));
        parts.join("\n\n") + "\n"
    }

    /// Why there is no report, line by line: a cause is a table.
    fn why(&self) -> Option<String> {
        let (error, cause) = (self.error.as_deref().unwrap_or_default(), self.cause.as_deref().unwrap_or_default());
        let said = format!("{error}: {cause}");
        let table = self.report().map(|report| report.table.as_str()).filter(|table| !table.is_empty());
        let text = table.or((said != ": ").then_some(said.as_str()))?;
        Some(text.lines().map(|line| format!("  {}", harmless(line))).collect::<Vec<_>>().join("\n"))
    }

    fn summary(&self) -> String {
        let took = self.seconds().map(|seconds| format!(" in {seconds:.1} s")).unwrap_or_default();
        let execution = format!("execution {}{took}", self.status);
        let counts = self.counts();
        let all: usize = counts.iter().map(|(_, count)| count).sum();
        let verdicts =
            counts.iter().map(|(verdict, count)| format!("{count} of {all} instances {}, ", harmless(verdict)));
        let of_none = self.report().filter(|_| counts.is_empty()).map(|report| report.verdict.as_str());
        let of_none = of_none.filter(|verdict| !verdict.is_empty());
        let of_none = of_none.map(|verdict| format!("{}, ", harmless(verdict))).unwrap_or_default();
        verdicts.collect::<String>() + &of_none + &execution
    }
}

fn left_out(left: &LeftOut) -> String {
    let what = left.instance_id.as_ref().map(|id| format!("{}: ", harmless(id))).unwrap_or_default();
    let reason = if left.reason.is_empty() { "no reason given" } else { &left.reason };
    format!("{what}{}", harmless(reason))
}

/// A text in a cell; a dash for none.
fn name(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { harmless(text) }
}

fn in_steps(instance: &InstanceReport, screen: Screen) -> String {
    let verdict = screen.colored(&name(instance.verdict.as_str()));
    let mut text = format!("{}: {verdict}\n", name(&instance.instance_id));
    text += &screen.table(&["STEP", "STATUS", "RESOURCE", "ATTRIBUTE", "BEFORE", "AFTER"], &rows(instance));
    for (title, lines) in [("Still open", &instance.open), ("Residual risk", &instance.residual_risk)] {
        let said: Vec<String> = lines.iter().map(|line| screen.two_lines(&format!("  - {}", harmless(line)))).collect();
        if !said.is_empty() {
            text += &format!("\n\n  {title}:\n{}", said.join("\n"));
        }
    }
    text
}

/// A row per change; a step without changes has one with its reason.
fn rows(instance: &InstanceReport) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for step in &instance.steps {
        let (step_name, status) = (name(&step.step), step.status.to_string());
        if step.changes.is_empty() {
            rows.push(vec![step_name.clone(), status.clone(), harmless(step.reason.as_deref().unwrap_or_default())]);
        }
        for (n, change) in step.changes.iter().enumerate() {
            let (step_name, status) = if n == 0 { (step_name.clone(), status.clone()) } else { Default::default() };
            let what = [name(&change.resource), name(&change.attribute), cell(&change.before), cell(&change.after)];
            rows.push([step_name, status].into_iter().chain(what).collect());
        }
    }
    rows
}

/// A fleet: what is open shows which instances need somebody.
fn in_lines(instances: &[InstanceReport], screen: Screen) -> String {
    let rows: Vec<Vec<String>> = instances
        .iter()
        .map(|instance| {
            let open: Vec<String> = instance.open.iter().map(|line| harmless(line)).collect();
            vec![name(&instance.instance_id), name(instance.verdict.as_str()), open.join("; ")]
        })
        .collect();
    screen.table(&["INSTANCE", "VERDICT", "STILL OPEN", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Screen = Screen { width: 120, colorful: false };

    fn ended(status: &str, output: Value) -> Ended {
        Ended {
            arn: "arn:aws:states:eu-west-1:123456789012:execution:cordon-contain:x".into(),
            status: status.into(),
            started: Some(DateTime::from_secs(1_800_000_000)),
            stopped: Some(DateTime::from_millis(1_800_000_007_200)),
            error: None,
            cause: None,
            output: Some(output.into()),
        }
    }

    fn instance(id: &str, verdict: &str) -> Value {
        let change = json!({"Resource": "eni-1", "Attribute": "Groups", "Before": ["sg-1"], "After": ["sg-2"]});
        let more = json!({"Resource": "eni-2", "Attribute": "Groups", "Before": null, "After": ["sg-2"]});
        json!({
            "InstanceId": id, "Verdict": verdict, "Open": ["detach-profile Failed: denied"], "ResidualRisk": ["DNS is not filtered"],
            "Steps": [
                {"Step": "isolate-network", "Status": "Done", "Changes": [change, more], "ResidualRisk": []},
                {"Step": "detach-profile", "Status": "Failed", "Changes": [], "ResidualRisk": [], "Reason": "denied"},
            ],
        })
    }

    #[test]
    fn each_change_is_a_row_and_a_step_without_changes_has_one_with_its_reason() {
        let ended = ended(
            "FAILED",
            json!({"Verdict": "PartiallyContained", "Instances": [instance("i-1", "PartiallyContained")]}),
        );
        let expected = "\
i-1: PartiallyContained
  STEP             STATUS  RESOURCE  ATTRIBUTE  BEFORE  AFTER
  isolate-network  Done    eni-1     Groups     sg-1    sg-2
                           eni-2     Groups     -       sg-2
  detach-profile   Failed  denied

  Still open:
  - detach-profile Failed: denied

  Residual risk:
  - DNS is not filtered

1 of 1 instances PartiallyContained, execution FAILED in 7.2 s
";
        assert_eq!(ended.in_words(PLAIN), expected);
    }

    #[test]
    fn a_fleet_has_a_line_for_each_instance_and_counts_them_by_verdict() {
        let mut fleet: Vec<Value> = (0..11).map(|n| instance(&format!("i-{n}"), "Contained")).collect();
        fleet.push(instance("i-bad", "NotContained"));
        let text = ended("FAILED", json!({"Verdict": "NotContained", "Instances": fleet})).in_words(PLAIN);
        assert!(text.contains("  i-bad     NotContained  detach-profile Failed: denied\n"), "{text}");
        assert!(
            text.contains("11 of 12 instances Contained, 1 of 12 instances NotContained, execution FAILED in"),
            "{text}"
        );
        assert!(!text.contains("eni-1"), "{text}");
    }

    #[test]
    fn the_output_of_a_fleet_lists_the_worst_counts_all_and_says_where_the_rest_is() {
        let mut output = json!({
            "Verdict": "Contained", "Instances": [{"InstanceId": "i-1", "Verdict": "Contained", "Open": [], "Batch": 0}],
            "Counts": {"Instances": 120, "Verdicts": {"Contained": 120}},
            "Results": {"Bucket": "evidence", "Key": "fleets/x/results.json"},
        });
        let fleet = ended("SUCCEEDED", output.clone());
        let text = fleet.in_words(PLAIN);
        assert!(text.contains("  i-1       Contained\n"), "{text}");
        assert!(text.contains("aws s3 cp s3://evidence/fleets/x/results.json -\n"), "{text}");
        assert!(text.ends_with("120 of 120 instances Contained, execution SUCCEEDED in 7.2 s\n"), "{text}");
        assert_eq!(fleet.exit_code(true), GOOD);
        output["Counts"]["Verdicts"] = json!({"Contained": 119, "NotContained": 1});
        assert_eq!(ended("SUCCEEDED", output).exit_code(true), NOT_GOOD, "one that is not listed counts too");
    }

    #[test]
    fn a_release_of_some_steps_is_good_if_nothing_of_them_is_open() {
        let part = |open: Value| {
            let instance = json!({"InstanceId": "i-1", "Verdict": "PartiallyReleased", "Open": open});
            ended("SUCCEEDED", json!({"Verdict": "PartiallyReleased", "Instances": [instance]})).exit_code(true)
        };
        assert_eq!((part(json!([])), part(json!(["detach-profile Failed"]))), (GOOD, NOT_GOOD));
    }

    #[test]
    fn the_exit_code_is_0_only_if_every_instance_has_the_verdict_that_was_asked_for() {
        let code = |status: &str, verdict: &str| {
            ended(status, json!({"Verdict": verdict, "Instances": [{"Verdict": verdict}]})).exit_code(true)
        };
        for good in ["Contained", "Released", "Planned", "NothingToRelease"] {
            assert_eq!(code("SUCCEEDED", good), GOOD, "{good}");
        }
        for bad in ["NotContained", "PartiallyContained", "NotApproved", "NotReleased", "", "Whatever"] {
            assert_eq!(code("SUCCEEDED", bad), NOT_GOOD, "{bad}");
        }
        for status in ["FAILED", "TIMED_OUT", "ABORTED"] {
            assert_eq!(code(status, "Contained"), NOT_GOOD, "{status}");
        }
        let without = Ended { output: None, ..ended("SUCCEEDED", Value::Null) };
        assert_eq!(without.exit_code(false), NOT_GOOD, "what nobody has reported is not good");
    }

    #[test]
    fn an_instance_left_out_is_no_success_for_whoever_asked_for_it() {
        let left = json!({"Verdict": "NothingDone", "Instances": [], "LeftOut": [{"InstanceId": "i-9", "Reason": "arn:x holds its case"}]});
        let ended = ended("SUCCEEDED", left);
        assert_eq!((ended.exit_code(true), ended.exit_code(false)), (NOT_GOOD, GOOD));
        let text = ended.in_words(PLAIN);
        assert!(text.contains("Left out:\n  - i-9: arn:x holds its case\n"), "{text}");
        assert!(text.ends_with("\nNothingDone, execution SUCCEEDED in 7.2 s\n"), "{text}");
    }

    #[test]
    fn releasing_a_released_instance_is_a_success() {
        let left = json!({"InstanceId": "i-9", "Status": "NotApplicable", "Reason": "released already"});
        let nothing = ended("SUCCEEDED", json!({"Verdict": "NothingToRelease", "Instances": [], "LeftOut": [left]}));
        let arn = "arn:aws:states:eu-west-1:123456789012:execution:cordon-contain-release:x".to_owned();
        assert_eq!(Ended { arn, ..nothing }.exit_code(true), GOOD);
    }

    #[test]
    fn a_rejected_input_has_the_exit_code_of_wrong_use_and_says_why() {
        let rejected = Ended {
            error: Some("InvalidInput".into()),
            cause: Some("Region: \"x\" is not accepted".into()),
            output: None,
            ..ended("FAILED", Value::Null)
        };
        assert_eq!(rejected.exit_code(true), REJECTED);
        assert!(rejected.in_words(PLAIN).contains("  InvalidInput: Region: \"x\" is not accepted\n"));
    }

    #[test]
    fn nothing_that_a_report_quotes_changes_the_screen_or_the_lines() {
        let evil = "\u{1b}[2J\u{202e}x\ni-1: Contained";
        let mut hostile = instance(evil, evil);
        hostile["Open"] = json!([evil]);
        hostile["ResidualRisk"] = json!([evil]);
        hostile["Steps"] = json!([
            {"Step": evil, "Status": evil, "Reason": evil},
            {"Step": evil, "Status": evil, "Changes": [{"Resource": evil, "Attribute": evil, "Before": evil, "After": [evil]}]},
        ]);
        let output =
            json!({"Verdict": evil, "Instances": [hostile], "LeftOut": [{"InstanceId": evil, "Reason": evil}]});
        let with_report = ended("FAILED", output).in_words(Screen { width: 2000, ..PLAIN });
        let without =
            Ended { output: None, error: Some(evil.into()), cause: Some(evil.into()), ..ended("FAILED", Value::Null) };
        for text in [with_report, without.in_words(PLAIN)] {
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
            assert!(!text.lines().any(|line| line.starts_with("i-1: Contained")), "{text}");
        }
    }

    #[test]
    fn the_document_has_the_report_as_it_was_written() {
        let output = json!({"Verdict": "Contained", "Instances": [instance("i-1", "Contained")]});
        let document = ended("SUCCEEDED", output.clone()).document();
        assert_eq!((&document["Output"], &document["Status"]), (&output, &json!("SUCCEEDED")));
        assert_eq!(document["StopDate"], "2027-01-15T08:00:07.2Z");
    }
}
