//! Where "before" is kept: write-once, ahead of the first change (traps H8, L1).

use std::collections::BTreeMap;
use std::future::Future;

use serde_json::Value;

use crate::{Key, Result, Target};

/// First values by key; null where there was none.
pub type First = BTreeMap<Key, Value>;

/// What a case knows of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// The first values of what it changes.
    pub first: First,
    /// All that it saw when it first ran, changed or not; absent until then, and where nobody needs it.
    pub seen: Option<First>,
}

/// A write-once memory of what each step of a case found first.
pub trait Journal: Sync {
    /// What is kept of the step, so far.
    fn kept(&self, target: &Target, step: &str) -> impl Future<Output = Result<Kept>> + Send;

    /// Keeps each first value unless the key has one already, and what was seen unless there is something; answers what is
    /// kept.
    fn keep(
        &self,
        target: &Target,
        step: &str,
        first: &First,
        seen: Option<&First>,
    ) -> impl Future<Output = Result<Kept>> + Send;

    /// Keeps first values, and what was seen, in the name of a step that has not looked yet; false, and nothing kept, where it
    /// has.
    fn keep_ahead(
        &self,
        target: &Target,
        step: &str,
        first: &First,
        seen: Option<&First>,
    ) -> impl Future<Output = Result<bool>> + Send {
        async move {
            let is_ahead = self.kept(target, step).await?.seen.is_none();
            if is_ahead {
                self.keep(target, step, first, seen).await?;
            }
            Ok(is_ahead)
        }
    }

    /// What the step found first, so far.
    fn first(&self, target: &Target, step: &str) -> impl Future<Output = Result<First>> + Send {
        async move { Ok(self.kept(target, step).await?.first) }
    }

    /// Keeps each value unless the key has one already; answers what is kept.
    fn keep_first(&self, target: &Target, step: &str, found: &First) -> impl Future<Output = Result<First>> + Send {
        async move { Ok(self.keep(target, step, found, None).await?.first) }
    }
}

/// A journal in memory, for tests of the loop.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Memory(std::sync::Mutex<BTreeMap<(String, String), Kept>>);

#[cfg(test)]
impl Journal for Memory {
    async fn kept(&self, target: &Target, step: &str) -> Result<Kept> {
        Ok(self.0.lock().expect("lock").get(&(target.case_id.clone(), step.to_owned())).cloned().unwrap_or_default())
    }

    async fn keep(&self, target: &Target, step: &str, first: &First, seen: Option<&First>) -> Result<Kept> {
        let mut all = self.0.lock().expect("lock");
        let kept = all.entry((target.case_id.clone(), step.to_owned())).or_default();
        for (key, value) in first {
            kept.first.entry(key.clone()).or_insert_with(|| value.clone());
        }
        kept.seen = kept.seen.take().or_else(|| seen.cloned());
        Ok(kept.clone())
    }
}
