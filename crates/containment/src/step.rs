//! The shape of a step.
//!
//! A state is a value. A step reads its state, knows the state it should end in, and can write one over the other.
//! Idempotency, dry run, verification, repair and release follow from the loop, without code in the step:
//! [`converge`](crate::converge()) and [`release`](crate::release()).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Journaled, Result, Target};

/// One attribute of one resource: where a value lives in AWS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key {
    /// An AWS id or name.
    pub resource: String,
    /// Which attribute of it, without a `|`.
    pub attribute: String,
}

impl Key {
    /// A key for an attribute of a resource.
    pub fn new(resource: impl Into<String>, attribute: impl Into<String>) -> Self {
        Key { resource: resource.into(), attribute: attribute.into() }
    }

    /// The key as one text, as the journal and events have it: `RESOURCE|ATTRIBUTE`.
    pub fn to_text(&self) -> String {
        format!("{}|{}", self.resource, self.attribute)
    }

    /// A key from its text; a resource's name may have a `|`, an attribute's has none.
    pub fn from_text(text: &str) -> Option<Self> {
        text.rsplit_once('|').map(|(resource, attribute)| Key::new(resource, attribute))
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_text()
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Key, String> {
        Key::from_text(&text).ok_or_else(|| format!("{text:?} is not RESOURCE|ATTRIBUTE"))
    }
}

/// A part of the world as a plain ordered value. What is absent has no key.
pub type State<V> = BTreeMap<Key, V>;

/// The keys at which two states differ.
pub(crate) fn diff<V: PartialEq>(one: &State<V>, other: &State<V>) -> BTreeSet<Key> {
    one.keys().chain(other.keys()).filter(|key| one.get(key) != other.get(key)).cloned().collect()
}

pub(crate) fn json<V: Serialize>(value: Option<&V>) -> Result<Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::Misconfigured(format!("a state can't be written as JSON: {error}")))
}

/// What [`Step::read`] found: the state it can change, and facts that only inform.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<V, F> {
    /// What containment may change.
    pub state: State<V>,
    /// What it only needs to know.
    pub facts: F,
}

/// The state to end in, and what no change by this step can bring about.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal<V> {
    /// The state to end in.
    pub state: State<V>,
    /// What an attacker can still do when the state is reached; at a release, what the reader must know.
    pub residual_risk: Vec<String>,
    /// What AWS does not offer for this instance; at a release, what is not restored, why, and how to finish it by hand.
    pub unsupported: Vec<String>,
    /// Why there is nothing to do, if so.
    pub not_applicable: Option<String>,
}

impl<V> Goal<V> {
    /// A goal without reservations.
    pub fn new(state: State<V>) -> Self {
        Goal { state, residual_risk: Vec::new(), unsupported: Vec::new(), not_applicable: None }
    }
}

/// What came of a write: every change was tried, and whatever failed is here.
#[derive(Debug, Default)]
pub struct Writes {
    /// The calls that failed.
    pub failures: Vec<Error>,
    /// What the reader must know that only the write could find out.
    pub residual_risk: Vec<String>,
    /// Something waits for room at AWS (such as one of 20 concurrent snapshot copies); the workflow asks again.
    pub waiting: bool,
    /// How long it is worth reading back until what AWS has accepted has settled; after that the answer is `InProgress`.
    pub settles_within: Duration,
}

impl Writes {
    /// Takes note of a call's failure, if it failed.
    pub fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.failures.push(error)).ok()
    }
}

/// One step of containment. It is also either [`Reversible`](crate::Reversible) or [`Irreversible`].
pub trait Step: Sync {
    /// The value of one attribute.
    type Value: Clone + Debug + PartialEq + Serialize + Send + Sync;
    /// What the step needs to know beside the state.
    type Facts: Debug + Send + Sync;
    /// The step's name: folder, crate, function and `Step` of the outcome.
    const NAME: &'static str;

    /// AWS as it is now; never changes anything.
    fn read(&self, target: &Target) -> impl Future<Output = Result<Found<Self::Value, Self::Facts>>> + Send;

    /// The state to end in: pure, and a fixed point (what is contained stays as it is).
    ///
    /// `journaled` is what this case has done here so far, for a step to which it matters who did it.
    fn contained(
        &self,
        target: &Target,
        found: &Found<Self::Value, Self::Facts>,
        journaled: &Journaled,
    ) -> Goal<Self::Value>;

    /// Whether AWS has accepted the change of this value already, so that there is nothing to write.
    fn accepted(&self, _value: &Self::Value) -> bool {
        false
    }

    /// Moves the world from what was found to the goal. Tries everything, whatever fails; safe to repeat.
    fn write(
        &self,
        target: &Target,
        found: &Found<Self::Value, Self::Facts>,
        goal: &State<Self::Value>,
    ) -> impl Future<Output = Writes> + Send;
}

/// A step that a release leaves alone: it makes evidence, or ends something for good.
pub trait Irreversible: Step {}
