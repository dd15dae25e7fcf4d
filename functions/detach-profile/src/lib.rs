//! Detaches the instance profile, so that the instance metadata service hands out no new credentials.
//!
//! Credentials already handed out stay valid: `revoke-credentials` goes first and denies those (trap B1).

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::IamInstanceProfileAssociation;
use containment::{Error, Found, Goal, Key, Result, State, Step, Target, Writes};
use serde::Serialize;

/// The step. Reads the instance's profile associations; changes them by `DisassociateIamInstanceProfile` (trap B6).
#[derive(Debug, Clone)]
pub struct DetachProfile {
    ec2: Client,
}

/// A profile's association, as the journal keeps it for the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Association {
    profile_arn: String,
    state: String,
}

impl DetachProfile {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        DetachProfile { ec2: Client::new(aws) }
    }
}

impl Step for DetachProfile {
    type Value = Association;
    type Facts = ();
    const NAME: &'static str = "detach-profile";
    const SETTLES_WITHIN: Duration = Duration::from_secs(15);

    async fn read(&self, target: &Target) -> Result<Found<Association, ()>> {
        let found = instance::profile_associations(&self.ec2, target).await?;
        let association = |found: &IamInstanceProfileAssociation| {
            let state = found.state().map_or("unknown", |s| s.as_str()).to_owned();
            let profile_arn = found.iam_instance_profile().and_then(|p| p.arn()).unwrap_or_default().to_owned();
            Some((Key::new(found.association_id()?, "InstanceProfile"), Association { profile_arn, state }))
        };
        let state: State<Association> = found.iter().filter_map(association).collect();
        Ok(Found { state: state.into_iter().filter(|(_, a)| a.state != "disassociated").collect(), facts: () })
    }

    fn contained(&self, _: &Target, found: &Found<Association, ()>) -> Goal<Association> {
        let mut goal = Goal::new(State::new());
        if found.state.is_empty() {
            goal.not_applicable = Some("the instance has no instance profile".to_owned());
        }
        goal
    }

    fn accepted(&self, association: &Association) -> bool {
        association.state == "disassociating"
    }

    async fn write(&self, _: &Target, found: &Found<Association, ()>, _: &State<Association>) -> Writes {
        let mut writes = Writes::default();
        for (key, _) in found.state.iter().filter(|(_, association)| !self.accepted(association)) {
            let sent = self.ec2.disassociate_iam_instance_profile().association_id(&key.resource).send().await;
            writes.note(sent.map_err(Error::aws("ec2:DisassociateIamInstanceProfile", &key.resource)));
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_iam_instance_profile_associations::DescribeIamInstanceProfileAssociationsOutput;
    use aws_sdk_ec2::operation::disassociate_iam_instance_profile::DisassociateIamInstanceProfileOutput;
    use aws_sdk_ec2::types::{IamInstanceProfile, IamInstanceProfileAssociationState};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    fn target() -> Target {
        Target::example()
    }

    fn shows(states: &'static [IamInstanceProfileAssociationState]) -> Rule {
        mock!(Client::describe_iam_instance_profile_associations).then_output(move || {
            let associations = states.iter().map(|state| {
                IamInstanceProfileAssociation::builder()
                    .association_id("iip-assoc-1")
                    .state(state.clone())
                    .iam_instance_profile(
                        IamInstanceProfile::builder().arn("arn:aws:iam::1:instance-profile/web").build(),
                    )
                    .build()
            });
            DescribeIamInstanceProfileAssociationsOutput::builder()
                .set_iam_instance_profile_associations(Some(associations.collect()))
                .build()
        })
    }

    fn step(rules: &[&Rule]) -> DetachProfile {
        DetachProfile { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, rules) }
    }

    #[tokio::test]
    async fn an_instance_without_a_profile_has_nothing_to_detach() {
        let none = shows(&[]);
        let step = step(&[&none]);
        let found = step.read(&target()).await.expect("read");
        assert!(step.contained(&target(), &found).not_applicable.is_some());
    }

    #[tokio::test]
    async fn a_profile_on_its_way_out_is_accepted_and_not_detached_twice() {
        let leaving = shows(&[IamInstanceProfileAssociationState::Disassociating]);
        let step = step(&[&leaving]);
        let found = step.read(&target()).await.expect("read");
        let goal = step.contained(&target(), &found);
        assert!(found.state.values().all(|a| step.accepted(a)));
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
    }

    #[tokio::test]
    async fn an_associated_profile_is_detached_by_its_association() {
        let there = shows(&[IamInstanceProfileAssociationState::Associated]);
        let detached = mock!(Client::disassociate_iam_instance_profile)
            .match_requests(|r| r.association_id() == Some("iip-assoc-1"))
            .then_output(|| DisassociateIamInstanceProfileOutput::builder().build());
        let step = step(&[&there, &detached]);
        let found = step.read(&target()).await.expect("read");
        step.write(&target(), &found, &State::new()).await;
        assert_eq!(detached.num_calls(), 1);
    }
}
