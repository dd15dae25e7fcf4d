//! Collects what an investigator asks first: whose image the instance runs, what its console shows, who launched and
//! changed it, and what its credentials did.
//!
//! Reads beside the containment and changes nothing. What cannot be read becomes a sentence, and the rest is kept.

mod console;
mod events;
mod image;
mod text;
mod trail;

use std::future::Future;
use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_sdk_ec2::primitives::{DateTime, DateTimeFormat};
use aws_sdk_ec2::types::Instance;
use containment::{AwsError, Error, Journal, Kind, Outcome, Result, Status, Target};
use evidence::Recorder;
use evidence::{Bucket, Entry};
use futures::FutureExt;
use futures::future::join_all;
use runtime::Aws;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use console::Seen;
use events::{Event, about_instance, by_credentials, launch, of_concern};
use trail::{Answer, HISTORY_SECONDS, Span, Trail, region_of_global_services};

/// The step's name.
pub const NAME: &str = "collect-facts";

/// How long one question to EC2 may take; the function has 60 seconds for all of them and for storing the answers.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// How long CloudTrail is read, two requests a second.
const ASKED_FOR: Duration = Duration::from_secs(25);

/// Bytes that become a piece of evidence of their own.
struct Object {
    /// The fact that points to it.
    fact: &'static str,
    kind: ObjectKind,
    bytes: Vec<u8>,
}

/// How an object is named, around its time, and its type.
#[derive(Debug, Clone, Copy)]
struct ObjectKind {
    name: &'static str,
    ending: &'static str,
    content_type: &'static str,
}

const OUTPUT: ObjectKind =
    ObjectKind { name: "console-output", ending: "txt", content_type: "text/plain; charset=utf-8" };
const SCREENSHOT: ObjectKind = ObjectKind { name: "console-screenshot", ending: "jpg", content_type: "image/jpeg" };

/// What was collected.
struct Collected {
    facts: Value,
    objects: Vec<Object>,
    missed: Vec<String>,
    in_words: Vec<String>,
}

/// The clients, one for each service and Region.
struct Clients {
    ec2: aws_sdk_ec2::Client,
    here: aws_sdk_cloudtrail::Client,
    global: Option<(aws_sdk_cloudtrail::Client, &'static str)>,
}

impl Clients {
    fn new(aws: &SdkConfig, target: &Target, recorder: &Recorder) -> Self {
        let ec2 = aws_sdk_ec2::config::Builder::from(aws).interceptor(recorder.clone()).build();
        let trail = |region: &str| {
            let config = aws_sdk_cloudtrail::config::Builder::from(aws).region(Region::new(region.to_owned()));
            aws_sdk_cloudtrail::Client::from_conf(config.interceptor(recorder.clone()).build())
        };
        let global = Some(region_of_global_services(target)).filter(|region| *region != target.region);
        Clients {
            ec2: aws_sdk_ec2::Client::from_conf(ec2),
            here: trail(&target.region),
            global: global.map(|region| (trail(region), region)),
        }
    }
}

/// Reads, and stores AWS's replies, the facts, the console's output and its picture in the evidence bucket, each entered
/// into the case's ledger. Changes nothing; a dry run stores nothing.
///
/// The stored `collect-facts-TIME.json` has the facts under `Facts`. The outcome is `Failed` where something could not
/// be read, and says what; what AWS does not offer for the instance is a fact and no failure.
/// Errors: the evidence or the ledger could not be written.
pub async fn collect_facts(
    aws: &SdkConfig,
    journal: &impl Journal,
    bucket: &Bucket,
    hours: u32,
    target: &Target,
) -> Result<Outcome> {
    let recorder = Recorder::default();
    let now = DateTime::from(SystemTime::now()).secs();
    let collected = collect(&Clients::new(aws, target, &recorder), target, hours, now).await;
    if target.dry_run {
        return Ok(outcome(collected.missed, collected.in_words, "read; a dry run stores nothing".to_owned()));
    }
    let Collected { mut facts, objects, mut missed, in_words } = collected;
    let puts = objects.into_iter().map(|Object { fact, kind, bytes }| async move {
        let key = format!("{}/{}-{}.{}", target.evidence_prefix(), kind.name, evidence::now(), kind.ending);
        (fact, keep(journal, target, bucket.put_bytes(target, key, kind.content_type, bytes).await).await)
    });
    for (fact, kept) in join_all(puts).await {
        match kept {
            Ok(entry) => facts[fact]["Evidence"] = json!(entry.pointer.key),
            Err(error) => missed.push(error.to_string()),
        }
    }
    facts["Missed"] = json!(missed);
    let all = json!({ "Target": target, "Facts": facts, "Replies": recorder.replies() });
    let pointer = keep(journal, target, bucket.put(target, NAME, &all).await).await?.pointer;
    Ok(outcome(missed, in_words, format!("stored as s3://{}/{}", pointer.bucket, pointer.key)))
}

async fn keep(journal: &impl Journal, target: &Target, put: Result<Entry>) -> Result<Entry> {
    let entry = put?;
    evidence::enter(journal, target, &entry).await?;
    Ok(entry)
}

fn outcome(missed: Vec<String>, in_words: Vec<String>, stored: String) -> Outcome {
    let (status, missing) = match missed.is_empty() {
        true => (Status::Done, None),
        false => (Status::Failed, Some(format!("could not be read: {}", missed.join("; ")))),
    };
    let reason: Vec<String> = missing.into_iter().chain([stored]).chain(in_words).collect();
    Outcome::new(NAME, status, reason.join("; ")).shortened(0)
}

async fn collect(clients: &Clients, target: &Target, hours: u32, now: i64) -> Collected {
    let mut collected = Collected { facts: json!({}), objects: Vec::new(), missed: Vec::new(), in_words: Vec::new() };
    let deadline = Instant::now() + ASKED_FOR;
    // The console needs nothing of the instance's description, and CloudTrail is first asked about its credentials.
    let (of_instance, output, screenshot, trail) = futures::join!(
        of_instance(clients, target),
        within("ec2:GetConsoleOutput", target, console::output(&clients.ec2, target)),
        within("ec2:GetConsoleScreenshot", target, console::screenshot(&clients.ec2, target)),
        asked(clients, target, hours, now, deadline),
    );
    let (instance, image) = of_instance;
    let instance = collected.or_missed(instance).flatten();
    let image = collected.or_missed(image).flatten();
    collected.in_words.extend(image.as_ref().and_then(|image| image["InWords"].as_str().map(ToOwned::to_owned)));
    collected.facts["Image"] = json!(image);
    collected.console("ConsoleOutput", OUTPUT, output);
    collected.console("ConsoleScreenshot", SCREENSHOT, screenshot);
    collected.cloudtrail(target, hours, now, trail, launched(instance.as_ref())).await;
    collected
}

impl Collected {
    fn or_missed<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.missed.push(error.to_string())).ok()
    }

    fn console(&mut self, fact: &'static str, kind: ObjectKind, seen: Result<Seen>) {
        self.facts[fact] = match self.or_missed(seen) {
            Some(Seen::Bytes { bytes, at }) => {
                let facts = json!({ "Bytes": bytes.len(), "UpdatedAt": at });
                self.objects.push(Object { fact, kind, bytes });
                facts
            }
            Some(Seen::Nothing(why)) => json!({ "None": why }),
            None => Value::Null,
        };
    }

    async fn cloudtrail(&mut self, target: &Target, hours: u32, now: i64, asked: Asked, launched: Option<i64>) {
        let Asked { mut trail, instance, credentials, regions } = asked;
        let launch_asked = match launched.filter(|_| launch(&instance.events).is_none()) {
            Some(launched) if now - launched < HISTORY_SECONDS => trail.of_launch(target, launched).await,
            _ => Answer::default(),
        };
        let mut notes = vec![
            "CloudTrail delivers events up to 15 minutes late: the latest may be missing".to_owned(),
            format!("only management events were read, in {}: not those of other Regions", regions.join(" and ")),
        ];
        let started = launch(&instance.events).or_else(|| launch(&launch_asked.events));
        let when = launched.map_or_else(|| "at an unknown time".to_owned(), |at| format!("on {}", in_utc(at)));
        match (started, launched) {
            (Some(event), _) => {
                self.in_words.push(format!("launched {} by {} from {}", event.at, event.by, event.from));
            }
            (None, Some(at)) if now - at >= HISTORY_SECONDS => {
                notes.push(format!("launched {when}, before the 90 days of CloudTrail's event history"));
            }
            (None, _) if !instance.is_whole() || !launch_asked.is_whole() => {
                notes.push(format!("launched {when}; by whom is unknown, since CloudTrail was not read to the end"));
            }
            (None, _) => notes.push(format!("launched {when}; CloudTrail's event history has no event of it")),
        }
        let (sessions, ways_in) = of_concern(&credentials.events);
        // Events that were not read may be calls that were made.
        let at_least = if credentials.is_whole() { "" } else { "at least " };
        self.in_words.push(format!(
            "in the last {hours} hours its credentials made {at_least}{} calls, {sessions} of them for other sessions \
             and {ways_in} that create or widen access",
            credentials.events.len(),
        ));
        self.facts["CloudTrail"] = json!({
            "From": in_utc(span(hours, now).from), "To": in_utc(now), "Regions": regions,
            "LaunchedAt": launched.map(in_utc),
            "Launch": started.map(Event::facts),
            "Instance": about_instance(&instance.events),
            "Credentials": by_credentials(&credentials.events),
            "Notes": notes,
        });
        for answer in [launch_asked, instance, credentials] {
            if let (Some(notes), Some(cut)) = (self.facts["CloudTrail"]["Notes"].as_array_mut(), answer.cut) {
                notes.push(json!(cut));
                self.in_words.push(cut);
            }
            self.missed.extend(answer.failed);
        }
    }
}

/// What CloudTrail answered, and the trail to ask about the launch.
struct Asked {
    trail: Trail,
    instance: Answer,
    credentials: Answer,
    regions: Vec<String>,
}

async fn asked(clients: &Clients, target: &Target, hours: u32, now: i64, deadline: Instant) -> Asked {
    let span = span(hours, now);
    let mut here = Trail::new(clients.here.clone(), &target.region, deadline);
    let there = async {
        match &clients.global {
            Some((client, region)) => Trail::new(client.clone(), region, deadline).of_credentials(target, span).await,
            None => Answer::default(),
        }
    };
    let ((mut credentials, instance), there) = futures::join!(
        async { (here.of_credentials(target, span).await, here.of_instance(target, span).await) },
        there,
    );
    credentials.events.extend(there.events);
    credentials.events.sort_by(|one, other| other.at.cmp(&one.at));
    let both = |one: Option<String>, other: Option<String>, between: &str| match (one, other) {
        (Some(one), Some(other)) => Some(format!("{one}{between}{other}")),
        (one, other) => one.or(other),
    };
    credentials.cut = both(credentials.cut, there.cut, "; ");
    credentials.failed = both(credentials.failed, there.failed, "; ");
    let regions =
        [target.region.clone()].into_iter().chain(clients.global.iter().map(|(_, region)| (*region).to_owned()));
    Asked { trail: here, instance, credentials, regions: regions.collect() }
}

fn span(hours: u32, now: i64) -> Span {
    Span { from: now - i64::from(hours) * 3600, to: now }
}

fn in_utc(seconds: i64) -> String {
    DateTime::from_secs(seconds).fmt(DateTimeFormat::DateTime).unwrap_or_default()
}

/// When the instance was first launched. Its launch time is that of its last start; its first interface, attached at
/// the launch, keeps the first one.
fn launched(instance: Option<&Instance>) -> Option<i64> {
    let instance = instance?;
    let attached = instance.network_interfaces().iter().filter_map(|interface| interface.attachment());
    let first = attached.filter(|a| a.device_index() == Some(0)).find_map(|a| a.attach_time());
    first.or(instance.launch_time()).map(DateTime::secs)
}

/// The instance, and the image that it names.
async fn of_instance(clients: &Clients, target: &Target) -> (Result<Option<Instance>>, Result<Option<Value>>) {
    let instance = within("ec2:DescribeInstances", target, described(&clients.ec2, target)).await;
    let id = instance.as_ref().ok().and_then(Option::as_ref).and_then(|instance| instance.image_id());
    let image = match id {
        Some(id) => within("ec2:DescribeImages", target, image::image(&clients.ec2, target, id)).await.map(Some),
        None => Ok(None),
    };
    (instance, image)
}

async fn described(ec2: &aws_sdk_ec2::Client, target: &Target) -> Result<Option<Instance>> {
    let id = &target.instance_id;
    let sent = ec2.describe_instances().instance_ids(id).include_managed_resources(true).send().await;
    let reply = sent.map_err(Error::aws("ec2:DescribeInstances", id))?;
    let instances = reply.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default());
    Ok(instances.into_iter().next())
}

/// A call, for no longer than the function can wait.
async fn within<T>(action: &'static str, target: &Target, call: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(ANSWERED_WITHIN, call).await {
        Ok(result) => result,
        Err(_) => Err(Error::Aws(Box::new(AwsError {
            action,
            resource: target.instance_id.clone(),
            kind: Kind::Unavailable,
            code: "no answer".to_owned(),
            message: format!("not within {} seconds", ANSWERED_WITHIN.as_secs()),
            request_id: None,
        }))),
    }
}

/// How far back CloudTrail is read, as `template.yaml` sets it.
fn hours(setting: Option<String>) -> Result<u32> {
    let text = setting.unwrap_or_else(|| "24".to_owned());
    match text.parse() {
        Ok(hours) if (1..=168).contains(&hours) => Ok(hours),
        _ => Err(Error::Misconfigured(format!("CLOUDTRAIL_HOURS is {text:?}; accepted: 1 to 168"))),
    }
}

/// The function: a target in, an outcome out.
pub async fn handle(aws: &Aws, event: Value) -> Result<Outcome> {
    let target = Target::parse(event)?;
    let (bucket, hours) = (Bucket::of(aws)?, hours(aws.setting("CLOUDTRAIL_HOURS"))?);
    // Boxed, because the whole future's type is too deep for the compiler's default limit.
    let (config, journal) = (aws.of(&target, NAME).await?, aws.case_table()?);
    collect_facts(&config, &journal, &bucket, hours, &target).boxed().await
}

#[cfg(test)]
mod tests;
