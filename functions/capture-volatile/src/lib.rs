//! Captures what only the running host can tell: by Systems Manager's Run Command, never by SSH.
//!
//! The workflow calls until the answer is no longer `InProgress`. What was asked for is in the case's journal, so that a
//! retry asks for nothing twice and a second run finds a finished capture finished.

mod command;
mod host;
mod memory;
mod objects;

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use containment::{CaptureMode, Error, First, Journal, Key, Outcome, Result, Status, Target};
use futures::FutureExt;
use runtime::Aws;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use command::Commands;
use command::{Invocation, Platform, Sent};
use host::{Stand, Statement};
use memory::Parts;
use objects::Arrival;
pub use objects::Objects;

/// The step's name.
pub const NAME: &str = "capture-volatile";

/// The script packs 96 MiB of text at most.
const TRIAGE_AT_MOST: u64 = 128 * 1024 * 1024;
/// How many seconds the script has for everything but the memory.
const TRIAGE_SECONDS: i64 = 300;
/// With less time than this nothing is begun any more.
const WORTH_BEGINNING: i64 = 30;
/// A command that was sent is listed within seconds; sent again before that, it might run twice.
const LISTED_WITHIN: i64 = 20;

/// What the template sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seconds from the first asking to giving up.
    pub deadline: i64,
    /// The stack's own Region, where the evidence bucket is.
    pub home: String,
    /// The document for Linux.
    pub linux: String,
    /// The document for Windows.
    pub windows: String,
    /// The tool that makes memory images, where the operator has put one into the bucket.
    pub tool: Option<Tool>,
}

/// The tool that makes memory images.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Where it is in the evidence bucket.
    pub key: String,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

/// The two parts of a capture, each a command of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Triage,
    Memory,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Triage => "triage",
            Part::Memory => "memory",
        }
    }
}

/// What was asked for, in the journal before it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    /// Seconds since 1970.
    at: i64,
    /// How many seconds from then the deadline is.
    within: i64,
    /// Tells two functions apart that ask at the same moment.
    by: String,
    platform: Platform,
    /// The upload in parts of a memory image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upload: Option<String>,
    /// Its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<(u64, u64)>,
}

/// How a part ended, in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ended {
    status: Status,
    reason: String,
    /// Whether a command ended on the host by itself: only then is another worth sending.
    reached: bool,
    /// Seconds from asking to the end.
    took: i64,
    platform: Option<Platform>,
    /// The host's memory in bytes, as it says.
    memory_total: Option<u64>,
}

impl Ended {
    fn unsupported(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Ended { status: Status::Unsupported, reason, reached: false, took: 0, platform: None, memory_total: None }
    }
}

enum Progress {
    Running(String),
    Ended(Ended),
}

/// The step: reads the host's standing with Systems Manager, sends the stack's document, and looks at what arrives.
#[derive(Debug)]
pub struct CaptureVolatile<'a, J> {
    /// In the target's account and Region.
    pub commands: Commands,
    /// There too.
    pub ec2: aws_sdk_ec2::Client,
    /// In the stack's own.
    pub objects: Objects,
    /// The case's.
    pub journal: &'a J,
    /// The template's.
    pub settings: &'a Settings,
    /// Seconds since 1970.
    pub now: i64,
}

impl<J: Journal> CaptureVolatile<'_, J> {
    /// How the capture stands now; begins it where it has not begun.
    ///
    /// Changes: commands sent to the host or cancelled, a multipart upload, the journal, the ledger. `Unsupported` says
    /// why this host cannot be captured, `Failed` what went wrong and what arrived all the same. Errors are failed calls.
    pub async fn run(&self, target: &Target) -> Result<Outcome> {
        let Some(capture) = target.capture else {
            let nothing = "no capture of the running host was asked for".to_owned();
            return Ok(Outcome::new(NAME, Status::NotApplicable, nothing));
        };
        let first = self.journal.read(target, NAME).await?.first;
        if target.dry_run {
            return self.planned(target, &first, capture.memory).await;
        }
        let triage = match self.part(target, &first, Part::Triage, None).await? {
            Progress::Running(why) => return Ok(Outcome::new(NAME, Status::InProgress, why)),
            Progress::Ended(ended) => ended,
        };
        if !capture.memory {
            return Ok(Outcome::new(NAME, triage.status, triage.reason));
        }
        if !triage.reached {
            let reason = format!("{}; no memory image was tried", triage.reason);
            return Ok(Outcome::new(NAME, triage.status, reason));
        }
        Ok(match self.part(target, &first, Part::Memory, Some(&triage)).await? {
            Progress::Running(why) => {
                let so_far = format!("memory image: {why}; the rest has ended: {}", triage.reason);
                Outcome::new(NAME, Status::InProgress, so_far)
            }
            Progress::Ended(memory) => {
                let worst = [Status::Failed, Status::Unsupported]
                    .into_iter()
                    .find(|s| [triage.status, memory.status].contains(s));
                let reason = format!("{}; memory image: {}", triage.reason, memory.reason);
                Outcome::new(NAME, worst.unwrap_or(Status::Done), reason)
            }
        })
    }

    async fn planned(&self, target: &Target, first: &First, memory: bool) -> Result<Outcome> {
        if let Some(ended) = recorded::<Ended>(first, "triage", RESULT)? {
            return Ok(Outcome::new(NAME, ended.status, format!("already captured: {}", ended.reason)));
        }
        if let Some(why) = self.hopeless(target) {
            return Ok(Outcome::new(NAME, Status::Unsupported, why));
        }
        Ok(match self.commands.reach(target).await? {
            Err(why) => Outcome::new(NAME, Status::Unsupported, why),
            Ok(platform) => {
                let image = if memory { ", then the memory image" } else { "" };
                let reason = format!("would send {} to the host{image}", self.document(platform));
                Outcome::new(NAME, Status::Planned, reason)
            }
        })
    }

    /// Why a capture cannot come to anything, whatever the host says.
    fn hopeless(&self, target: &Target) -> Option<String> {
        let isolated = target.capture.is_some_and(|capture| capture.mode == CaptureMode::IsolateFirst);
        if isolated && !target.capture_window {
            return Some(
                "the instance is isolated and nothing leads from it to Systems Manager and S3: no window was opened for the \
                 capture; CaptureMode CaptureFirst captures before isolation"
                    .to_owned(),
            );
        }
        if isolated && target.region != self.settings.home {
            return Some(format!(
                "the evidence bucket is in {} and the instance, isolated, in {}: no VPC endpoint leads to another Region \
                 (trap C5); CaptureMode CaptureFirst captures before isolation",
                self.settings.home, target.region
            ));
        }
        None
    }

    /// Whether isolation has left an interface a way out. A command that nobody can fetch would be waited for in vain.
    async fn has_window(&self, target: &Target) -> Result<bool> {
        let interfaces = instance::interfaces(&self.ec2, target).await?;
        let mut groups = interfaces.iter().flat_map(|interface| interface.groups());
        Ok(groups.any(|group| group.group_name() == Some(network::CAPTURE)))
    }

    fn document(&self, platform: Platform) -> &str {
        match platform {
            Platform::Linux => &self.settings.linux,
            Platform::Windows => &self.settings.windows,
        }
    }

    /// How one part stands.
    async fn part(&self, target: &Target, first: &First, part: Part, triage: Option<&Ended>) -> Result<Progress> {
        if let Some(ended) = recorded::<Ended>(first, part.name(), RESULT)? {
            return Ok(Progress::Ended(ended));
        }
        let (attempt, asked) = latest(first, part)?;
        let Some(asked) = asked else {
            return self.begin(target, part, attempt, triage).await;
        };
        let command = match recorded::<String>(first, &attempt_name(part, attempt), COMMAND)? {
            Some(command) => Some(command),
            None => self.commands.find(target, &comment(target, part), asked.at).await?,
        };
        let over = self.now >= asked.at + asked.within;
        let Some(command) = command else {
            if over {
                // It was never sent: somebody has repaired what kept it from being, and runs the case again.
                if let Some(upload) = &asked.upload {
                    self.objects.finish(&key(target, IMAGE), upload).await?;
                }
                return self.begin(target, part, attempt + 1, triage).await;
            }
            if self.now - asked.at < LISTED_WITHIN {
                return Ok(Progress::Running("it is not known yet whether the command was sent".to_owned()));
            }
            return self.send(target, part, attempt, &asked).await;
        };
        let invocation = self.commands.invocation(target, &command).await?;
        let stand = invocation.as_ref().map_or(Stand::Waiting("the command was sent"), |i| Stand::of(&i.details));
        match stand {
            Stand::Waiting(why) if !over => Ok(Progress::Running(why.to_owned())),
            Stand::Waiting(why) => {
                let cancelled = match self.commands.cancel(target, &command).await {
                    Ok(()) => "the command was cancelled".to_owned(),
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => format!("the command could not be cancelled ({error})"),
                };
                let why = format!("given up {} s after the first asking, while {why}; {cancelled}", asked.within);
                self.end(target, part, &asked, stand, None, Some(why)).await
            }
            _ => self.end(target, part, &asked, stand, invocation, None).await,
        }
    }

    /// Asks for a part, where the host can be asked.
    async fn begin(&self, target: &Target, part: Part, attempt: usize, triage: Option<&Ended>) -> Result<Progress> {
        let not = |reason: &str| Ok(Progress::Ended(Ended::unsupported(reason)));
        let (platform, within) = match triage {
            None => {
                if let Some(why) = self.hopeless(target) {
                    return not(&why);
                }
                if target.capture_window && !self.has_window(target).await? {
                    return not(
                        "the instance is isolated, and its VPC has no way to Systems Manager and S3 that could be left open: \
                         isolate-network says what is missing; CaptureMode CaptureFirst captures before isolation",
                    );
                }
                match self.commands.reach(target).await? {
                    Ok(platform) => (platform, self.settings.deadline),
                    Err(why) => return not(&why),
                }
            }
            Some(triage) => {
                let Some(_) = &self.settings.tool else {
                    return not(
                        "the stack has no memory tool: MemoryToolKey and MemoryToolSha256 name one in the evidence bucket",
                    );
                };
                let Some(Platform::Linux) = triage.platform else {
                    return not("Cordon takes images of the memory of Linux only");
                };
                let within = self.settings.deadline - triage.took;
                if within < WORTH_BEGINNING {
                    let ended =
                        Ended { status: Status::Failed, ..Ended::unsupported("the deadline left no time for it") };
                    return self.keep(target, part, ended).await;
                }
                (Platform::Linux, within)
            }
        };
        let mut asked = Asked { at: self.now, within, by: moment(), platform, upload: None, parts: None };
        if part == Part::Memory {
            let Some(parts) = triage.and_then(|triage| triage.memory_total).and_then(Parts::of) else {
                return not("the host did not say how much memory it has, or more than an image is made of");
            };
            asked.parts = Some((parts.size, parts.count));
            asked.upload = Some(self.objects.begin(&key(target, IMAGE)).await?);
        }
        let record = Key::new(attempt_name(part, attempt), ASKED);
        let new = First::from([(record.clone(), json(&asked)?)]);
        let held = self.journal.keep(target, NAME, &new.into()).await?.first;
        if held.get(&record) != Some(&json(&asked)?) {
            if let Some(upload) = &asked.upload {
                self.objects.finish(&key(target, IMAGE), upload).await?;
            }
            return Ok(Progress::Running("another call of this function is asking the host".to_owned()));
        }
        self.send(target, part, attempt, &asked).await
    }

    async fn send(&self, target: &Target, part: Part, attempt: usize, asked: &Asked) -> Result<Progress> {
        let left = asked.at + asked.within - self.now;
        let seconds = match part {
            Part::Triage => (left - 10).clamp(5, TRIAGE_SECONDS),
            Part::Memory => (left - 10).max(5),
        };
        let mut parameters = match part {
            Part::Triage => self.triage_parameters(target, asked.platform, left).await?,
            Part::Memory => self.memory_parameters(target, asked, attempt, left).await?,
        };
        let given = [
            ("Part", part.name().to_owned()),
            ("Seconds", seconds.to_string()),
            ("Timeout", (seconds + 30).to_string()),
        ];
        parameters.extend(given.map(|(name, value)| (name.to_owned(), vec![value])));
        let (document, comment) = (self.document(asked.platform), comment(target, part));
        Ok(match self.commands.send(target, document, &comment, parameters, left).await? {
            Sent::Refused(why) => Progress::Ended(Ended::unsupported(why)),
            Sent::Command(id) => {
                let record = Key::new(attempt_name(part, attempt), COMMAND);
                self.journal.keep(target, NAME, &First::from([(record, json(&id)?)]).into()).await?;
                Progress::Running("the command was sent".to_owned())
            }
        })
    }

    async fn triage_parameters(
        &self,
        target: &Target,
        platform: Platform,
        left: i64,
    ) -> Result<HashMap<String, Vec<String>>> {
        let mut parameters = HashMap::new();
        for (parameter, name) in [("TriageUrl", archive(platform)), ("SummaryUrl", SUMMARY)] {
            let url = self.objects.put_url(&key(target, name), left).await?;
            parameters.insert(parameter.to_owned(), vec![url]);
        }
        Ok(parameters)
    }

    /// The plan has a URL for each part, hundreds of kilobytes: it is an object of its own, and the parameter leads to it.
    async fn memory_parameters(
        &self,
        target: &Target,
        asked: &Asked,
        attempt: usize,
        left: i64,
    ) -> Result<HashMap<String, Vec<String>>> {
        let (Some(tool), Some(upload), Some((size, count))) = (&self.settings.tool, &asked.upload, asked.parts) else {
            return Err(Error::Misconfigured("the journal has a memory image without its tool and parts".to_owned()));
        };
        let urls = self.objects.part_urls(&key(target, IMAGE), upload, count, left).await?;
        let tool_url = self.objects.get_url(&tool.key, left).await?;
        let plan = memory::plan(&tool.sha256, &tool_url, Parts { size, count }, &urls);
        let sha256 = custody::sha256(plan.as_bytes());
        let plan_key = key(target, &format!("memory-plan-{attempt}-{}.txt", self.now));
        self.objects.store(self.journal, target, plan_key.clone(), plan).await?;
        let url = self.objects.get_url(&plan_key, left).await?;
        Ok([("PlanUrl".to_owned(), vec![url]), ("PlanSha256".to_owned(), vec![sha256])].into())
    }

    /// Looks at what has arrived, and says how the part ended.
    async fn end(
        &self,
        target: &Target,
        part: Part,
        asked: &Asked,
        stand: Stand,
        invocation: Option<Invocation>,
        given_up: Option<String>,
    ) -> Result<Progress> {
        let (names, limit): (&[&str], u64) = match part {
            Part::Triage => (&[archive(asked.platform), SUMMARY], TRIAGE_AT_MOST),
            Part::Memory => (&[IMAGE], asked.parts.map_or(0, |(size, count)| size.saturating_mul(count))),
        };
        if let Some(upload) = &asked.upload {
            self.objects.finish(&key(target, IMAGE), upload).await?;
        }
        let said = invocation.as_ref().map(|invocation| Statement::parse(&invocation.output, names));
        let garbled = matches!(said, Some(None));
        let said = said.flatten().unwrap_or_default();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for name in names {
            let stated = said.objects.get(*name);
            match self.objects.arrival(self.journal, target, &key(target, name), stated, limit).await? {
                Arrival::Good(text) => good.push(text),
                Arrival::Doubtful(text) => bad.push(text),
                Arrival::Missing => bad.push(format!("{name} did not arrive")),
            }
        }
        let unsupported = said.unsupported.filter(|_| good.is_empty());
        let mut why: Vec<String> = given_up.into_iter().collect();
        match stand {
            Stand::Ended(text) | Stand::Undelivered(text) if unsupported.is_none() => why.push(text.to_owned()),
            _ => {}
        }
        why.extend(unsupported.or(said.problem).map(ToOwned::to_owned));
        why.extend(
            garbled.then(|| "the command's output is not what the script writes, and counts for nothing".to_owned()),
        );
        let status = match (stand, unsupported) {
            (Stand::Succeeded, None) if bad.is_empty() => Status::Done,
            (_, Some(_)) => Status::Unsupported,
            _ => Status::Failed,
        };
        if unsupported.is_some() {
            bad.clear();
        }
        let reason = [why, bad, good].concat().join("; ");
        let ended = Ended {
            status,
            reason: format!("{reason} (s3://{})", self.objects.at(&key(target, ""))),
            reached: matches!(stand, Stand::Succeeded | Stand::Ended(_)),
            took: self.now - asked.at,
            platform: Some(asked.platform),
            memory_total: said.memory_total,
        };
        self.keep(target, part, ended).await
    }

    async fn keep(&self, target: &Target, part: Part, ended: Ended) -> Result<Progress> {
        let record = Key::new(part.name(), RESULT);
        let new = First::from([(record, json(&ended)?)]);
        let held = self.journal.keep(target, NAME, &new.into()).await?.first;
        Ok(Progress::Ended(recorded(&held, part.name(), RESULT)?.unwrap_or(ended)))
    }
}

const ASKED: &str = "Asked";
const COMMAND: &str = "Command";
const RESULT: &str = "Result";

const SUMMARY: &str = "summary.json";
const IMAGE: &str = "memory.image";

fn archive(platform: Platform) -> &'static str {
    match platform {
        Platform::Linux => "triage.tar.gz",
        Platform::Windows => "triage.zip",
    }
}

fn key(target: &Target, name: &str) -> String {
    format!("{}/capture/{name}", target.evidence_prefix())
}

/// By which a command is found again; Systems Manager takes 100 characters.
fn comment(target: &Target, part: Part) -> String {
    format!("Cordon {} {}", part.name(), target.case_id).chars().take(100).collect()
}

fn attempt_name(part: Part, attempt: usize) -> String {
    if attempt == 1 { part.name().to_owned() } else { format!("{}-{attempt}", part.name()) }
}

/// The number of the last attempt and what it asked for; 1 and nothing where there is none.
fn latest(first: &First, part: Part) -> Result<(usize, Option<Asked>)> {
    let mut last = (1, None);
    for attempt in 1.. {
        match recorded::<Asked>(first, &attempt_name(part, attempt), ASKED)? {
            Some(asked) => last = (attempt, Some(asked)),
            None => break,
        }
    }
    Ok(last)
}

fn recorded<T: DeserializeOwned>(first: &First, resource: &str, attribute: &str) -> Result<Option<T>> {
    let Some(value) = first.get(&Key::new(resource, attribute)) else { return Ok(None) };
    let read = serde_json::from_value(value.clone());
    read.map(Some).map_err(|error| Error::Misconfigured(format!("the journal's {resource}|{attribute}: {error}")))
}

fn json<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::Misconfigured(format!("the journal can't keep it: {error}")))
}

/// This moment, to the nanosecond.
fn moment() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn settings(aws: &Aws) -> Result<Settings> {
    let deadline = aws.required("CAPTURE_DEADLINE")?;
    let tool = match (aws.setting("MEMORY_TOOL_KEY"), aws.setting("MEMORY_TOOL_SHA256")) {
        (Some(key), Some(sha256)) => Some(Tool { key, sha256: sha256.to_lowercase() }),
        _ => None,
    };
    Ok(Settings {
        deadline: deadline
            .parse()
            .map_err(|error| Error::Misconfigured(format!("CAPTURE_DEADLINE: {deadline:?}: {error}")))?,
        home: aws.home().region().map(ToString::to_string).unwrap_or_default(),
        linux: aws.required("LINUX_DOCUMENT")?,
        windows: aws.required("WINDOWS_DOCUMENT")?,
        tool,
    })
}

/// The function: a target in, an outcome out; called again while that is `InProgress`.
pub async fn handle(aws: &Aws, event: Value) -> Result<Outcome> {
    let target = Target::parse(event)?;
    let (settings, journal) = (settings(aws)?, aws.case_table()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Where nothing was asked for, no other account's role is assumed.
    let config = if target.capture.is_some() { aws.of(&target, NAME).await? } else { aws.home().clone() };
    let step = CaptureVolatile {
        commands: Commands::new(&config),
        ec2: aws_sdk_ec2::Client::new(&config),
        objects: Objects::new(aws.home().into(), aws.required("EVIDENCE_BUCKET")?, aws.caller().clone()),
        journal: &journal,
        settings: &settings,
        now: i64::try_from(now).unwrap_or(i64::MAX),
    };
    // Boxed, because the whole future's type is too deep for the compiler's default limit.
    Ok(step.run(&target).boxed().await?.shortened(0))
}

#[cfg(test)]
mod tests;
