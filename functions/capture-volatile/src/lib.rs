//! Captures what only the running host can tell: by Systems Manager's Run Command, never by SSH.
//!
//! Two parts, each with a command of its own: the triage, and on request an image of the memory. The workflow calls until the
//! answer is no longer `InProgress`. The journal holds what was asked for, so that a retry asks for nothing twice and a
//! second run finds a finished capture finished.

mod command;
mod host;
mod memory;
mod objects;
mod part;
mod record;
mod triage;

use std::time::SystemTime;

use containment::{CaptureMode, Error, First, Journal, Outcome, Result, Status, Target};
use futures::FutureExt;
use runtime::Aws;
use serde_json::Value;

pub use command::Commands;
use command::Platform;
pub use objects::Objects;
use part::{Part, Progress};
use record::{Ended, RESULT, recorded};

/// The step's name.
pub const NAME: &str = "capture-volatile";

/// What the template sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seconds from the first request until Cordon gives up.
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

/// The step: reads how Systems Manager reaches the host, sends the stack's document, and checks what arrives.
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
        let triage = match self.part(target, &first, Part::Triage).await? {
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
        Ok(match self.part(target, &first, Part::Memory(&triage)).await? {
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
        if let Some(ended) = recorded::<Ended>(first, Part::Triage.name(), RESULT)? {
            return Ok(Outcome::new(NAME, ended.status, format!("already captured: {}", ended.reason)));
        }
        if let Some(why) = self.out_of_reach(target) {
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

    /// Why a capture cannot succeed, whatever the host says.
    fn out_of_reach(&self, target: &Target) -> Option<String> {
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
                "the evidence bucket is in {} and the instance, isolated, in {}: no VPC endpoint leads to another Region; \
                 CaptureMode CaptureFirst captures before isolation",
                self.settings.home, target.region
            ));
        }
        None
    }

    fn document(&self, platform: Platform) -> &str {
        match platform {
            Platform::Linux => &self.settings.linux,
            Platform::Windows => &self.settings.windows,
        }
    }
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
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    // No other account's role is assumed for a capture that nobody asked for.
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
