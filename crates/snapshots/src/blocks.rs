//! The hash lists of snapshots: `hash-snapshots` keeps them in the journal, and `seal-evidence` reads them.

use std::collections::BTreeMap;

use containment::{Error, First, Journal, Result, Target};
use serde::{Deserialize, Serialize};

/// The function that makes the lists, which is also the name of its journal.
pub const HASH_SNAPSHOTS: &str = "hash-snapshots";

/// A part of a snapshot's list: a piece of evidence with a line `INDEX SHA256` for each block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Part {
    /// The key in the evidence bucket, without the case's prefix.
    pub name: String,
    /// SHA-256 of the part's bytes, 64 hexadecimal digits.
    pub sha256: String,
    /// How many blocks it has.
    pub blocks: u64,
    /// The index at which the next part begins; absent in the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i32>,
}

/// A snapshot's list, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlockList {
    /// The parts' names, in order.
    pub parts: Vec<String>,
    /// How many blocks of 512 KiB the snapshot has.
    pub count: u64,
    /// SHA-256 of the parts' SHA-256s, each followed by a newline: one number for the whole snapshot.
    pub sha256: String,
}

impl BlockList {
    /// The list of a snapshot from all its parts; none while the last one is missing.
    pub fn whole(parts: &[Part]) -> Option<BlockList> {
        parts.last().filter(|last| last.next.is_none())?;
        let hashes: String = parts.iter().map(|part| format!("{}\n", part.sha256)).collect();
        Some(BlockList {
            parts: parts.iter().map(|part| part.name.clone()).collect(),
            count: parts.iter().map(|part| part.blocks).sum(),
            sha256: custody::sha256(hashes.as_bytes()),
        })
    }
}

/// The lists that are whole, by snapshot, from the case's journal.
pub async fn block_lists(journal: &impl Journal, target: &Target) -> Result<BTreeMap<String, BlockList>> {
    let parts = parts(&journal.read(target, HASH_SNAPSHOTS).await?.first)?;
    Ok(parts.iter().filter_map(|(snapshot, parts)| Some((snapshot.clone(), BlockList::whole(parts)?))).collect())
}

/// The parts of lists by snapshot, in the order of their numbers.
pub type Parts = BTreeMap<String, Vec<Part>>;

/// The parts that the journal of `hash-snapshots` has.
///
/// Errors: `Misconfigured` if a record is not a part.
pub fn parts(first: &First) -> Result<Parts> {
    let mut all = Parts::new();
    for (key, value) in first {
        let part: Part = serde_json::from_value(value.clone())
            .map_err(|error| Error::Misconfigured(format!("the journal of {HASH_SNAPSHOTS}: {error}")))?;
        all.entry(key.resource.clone()).or_default().push(part);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containment::Key;
    use serde_json::json;

    fn part(number: usize, next: Option<i32>) -> Part {
        Part { name: format!("part-{number}"), sha256: format!("{number}").repeat(64), blocks: 10, next }
    }

    #[test]
    fn a_list_is_whole_only_with_its_last_part() {
        assert_eq!(BlockList::whole(&[]), None);
        assert_eq!(BlockList::whole(&[part(1, Some(10))]), None);
        let list = BlockList::whole(&[part(1, Some(10)), part(2, None)]).expect("whole");
        assert_eq!((list.count, list.parts.len()), (20, 2));
        let both = format!("{}\n{}\n", "1".repeat(64), "2".repeat(64));
        assert_eq!(list.sha256, custody::sha256(both.as_bytes()));
    }

    #[test]
    fn parts_are_in_the_order_of_their_numbers() {
        let first: First = (1..=11)
            .map(|n| (Key::new("snap-1", format!("part-{n:05}")), json!(part(n, (n < 11).then_some(1)))))
            .collect();
        let parts = &parts(&first).expect("parts")["snap-1"];
        assert_eq!(parts.iter().map(|part| part.name.as_str()).next_back(), Some("part-11"));
        assert!(BlockList::whole(parts).is_some());
    }
}
