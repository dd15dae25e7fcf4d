//! Shares the case's encrypted snapshots with the forensic account, and with nobody else.
//!
//! Anybody else they are shared with is removed, the public included, and reported as a change.

use std::collections::BTreeSet;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{CreateVolumePermission, OperationType, SnapshotAttributeName};
use containment::{Error, Forensic, Found, Goal, Irreversible, Journaled, Key, Result, State, Step, Target, Writes};
use futures::{StreamExt, TryStreamExt, stream};
use snapshots::{case_snapshots, shareable};

/// The step. Reads the case's snapshots and whom they are shared with; writes by `ModifySnapshotAttribute`. Makes evidence
/// reachable for the forensic account, so it is never undone.
#[derive(Debug, Clone)]
pub struct ShareSnapshots {
    ec2: Client,
    account: String,
    /// The stack's key, where it reaches: only what is under it can be shared and read over there
    /// (aws-behaviour#default-ebs-key).
    key: Option<String>,
}

const SHARED_WITH: &str = "SharedWith";

/// How EC2 says everybody, as a group; an account has digits only.
const EVERYBODY: &str = "all";

impl ShareSnapshots {
    /// The step in the configuration's Region, for snapshots under this key.
    pub fn new(aws: &SdkConfig, forensic: &Forensic, key: Option<String>) -> Self {
        ShareSnapshots { ec2: Client::new(aws), account: forensic.account_id.clone(), key }
    }

    async fn shared_with(&self, snapshot: String) -> Result<(Key, BTreeSet<String>)> {
        let call = self.ec2.describe_snapshot_attribute().snapshot_id(&snapshot);
        let sent = call.attribute(SnapshotAttributeName::CreateVolumePermission).send().await;
        let reply = sent.map_err(Error::aws("ec2:DescribeSnapshotAttribute", &snapshot))?;
        let name = |one: &CreateVolumePermission| {
            one.user_id.clone().or_else(|| one.group.as_ref().map(|group| group.as_str().to_owned()))
        };
        Ok((Key::new(snapshot, SHARED_WITH), reply.create_volume_permissions().iter().filter_map(name).collect()))
    }

    async fn remove(&self, snapshot: &str, others: Vec<String>) -> Result<()> {
        let (groups, users): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| name == EVERYBODY);
        let call = self.ec2.modify_snapshot_attribute().snapshot_id(snapshot);
        let call = call.attribute(SnapshotAttributeName::CreateVolumePermission).operation_type(OperationType::Remove);
        let some = |names: Vec<String>| Some(names).filter(|names| !names.is_empty());
        let sent = call.set_user_ids(some(users)).set_group_names(some(groups)).send().await;
        sent.map(|_| ()).map_err(Error::aws("ec2:ModifySnapshotAttribute", snapshot))
    }

    /// One account by its id and nothing else in the call: that is what the role allows
    /// (aws-behaviour#share-conditions).
    async fn add(&self, snapshot: &str) -> Result<()> {
        let call = self.ec2.modify_snapshot_attribute().snapshot_id(snapshot);
        let call = call.attribute(SnapshotAttributeName::CreateVolumePermission).operation_type(OperationType::Add);
        let sent = call.user_ids(&self.account).send().await;
        sent.map(|_| ()).map_err(Error::aws("ec2:ModifySnapshotAttribute", snapshot))
    }
}

impl Step for ShareSnapshots {
    /// The accounts that the snapshot is shared with, and `all` where it is public.
    type Value = BTreeSet<String>;
    type Facts = ();
    const NAME: &'static str = "share-snapshots";

    async fn read(&self, target: &Target) -> Result<Found<BTreeSet<String>, ()>> {
        let Some(key) = self.key.as_deref().filter(|_| target.account_id != self.account) else {
            return Ok(Found { state: State::new(), facts: () });
        };
        let snapshots = case_snapshots(&self.ec2, target).await?;
        let ids = shareable(&snapshots, key).into_iter().filter_map(|s| s.snapshot_id().map(ToOwned::to_owned));
        let calls: Vec<_> = ids.map(|id| self.shared_with(id)).collect();
        let state = stream::iter(calls).buffer_unordered(5).try_collect().await?;
        Ok(Found { state, facts: () })
    }

    fn contained(&self, target: &Target, found: &Found<BTreeSet<String>, ()>, _: &Journaled) -> Goal<BTreeSet<String>> {
        let only_them = BTreeSet::from([self.account.clone()]);
        let mut goal = Goal::new(found.state.keys().map(|key| (key.clone(), only_them.clone())).collect());
        if target.account_id == self.account {
            goal.not_applicable = Some("the snapshots are in the forensic account already".to_owned());
        } else if self.key.is_none() {
            goal.unsupported.push(format!(
                "in {} no snapshot can be shared: the key of encrypted copies (SnapshotKeyArn) reaches only its own \
                 Region, and a snapshot under the account's default key for EBS can't be shared",
                target.region
            ));
        } else if found.state.is_empty() {
            goal.not_applicable =
                Some("the case has no completed snapshot under the key of encrypted copies".to_owned());
        }
        goal
    }

    async fn write(&self, _: &Target, found: &Found<BTreeSet<String>, ()>, goal: &State<BTreeSet<String>>) -> Writes {
        let mut writes = Writes::default();
        for (key, wanted) in goal {
            let none = BTreeSet::new();
            let shared = found.state.get(key).unwrap_or(&none);
            let others: Vec<String> = shared.difference(wanted).cloned().collect();
            if !others.is_empty() {
                writes.note(self.remove(&key.resource, others).await);
            }
            if !wanted.is_subset(shared) {
                writes.note(self.add(&key.resource).await);
            }
        }
        writes
    }
}

impl Irreversible for ShareSnapshots {}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_snapshot_attribute::DescribeSnapshotAttributeOutput;
    use aws_sdk_ec2::operation::describe_snapshots::DescribeSnapshotsOutput;
    use aws_sdk_ec2::operation::modify_snapshot_attribute::ModifySnapshotAttributeOutput;
    use aws_sdk_ec2::types::{PermissionGroup, Snapshot, SnapshotState};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/k";
    const THEM: &str = "888888888888";

    fn target() -> Target {
        Target::example()
    }

    fn step(rules: &[&Rule]) -> ShareSnapshots {
        ShareSnapshots {
            ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules),
            account: THEM.to_owned(),
            key: Some(KEY.to_owned()),
        }
    }

    fn case(states: &'static [(&'static str, SnapshotState, &'static str)]) -> Rule {
        mock!(Client::describe_snapshots).then_output(move || {
            let all = states.iter().map(|(id, state, key)| {
                Snapshot::builder().snapshot_id(*id).state(state.clone()).encrypted(true).kms_key_id(*key).build()
            });
            DescribeSnapshotsOutput::builder().set_snapshots(Some(all.collect())).build()
        })
    }

    fn shared(with: &'static [&'static str]) -> Rule {
        mock!(Client::describe_snapshot_attribute)
            .match_requests(|r| r.attribute() == Some(&SnapshotAttributeName::CreateVolumePermission))
            .then_output(move || {
                let one = |name: &&str| match *name {
                    "all" => CreateVolumePermission::builder().group(PermissionGroup::All).build(),
                    user => CreateVolumePermission::builder().user_id(user).build(),
                };
                let all = with.iter().map(one).collect();
                DescribeSnapshotAttributeOutput::builder().set_create_volume_permissions(Some(all)).build()
            })
    }

    fn added() -> Rule {
        mock!(Client::modify_snapshot_attribute)
            .match_requests(|r| {
                r.operation_type() == Some(&OperationType::Add)
                    && r.attribute() == Some(&SnapshotAttributeName::CreateVolumePermission)
                    && r.user_ids() == [THEM]
                    && r.group_names().is_empty()
                    && r.create_volume_permission().is_none()
            })
            .then_output(|| ModifySnapshotAttributeOutput::builder().build())
    }

    const ONE: &[(&str, SnapshotState, &str)] = &[("snap-1", SnapshotState::Completed, KEY)];

    async fn write(step: &ShareSnapshots) -> Writes {
        let found = step.read(&target()).await.expect("read");
        let goal = step.contained(&target(), &found, &Journaled::default());
        step.write(&target(), &found, &goal.state).await
    }

    #[tokio::test]
    async fn a_snapshot_is_shared_with_the_forensic_account_by_its_id_alone() {
        let (case, shared, added) = (case(ONE), shared(&[]), added());
        assert!(write(&step(&[&case, &shared, &added])).await.failures.is_empty());
        assert_eq!(added.num_calls(), 1);
    }

    #[tokio::test]
    async fn anybody_else_it_is_shared_with_is_removed_and_so_is_the_public() {
        let (case, shared, added) = (case(ONE), shared(&["666666666666", "all", THEM]), added());
        let removed = mock!(Client::modify_snapshot_attribute)
            .match_requests(|r| {
                r.operation_type() == Some(&OperationType::Remove)
                    && r.user_ids() == ["666666666666"]
                    && r.group_names() == ["all"]
            })
            .then_output(|| ModifySnapshotAttributeOutput::builder().build());
        assert!(write(&step(&[&case, &shared, &removed, &added])).await.failures.is_empty());
        assert_eq!((removed.num_calls(), added.num_calls()), (1, 0));
    }

    #[tokio::test]
    async fn exactly_the_forensic_account_is_a_fixed_point() {
        let (case, shared) = (case(ONE), shared(&[THEM]));
        let step = step(&[&case, &shared]);
        let found = step.read(&target()).await.expect("read");
        assert_eq!(
            (step.contained(&target(), &found, &Journaled::default()).state, found.state.len()),
            (found.state, 1)
        );
    }

    #[tokio::test]
    async fn a_snapshot_that_is_pending_or_under_another_key_is_not_shared() {
        const SNAPSHOTS: &[(&str, SnapshotState, &str)] = &[
            ("snap-1", SnapshotState::Pending, KEY),
            ("snap-2", SnapshotState::Completed, "arn:aws:kms:eu-west-1:123456789012:key/aws-ebs"),
        ];
        let case = case(SNAPSHOTS);
        let step = step(&[&case]);
        let found = step.read(&target()).await.expect("read");
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert!(found.state.is_empty() && goal.not_applicable.expect("why").contains("no completed snapshot"));
    }

    #[tokio::test]
    async fn in_a_region_without_the_stacks_key_nothing_is_read_and_the_reason_is_given() {
        let step = ShareSnapshots { key: None, ..step(&[]) };
        let found = step.read(&target()).await.expect("read");
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert!(goal.unsupported[0].starts_with("in eu-west-1 no snapshot can be shared"), "{:?}", goal.unsupported);
    }

    #[tokio::test]
    async fn in_the_forensic_account_itself_there_is_nothing_to_share() {
        let step = ShareSnapshots { account: target().account_id, ..step(&[]) };
        let found = step.read(&target()).await.expect("read");
        assert!(
            step.contained(&target(), &found, &Journaled::default()).not_applicable.expect("why").contains("already")
        );
    }

    #[tokio::test]
    async fn a_refused_share_names_the_call_and_the_snapshot() {
        let refused = mock!(Client::modify_snapshot_attribute).then_error(|| {
            let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("OperationNotPermitted").build();
            aws_sdk_ec2::operation::modify_snapshot_attribute::ModifySnapshotAttributeError::generic(meta)
        });
        let (case, shared) = (case(ONE), shared(&[]));
        let writes = write(&step(&[&case, &shared, &refused])).await;
        let said = writes.failures[0].to_string();
        assert!(said.starts_with("ec2:ModifySnapshotAttribute on snap-1: OperationNotPermitted"), "{said}");
    }
}
