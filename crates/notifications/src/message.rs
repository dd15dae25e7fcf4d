//! The content of a message, before it takes the form of a medium.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use verdict::Verdict;

use crate::execution::{Execution, Instance};
use crate::quoted::Text;

/// The kind of a message; `docs/notification.schema.json` documents each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Instances are about to be contained, or planned to be.
    ContainmentStarted,
    /// Somebody other than Cordon changed a contained instance, and Cordon contains it again.
    DriftFound,
    /// The same, too often: this time Cordon does not contain it again.
    DriftNotRepaired,
    /// A person has to decide whether an instance may be isolated.
    ApprovalRequested,
    /// The workflow came to this verdict.
    Ended(Verdict),
    /// The execution failed for another reason.
    ExecutionFailed,
    /// The execution took too long.
    ExecutionTimedOut,
    /// Somebody stopped the execution.
    ExecutionAborted,
}

impl Kind {
    /// All kinds.
    pub fn all() -> Vec<Kind> {
        use Kind::{
            ApprovalRequested, ContainmentStarted, DriftFound, DriftNotRepaired, ExecutionAborted, ExecutionFailed,
            ExecutionTimedOut,
        };
        let before = [ContainmentStarted, DriftFound, DriftNotRepaired, ApprovalRequested];
        let ends = Verdict::ALL.map(Kind::Ended);
        before.into_iter().chain(ends).chain([ExecutionFailed, ExecutionTimedOut, ExecutionAborted]).collect()
    }

    /// The kind as subscribers filter on it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ContainmentStarted => "ContainmentStarted",
            Kind::DriftFound => "DriftFound",
            Kind::DriftNotRepaired => "DriftNotRepaired",
            Kind::ApprovalRequested => "ApprovalRequested",
            Kind::Ended(verdict) => verdict.name(),
            Kind::ExecutionFailed => "ExecutionFailed",
            Kind::ExecutionTimedOut => "ExecutionTimedOut",
            Kind::ExecutionAborted => "ExecutionAborted",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A message. The headline and the subject consist of Cordon's own words and of checked values only.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub(crate) kind: Kind,
    pub(crate) headline: String,
    pub(crate) subject: String,
    pub(crate) execution: Execution,
    pub(crate) instances: Vec<Instance>,
    /// A checked task token.
    pub(crate) token: Option<String>,
    /// Facts to know before acting.
    pub(crate) first: Vec<Section>,
    /// The next steps.
    pub(crate) next: Vec<Next>,
    /// Further information.
    pub(crate) rest: Vec<Section>,
    /// Cleaned lines of a table that others wrote; the first thing to go if there is no room.
    pub(crate) table: Vec<String>,
    /// The fields for machines.
    pub(crate) data: Map<String, Value>,
}

/// Lines under a title.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) lines: Vec<Text>,
}

/// A next step, with a command to paste if one could be built.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Next {
    pub(crate) label: String,
    pub(crate) text: Text,
    pub(crate) command: Option<String>,
}

impl Message {
    pub(crate) fn new(kind: Kind, execution: Execution, headline: String, subject: String) -> Message {
        Message {
            kind,
            headline,
            subject: format!("Cordon: {subject}"),
            execution,
            instances: Vec::new(),
            token: None,
            first: Vec::new(),
            next: Vec::new(),
            rest: Vec::new(),
            table: Vec::new(),
            data: Map::new(),
        }
    }

    /// A field for machines, unless it is null or empty.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !empty {
            self.data.insert(name.to_owned(), value);
        }
    }

    pub(crate) fn say_first(&mut self, title: &'static str, lines: Vec<Text>) {
        self.first.extend(section(title, lines));
    }

    pub(crate) fn say_later(&mut self, title: &'static str, lines: Vec<Text>) {
        self.rest.extend(section(title, lines));
    }

    /// Says how to contain an instance by hand; without a command if none can be built.
    pub(crate) fn contain_by_hand(&mut self, instance: &Instance, text: Text) {
        self.offer(format!("Contain by hand, {}", instance.name()), text, self.execution.contain(instance));
    }

    /// Says how to release an instance; without a command if none can be built.
    pub(crate) fn release(&mut self, instance: &Instance, text: Text) {
        self.offer(format!("Release, {}", instance.name()), text, self.execution.release(instance));
    }

    fn offer(&mut self, label: String, text: Text, command: Option<String>) {
        let text = match command {
            Some(_) => text,
            None => text.and(NO_COMMAND),
        };
        self.next.push(Next { label, text, command });
    }
}

/// Why a command is left out.
pub(crate) const NO_COMMAND: &str = " The command is left out because a value that it needs is missing or cannot be \
                                     pasted safely.";

fn section(title: &'static str, lines: Vec<Text>) -> Option<Section> {
    (!lines.is_empty()).then_some(Section { title, lines })
}

/// Instances in words, for a headline: `i-0abc… in eu-west-1 (account …)`, or the first few ids.
pub(crate) fn these(instances: &[Instance]) -> String {
    match instances {
        [one] => format!("{}{}", one.name(), one.surroundings()),
        several => these_ids(several),
    }
}

/// The first ids and how many more, for a subject.
pub(crate) fn these_ids(instances: &[Instance]) -> String {
    let names: Vec<&str> = instances.iter().map(Instance::name).collect();
    match names.as_slice() {
        [] => "no instance".to_owned(),
        [one] => (*one).to_owned(),
        [one, other] => format!("{one} and {other}"),
        [one, other, ..] => format!("{one}, {other} and {} more", names.len() - 2),
    }
}
