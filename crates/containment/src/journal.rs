//! The case's journal: what each step found before the case changed it, written once, ahead of the change.

use std::collections::BTreeMap;
use std::future::Future;

use serde_json::Value;

use crate::{Key, Result, Target};

/// First values by key; null for what was absent.
pub type First = BTreeMap<Key, Value>;

/// What the journal of a case holds of one step: what this case knows beside what AWS shows now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Journaled {
    /// The first value of everything that this case has changed, or was about to change.
    pub first: First,
    /// Everything that the step found on its first run, changed or not. Absent before that run, and for every step whose
    /// release does not need it.
    pub baseline: Option<First>,
}

impl Journaled {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.baseline.is_none()
    }
}

impl From<First> for Journaled {
    fn from(first: First) -> Self {
        Journaled { first, baseline: None }
    }
}

/// Where a case keeps what its steps found first. Every value is written once and never replaced.
pub trait Journal: Sync {
    /// What the journal holds of the step so far.
    fn read(&self, target: &Target, step: &str) -> impl Future<Output = Result<Journaled>> + Send;

    /// Adds every value that the journal does not hold yet; answers what it holds then.
    fn keep(&self, target: &Target, step: &str, new: &Journaled) -> impl Future<Output = Result<Journaled>> + Send;

    /// [`keep`](Journal::keep) on behalf of a step that has not run yet. False, and nothing is kept, once the journal holds
    /// the step's baseline.
    fn keep_ahead(&self, target: &Target, step: &str, new: &Journaled) -> impl Future<Output = Result<bool>> + Send;
}

/// A journal in memory, write-once like the table.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug, Default)]
pub struct MemoryJournal(std::sync::Mutex<BTreeMap<(String, String), Journaled>>);

#[cfg(any(test, feature = "test-util"))]
impl MemoryJournal {
    /// A journal that holds this of one step of the case that [`Target::example`] names.
    pub fn of(step: &str, journaled: impl Into<Journaled>) -> Self {
        let journal = MemoryJournal::default();
        journal.records().insert(record(&Target::example(), step), journaled.into());
        journal
    }

    fn records(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Journaled>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Journal for MemoryJournal {
    async fn read(&self, target: &Target, step: &str) -> Result<Journaled> {
        Ok(self.records().get(&record(target, step)).cloned().unwrap_or_default())
    }

    async fn keep(&self, target: &Target, step: &str, new: &Journaled) -> Result<Journaled> {
        let mut records = self.records();
        let held = records.entry(record(target, step)).or_default();
        for (key, value) in &new.first {
            held.first.entry(key.clone()).or_insert_with(|| value.clone());
        }
        held.baseline = held.baseline.take().or_else(|| new.baseline.clone());
        Ok(held.clone())
    }

    async fn keep_ahead(&self, target: &Target, step: &str, new: &Journaled) -> Result<bool> {
        let is_ahead = self.read(target, step).await?.baseline.is_none();
        if is_ahead {
            self.keep(target, step, new).await?;
        }
        Ok(is_ahead)
    }
}

#[cfg(any(test, feature = "test-util"))]
fn record(target: &Target, step: &str) -> (String, String) {
    (target.case_id.clone(), step.to_owned())
}
