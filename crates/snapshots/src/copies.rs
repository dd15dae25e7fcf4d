//! Copies of snapshots, in this account or in the forensic one: their states, and the requests for them.

use aws_sdk_ec2::types::Snapshot;
use containment::{Result, Writes};
use futures::{StreamExt, stream};
use serde::Serialize;

/// `CopySnapshot` succeeds even if its key is not accessible, and the copy fails later
/// (aws-behaviour#silent-copy-failure): one more try, then a person has to act.
const COPIES_AT_MOST: usize = 2;

/// The state of a snapshot's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnapshotCopy {
    /// Absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// `none`, `waiting for its source`, `pending`, `completed`, `completed under another key`, `completed with
    /// another size`, `error: …`
    pub state: String,
    /// The key that the copy is under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

impl SnapshotCopy {
    /// No copy yet, with the reason.
    pub fn none(state: &str) -> Self {
        SnapshotCopy { snapshot_id: None, state: state.to_owned(), kms_key_id: None }
    }

    /// A copy that EC2 shows, with this state.
    pub fn shown(copy: &Snapshot, state: String) -> Self {
        SnapshotCopy { snapshot_id: copy.snapshot_id.clone(), state, kms_key_id: copy.kms_key_id.clone() }
    }

    /// The copy after it has been made.
    pub fn completed(&self) -> Self {
        SnapshotCopy { state: "completed".to_owned(), ..self.clone() }
    }

    /// Whether to request another copy after this many.
    pub fn is_missing(&self, tried: usize) -> bool {
        tried < COPIES_AT_MOST && self.state != "completed"
    }
}

/// The copy that counts, of several.
pub fn best(copies: impl Iterator<Item = SnapshotCopy>) -> Option<SnapshotCopy> {
    copies.min_by_key(|copy| match copy.state.as_str() {
        "completed" => 0,
        "pending" => 1,
        _ => 2,
    })
}

/// Requests copies, five at once. AWS allows 20 at a time in each destination Region, for all cases together
/// (aws-behaviour#snapshot-quotas): further copies wait.
pub async fn ask_for(calls: Vec<impl Future<Output = Result<()>>>) -> Writes {
    let mut writes = Writes::default();
    for result in stream::iter(calls).buffer_unordered(5).collect::<Vec<_>>().await {
        match result {
            Err(error) if error.code() == Some("ResourceLimitExceeded") => writes.waiting = true,
            result => _ = writes.note(result),
        }
    }
    writes
}
