//! What the journal holds of a capture: what was asked for, ahead of asking, and how each part ended.

use containment::{Error, First, Key, Result, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::Platform;
use crate::part::Part;

/// Attributes of a part's attempts and of the part itself.
pub(crate) const ASKED: &str = "Asked";
pub(crate) const COMMAND: &str = "Command";
pub(crate) const RESULT: &str = "Result";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Asked {
    /// Seconds since 1970.
    pub at: i64,
    /// How many seconds from then the deadline is.
    pub within: i64,
    /// Tells apart two functions that ask at the same moment.
    pub by: String,
    pub platform: Platform,
    /// The multipart upload of a memory image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Its parts: bytes of each, and how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<(u64, u64)>,
}

/// How a part ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Ended {
    pub status: Status,
    pub reason: String,
    /// Whether a command ended on the host by itself: only then is another worth sending.
    pub reached: bool,
    /// Seconds from asking to the end.
    pub took: i64,
    pub platform: Option<Platform>,
    /// The host's memory in bytes, as it says.
    pub memory_total: Option<u64>,
}

impl Ended {
    pub fn unsupported(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Ended { status: Status::Unsupported, reason, reached: false, took: 0, platform: None, memory_total: None }
    }
}

/// The journal's name for an attempt at a part: `triage`, `triage-2`, …
pub(crate) fn attempt_name(part: Part<'_>, attempt: usize) -> String {
    if attempt == 1 { part.name().to_owned() } else { format!("{}-{attempt}", part.name()) }
}

/// The number of the last attempt and what it asked for; 1 and nothing where there is none.
pub(crate) fn latest(first: &First, part: Part<'_>) -> Result<(usize, Option<Asked>)> {
    let mut last = (1, None);
    for attempt in 1.. {
        match recorded::<Asked>(first, &attempt_name(part, attempt), ASKED)? {
            Some(asked) => last = (attempt, Some(asked)),
            None => break,
        }
    }
    Ok(last)
}

pub(crate) fn recorded<T: DeserializeOwned>(first: &First, resource: &str, attribute: &str) -> Result<Option<T>> {
    let Some(value) = first.get(&Key::new(resource, attribute)) else { return Ok(None) };
    let read = serde_json::from_value(value.clone());
    read.map(Some).map_err(|error| Error::Misconfigured(format!("the journal's {resource}|{attribute}: {error}")))
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::Misconfigured(format!("the journal can't keep it: {error}")))
}
