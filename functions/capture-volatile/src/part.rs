//! A part of a capture, from the request to its end; the same for both parts.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use containment::{First, Journal, Key, Result, Status, Target};

use crate::command::{Invocation, Platform, Sent};
use crate::host::{Stand, Statement};
use crate::memory::IMAGE;
use crate::objects::Arrival;
use crate::record::{ASKED, Asked, COMMAND, Ended, RESULT, attempt_name, json, latest, recorded};
use crate::{CaptureVolatile, NAME};

/// A command that was sent is listed within seconds; sent again before that, it might run twice.
const LISTED_WITHIN: i64 = 20;

/// The two parts of a capture, each a command of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    /// Everything but the memory.
    Triage,
    /// An image of the memory, after this triage.
    Memory(&'a Ended),
}

impl Part<'_> {
    pub fn name(self) -> &'static str {
        match self {
            Part::Triage => "triage",
            Part::Memory(_) => "memory",
        }
    }
}

pub(crate) enum Progress {
    Running(String),
    Ended(Ended),
}

/// Whether a part can be asked for.
pub(crate) enum Opening {
    /// With this request.
    Ask(Asked),
    /// Not now; a later run of the case may find the host otherwise.
    NotNow(String),
    /// Never in this case.
    Never(Ended),
}

/// How the command of a part ended.
struct Ending<'a> {
    asked: &'a Asked,
    stand: Stand,
    invocation: Option<Invocation>,
    /// Why Cordon did not wait any longer, if so.
    given_up: Option<String>,
}

impl<J: Journal> CaptureVolatile<'_, J> {
    /// How one part stands.
    pub(crate) async fn part(&self, target: &Target, first: &First, part: Part<'_>) -> Result<Progress> {
        if let Some(ended) = recorded::<Ended>(first, part.name(), RESULT)? {
            return Ok(Progress::Ended(ended));
        }
        let (attempt, asked) = latest(first, part)?;
        let Some(asked) = asked else {
            return self.begin(target, part, attempt).await;
        };
        let command = match recorded::<String>(first, &attempt_name(part, attempt), COMMAND)? {
            Some(command) => Some(command),
            None => self.commands.find(target, &comment(target, part), asked.at).await?,
        };
        let over = self.now >= asked.at + asked.within;
        let Some(command) = command else {
            if over {
                // It was never sent: somebody has repaired what prevented it, and runs the case again.
                if let Some(upload) = &asked.upload {
                    self.objects.finish(&key(target, IMAGE), upload).await?;
                }
                return self.begin(target, part, attempt + 1).await;
            }
            if self.now - asked.at < LISTED_WITHIN {
                return Ok(Progress::Running("it is not known yet whether the command was sent".to_owned()));
            }
            return self.send(target, part, attempt, &asked).await;
        };
        let invocation = self.commands.invocation(target, &command).await?;
        let stand = invocation.as_ref().map_or(Stand::Waiting("the command was sent"), |i| Stand::of(&i.details));
        let ending = match stand {
            Stand::Waiting(why) if !over => return Ok(Progress::Running(why.to_owned())),
            Stand::Waiting(why) => {
                let cancelled = match self.commands.cancel(target, &command).await {
                    Ok(()) => "the command was cancelled".to_owned(),
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => format!("the command could not be cancelled ({error})"),
                };
                let why = format!("given up {} s after the first request, while {why}; {cancelled}", asked.within);
                Ending { asked: &asked, stand, invocation: None, given_up: Some(why) }
            }
            _ => Ending { asked: &asked, stand, invocation, given_up: None },
        };
        self.end(target, part, ending).await
    }

    /// Asks for a part, where the host can be asked.
    async fn begin(&self, target: &Target, part: Part<'_>, attempt: usize) -> Result<Progress> {
        let opening = match part {
            Part::Triage => self.open_triage(target).await?,
            Part::Memory(triage) => self.open_memory(target, triage).await?,
        };
        let asked = match opening {
            Opening::Ask(asked) => asked,
            Opening::NotNow(why) => return Ok(Progress::Ended(Ended::unsupported(why))),
            Opening::Never(ended) => return self.keep(target, part, ended).await,
        };
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

    /// A request of this moment.
    pub(crate) fn request(&self, platform: Platform, within: i64) -> Asked {
        let by = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
        Asked { at: self.now, within, by, platform, upload: None, parts: None }
    }

    async fn send(&self, target: &Target, part: Part<'_>, attempt: usize, asked: &Asked) -> Result<Progress> {
        let left = asked.at + asked.within - self.now;
        let (seconds, mut parameters) = match part {
            Part::Triage => self.triage_parameters(target, asked, left).await?,
            Part::Memory(_) => self.memory_parameters(target, asked, attempt, left).await?,
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

    /// Checks what has arrived, and says how the part ended.
    async fn end(&self, target: &Target, part: Part<'_>, ending: Ending<'_>) -> Result<Progress> {
        let Ending { asked, stand, invocation, given_up } = ending;
        let (names, limit) = match part {
            Part::Triage => crate::triage::expected(asked),
            Part::Memory(_) => crate::memory::expected(asked),
        };
        if let Some(upload) = &asked.upload {
            self.objects.finish(&key(target, IMAGE), upload).await?;
        }
        let said = invocation.as_ref().map(|invocation| Statement::parse(&invocation.output, &names));
        let garbled = matches!(said, Some(None));
        let said = said.flatten().unwrap_or_default();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for name in &names {
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

    async fn keep(&self, target: &Target, part: Part<'_>, ended: Ended) -> Result<Progress> {
        let new = First::from([(Key::new(part.name(), RESULT), json(&ended)?)]);
        let held = self.journal.keep(target, NAME, &new.into()).await?.first;
        Ok(Progress::Ended(recorded(&held, part.name(), RESULT)?.unwrap_or(ended)))
    }
}

/// What a command is sent with: how many seconds the script has, and its parameters.
pub(crate) type Command = (i64, HashMap<String, Vec<String>>);

/// Where an object of the capture lies in the evidence bucket.
pub(crate) fn key(target: &Target, name: &str) -> String {
    format!("{}/capture/{name}", target.evidence_prefix())
}

/// By which a command is found again; Systems Manager takes 100 characters.
pub(crate) fn comment(target: &Target, part: Part<'_>) -> String {
    format!("Cordon {} {}", part.name(), target.case_id).chars().take(100).collect()
}
