//! Deletes the unencrypted original of every snapshot whose encrypted copy has been verified: only if the operator has
//! chosen so in the template, because the copy's lineage ends there (aws-behaviour#deleted-originals).

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Snapshot;
use containment::{Error, Found, Goal, Irreversible, Journaled, Key, Result, State, Step, Target, Writes};
use snapshots::{case_snapshots, is_verified};

/// The step. Reads the case's snapshots; deletes by `DeleteSnapshot`. Nothing brings an original back.
#[derive(Debug, Clone)]
pub struct DeleteOriginals {
    ec2: Client,
    wanted: bool,
    key: Option<String>,
}

impl DeleteOriginals {
    /// The step in the configuration's Region; `wanted` is the operator's decision, `key` the key of verified copies.
    pub fn new(aws: &SdkConfig, wanted: bool, key: Option<String>) -> Self {
        DeleteOriginals { ec2: Client::new(aws), wanted, key }
    }
}

impl Step for DeleteOriginals {
    /// The copy that stands for the original.
    type Value = String;
    type Facts = ();
    const NAME: &'static str = "delete-originals";

    /// Reads only the originals that a verified copy replaces.
    async fn read(&self, target: &Target) -> Result<Found<String, ()>> {
        // Tags say what is a copy of what, and anybody can write tags (aws-behaviour#tags); only the stack can write
        // under its key.
        let (true, Some(key)) = (self.wanted, self.key.as_deref()) else {
            return Ok(Found { state: State::new(), facts: () });
        };
        let snapshots = case_snapshots(&self.ec2, target).await?;
        let replaced = snapshots.originals.iter().filter(|s| !s.encrypted().unwrap_or(false)).filter_map(|original| {
            let id = original.snapshot_id()?;
            let replaces =
                |copy: &&Snapshot| is_verified(copy, Some(key)) && copy.volume_size() == original.volume_size();
            let copy = snapshots.copies.get(id)?.iter().find(replaces)?;
            Some((Key::new(id, "Original"), copy.snapshot_id()?.to_owned()))
        });
        Ok(Found { state: replaced.collect(), facts: () })
    }

    fn contained(&self, _: &Target, found: &Found<String, ()>, _: &Journaled) -> Goal<String> {
        let mut goal = Goal::new(State::new());
        if !self.wanted {
            goal.not_applicable =
                Some("unencrypted originals are kept (DeleteUnencryptedOriginals is false)".to_owned());
        } else if self.key.is_none() {
            goal.not_applicable = Some("originals are kept where the stack's key does not reach".to_owned());
        } else if found.state.is_empty() {
            goal.not_applicable = Some("there is no unencrypted original with a verified copy".to_owned());
        }
        goal
    }

    async fn write(&self, _: &Target, found: &Found<String, ()>, _: &State<String>) -> Writes {
        let mut writes = Writes::default();
        for key in found.state.keys() {
            let sent = self.ec2.delete_snapshot().snapshot_id(&key.resource).send().await;
            writes.note(sent.map_err(Error::aws("ec2:DeleteSnapshot", &key.resource)));
        }
        writes
    }
}

impl Irreversible for DeleteOriginals {}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::delete_snapshot::DeleteSnapshotOutput;
    use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
    use aws_sdk_ec2::types::{SnapshotState, Tag};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    fn target() -> Target {
        Target::example()
    }

    fn case(copy: SnapshotState) -> Rule {
        mock!(Client::describe_snapshots).then_output(move || {
            let done = SnapshotState::Completed;
            let original = Snapshot::builder().snapshot_id("snap-1").encrypted(false).state(done.clone());
            let source = Tag::builder().key("SourceSnapshotId").value("snap-1").build();
            let copy = Snapshot::builder()
                .snapshot_id("snap-2")
                .encrypted(true)
                .state(copy.clone())
                .tags(source)
                .kms_key_id("key");
            DescribeSnapshotsOutput::builder().snapshots(original.build()).snapshots(copy.build()).build()
        })
    }

    fn step(rules: &[&Rule], wanted: bool) -> DeleteOriginals {
        DeleteOriginals {
            ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules),
            wanted,
            key: Some("key".to_owned()),
        }
    }

    #[tokio::test]
    async fn originals_are_kept_and_not_even_read_unless_the_operator_chooses_so() {
        let found = step(&[], false).read(&target()).await.expect("read");
        let goal = step(&[], false).contained(&target(), &found, &Journaled::default());
        assert!(goal.not_applicable.expect("why").contains("are kept"));
    }

    #[tokio::test]
    async fn a_copy_under_another_key_replaces_nothing() {
        let case = case(SnapshotState::Completed);
        let mut step = step(&[&case], true);
        step.key = Some("another key".to_owned());
        assert!(step.read(&target()).await.expect("read").state.is_empty());
        step.key = None;
        assert!(step.read(&target()).await.expect("read").state.is_empty());
    }

    #[tokio::test]
    async fn an_original_is_deleted_only_after_its_copy_has_completed() {
        for (state, deletions) in
            [(SnapshotState::Completed, 1), (SnapshotState::Pending, 0), (SnapshotState::Error, 0)]
        {
            let deleted = mock!(Client::delete_snapshot)
                .match_requests(|r| r.snapshot_id() == Some("snap-1"))
                .then_output(|| DeleteSnapshotOutput::builder().build());
            let case = case(state);
            let step = step(&[&case, &deleted], true);
            let found = step.read(&target()).await.expect("read");
            step.write(&target(), &found, &State::new()).await;
            assert_eq!(deleted.num_calls(), deletions);
        }
    }
}
