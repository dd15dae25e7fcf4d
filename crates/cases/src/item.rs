//! An item of the table.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

/// An item's attributes by name; empty if there is no such item.
#[derive(Debug, Default)]
pub(crate) struct Item(HashMap<String, AttributeValue>);

impl From<HashMap<String, AttributeValue>> for Item {
    fn from(attributes: HashMap<String, AttributeValue>) -> Self {
        Item(attributes)
    }
}

impl Item {
    pub(crate) fn exists(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_s().ok().cloned()
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_n().ok()?.parse().ok()
    }

    pub(crate) fn set(&self, name: &str) -> BTreeSet<String> {
        self.0.get(name).and_then(|value| value.as_ss().ok()).into_iter().flatten().cloned().collect()
    }

    /// The attributes that are text, by name.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_s().ok()?.as_str())))
    }
}
