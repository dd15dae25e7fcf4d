//! Detaches the instance profile, so that the instance metadata service hands out no new credentials.
//!
//! Credentials already handed out stay valid: `revoke-credentials` goes first and denies those
//! (aws-behaviour#issued-credentials).

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::IamInstanceProfileAssociation;
use aws_sdk_ec2::types::IamInstanceProfileSpecification;
use containment::{
    Error, First, Found, Goal, Journaled, Key, OnDrift, Result, Reversible, State, Step, Target, Writes, command,
    first_values,
};
use serde::{Deserialize, Serialize};

/// The step. Reads the instance's profile associations; changes them by `DisassociateIamInstanceProfile`
/// (aws-behaviour#profile-association), and back by `AssociateIamInstanceProfile`, which makes an association with
/// another id.
#[derive(Debug, Clone)]
pub struct DetachProfile {
    ec2: Client,
}

/// A profile's association, as the journal keeps it for the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

    async fn associate(&self, target: &Target, profile: &str) -> Result<()> {
        let specification = IamInstanceProfileSpecification::builder().arn(profile).build();
        let call = self.ec2.associate_iam_instance_profile().instance_id(&target.instance_id);
        let sent = call.iam_instance_profile(specification).send().await;
        let by_hand =
            by_hand(target, "ec2 associate-iam-instance-profile", "--instance-id", &target.instance_id, profile);
        let advice = format!("if the profile or its role was deleted, create it again first, then run {by_hand}");
        sent.map(|_| ())
            .map_err(Error::aws("ec2:AssociateIamInstanceProfile", profile))
            .map_err(|error| error.with_advice(&advice))
    }
}

const PROFILE: &str = "InstanceProfile";
const ASSOCIATED: &str = "associated";
const ASSOCIATING: &str = "associating";
const DISASSOCIATING: &str = "disassociating";

/// An association mostly comes or goes within seconds: the loop waits for it rather than the workflow.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

fn by_hand(target: &Target, operation: &str, option: &str, id: &str, profile: &str) -> String {
    command(target, operation, &[(option, &[id]), ("--iam-instance-profile", &[&format!("Arn={profile}")])])
}

/// The profile to go back to: an instance has one at a time. If somebody associated another one with the contained
/// instance and containment detached that too, the journal has both, and the target says which was first.
fn wanted(
    target: &Target,
    journaled: &[(Key, Option<Association>)],
) -> std::result::Result<(Key, Association), String> {
    let all: Vec<(&Key, &Association)> =
        journaled.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).collect();
    let first = all.iter().find(|(_, a)| Some(&a.profile_arn) == target.instance_profile_arn.as_ref());
    let differ = all.iter().any(|(_, a)| a.profile_arn != all[0].1.profile_arn);
    match first.or(all.first().filter(|_| !differ)) {
        Some((key, association)) => {
            Ok(((*key).clone(), Association { state: ASSOCIATED.to_owned(), ..(*association).clone() }))
        }
        None => {
            let profiles: Vec<String> = all.iter().map(|(_, a)| format!("{:?}", a.profile_arn)).collect();
            Err(format!(
                "the first instance profile of {} is unknown, since containment has detached {}: associate the right \
                 one by hand",
                target.instance_id,
                profiles.join(" and ")
            ))
        }
    }
}

impl Step for DetachProfile {
    type Value = Association;
    type Facts = ();
    const NAME: &'static str = "detach-profile";

    async fn read(&self, target: &Target) -> Result<Found<Association, ()>> {
        let found = instance::profile_associations(&self.ec2, target).await?;
        let association = |found: &IamInstanceProfileAssociation| {
            let state = found.state().map_or("unknown", |s| s.as_str()).to_owned();
            let profile_arn = found.iam_instance_profile().and_then(|p| p.arn()).unwrap_or_default().to_owned();
            Some((Key::new(found.association_id()?, PROFILE), Association { profile_arn, state }))
        };
        let state: State<Association> = found.iter().filter_map(association).collect();
        Ok(Found { state: state.into_iter().filter(|(_, a)| a.state != "disassociated").collect(), facts: () })
    }

    fn contained(&self, _: &Target, found: &Found<Association, ()>, _: &Journaled) -> Goal<Association> {
        let mut goal = Goal::new(State::new());
        if found.state.is_empty() {
            goal.not_applicable = Some("the instance has no instance profile".to_owned());
        }
        goal
    }

    fn accepted(&self, association: &Association) -> bool {
        association.state == DISASSOCIATING
    }

    async fn write(&self, target: &Target, found: &Found<Association, ()>, goal: &State<Association>) -> Writes {
        let mut writes = Writes { settles_within: SETTLES_WITHIN, ..Writes::default() };
        let unwanted = found.state.iter().filter(|(key, _)| !goal.contains_key(*key));
        for (key, _) in unwanted.filter(|(_, association)| !self.accepted(association)) {
            let sent = self.ec2.disassociate_iam_instance_profile().association_id(&key.resource).send().await;
            writes.note(sent.map_err(Error::aws("ec2:DisassociateIamInstanceProfile", &key.resource)));
        }
        if found.state.is_empty() {
            for association in goal.values() {
                writes.note(self.associate(target, &association.profile_arn).await);
            }
        }
        writes
    }
}

impl Reversible for DetachProfile {
    const ON_DRIFT: OnDrift = OnDrift::Discard;

    /// Compares profiles and not associations, whose ids are new each time. Another profile that somebody has
    /// associated since stays: the instance may be meant to have it now.
    fn released(&self, target: &Target, found: &Found<Association, ()>, first: &First) -> Goal<Association> {
        let mut goal = Goal::new(found.state.clone());
        let (values, unreadable) = first_values::<Association>(first);
        goal.unsupported = unreadable;
        if values.iter().all(|(_, value)| value.is_none()) {
            return goal;
        }
        if target.instance_profile_arn.as_deref() == Some("") {
            let profiles = values.iter().filter_map(|(_, value)| Some(format!("{:?}", value.as_ref()?.profile_arn)));
            goal.residual_risk.push(format!(
                "{} had no instance profile when the case was opened: {}, which somebody associated while it was \
                 contained, is not restored",
                target.instance_id,
                profiles.collect::<Vec<_>>().join(" and ")
            ));
            return goal;
        }
        let (key, wanted) = match wanted(target, &values) {
            Ok(wanted) => wanted,
            Err(unknown) => {
                goal.unsupported.push(unknown);
                return goal;
            }
        };
        goal.state.retain(|_, association| association.state != DISASSOCIATING);
        match goal.state.iter_mut().next() {
            Some((_, there)) if there.profile_arn == wanted.profile_arn => *there = wanted,
            Some((other, there)) => {
                let (operation, profile) = ("ec2 replace-iam-instance-profile-association", &wanted.profile_arn);
                let by_hand = by_hand(target, operation, "--association-id", &other.resource, profile);
                goal.unsupported.push(format!(
                    "somebody has associated {:?} since, and it stays; the first profile, {profile:?}, comes back \
                     with {by_hand}",
                    there.profile_arn
                ));
            }
            None => _ = goal.state.insert(key, wanted),
        }
        goal
    }

    /// An instance takes a profile only after the last one is gone.
    fn returning(&self, association: &Association, wanted: Option<&Association>) -> bool {
        association.state == DISASSOCIATING || (association.state == ASSOCIATING && wanted.is_some())
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
        assert!(step.contained(&target(), &found, &Journaled::default()).not_applicable.is_some());
    }

    #[tokio::test]
    async fn a_profile_on_its_way_out_is_accepted_and_not_detached_twice() {
        let leaving = shows(&[IamInstanceProfileAssociationState::Disassociating]);
        let step = step(&[&leaving]);
        let found = step.read(&target()).await.expect("read");
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert!(found.state.values().all(|a| step.accepted(a)));
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
    }

    const WEB: &str = "arn:aws:iam::1:instance-profile/web";

    fn first(associations: &[(&str, &str)]) -> First {
        let value = |arn: &str| serde_json::json!({ "ProfileArn": arn, "State": "associated" });
        associations.iter().map(|(id, arn)| (Key::new(*id, PROFILE), value(arn))).collect()
    }

    fn found(associations: &[(&str, &str, &str)]) -> Found<Association, ()> {
        let association = |(id, arn, state): &(&str, &str, &str)| {
            (Key::new(*id, PROFILE), Association { profile_arn: (*arn).into(), state: (*state).into() })
        };
        Found { state: associations.iter().map(association).collect(), facts: () }
    }

    #[tokio::test]
    async fn a_release_associates_the_profile_again_and_knows_it_by_its_arn() {
        let associated = mock!(Client::associate_iam_instance_profile)
            .match_requests(|r| {
                r.iam_instance_profile().and_then(|p| p.arn()) == Some(WEB)
                    && r.instance_id() == Some("i-0123456789abcdef0")
            })
            .then_output(|| {
                aws_sdk_ec2::operation::associate_iam_instance_profile::AssociateIamInstanceProfileOutput::builder()
                    .build()
            });
        let step = step(&[&associated]);
        let first = first(&[("iip-assoc-1", WEB)]);
        let goal = step.released(&target(), &found(&[]), &first);
        assert!(step.write(&target(), &found(&[]), &goal.state).await.failures.is_empty());
        assert_eq!(associated.num_calls(), 1);
        let back = found(&[("iip-assoc-2", WEB, "associated")]);
        assert_eq!(step.released(&target(), &back, &first), Goal::new(back.state.clone()));
    }

    #[tokio::test]
    async fn a_profile_on_its_way_in_or_out_is_waited_for() {
        let (step, first) = (step(&[]), first(&[("iip-assoc-1", WEB)]));
        for on_its_way in
            [found(&[("iip-assoc-2", WEB, "associating")]), found(&[("iip-assoc-1", WEB, "disassociating")])]
        {
            let goal = step.released(&target(), &on_its_way, &first);
            assert_ne!(goal.state, on_its_way.state);
            assert!(on_its_way.state.iter().all(|(key, value)| step.returning(value, goal.state.get(key))));
            assert!(step.write(&target(), &on_its_way, &goal.state).await.failures.is_empty());
        }
    }

    #[test]
    fn another_profile_that_was_associated_since_stays_and_the_way_back_is_named() {
        let other = found(&[("iip-assoc-9", "arn:aws:iam::1:instance-profile/new", "associated")]);
        let goal = step(&[]).released(&target(), &other, &first(&[("iip-assoc-1", WEB)]));
        assert_eq!(goal.state, other.state);
        let said = &goal.unsupported[0];
        assert!(
            said.contains("replace-iam-instance-profile-association --region eu-west-1 --association-id iip-assoc-9"),
            "{said}"
        );
        assert!(said.contains(&format!("--iam-instance-profile Arn={WEB}`")), "{said}");
    }

    #[test]
    fn of_two_detached_profiles_the_one_that_the_case_found_first_comes_back() {
        let both = first(&[("iip-assoc-1", WEB), ("iip-assoc-0", "arn:aws:iam::1:instance-profile/attacker")]);
        let known = Target { instance_profile_arn: Some(WEB.to_owned()), ..target() };
        let goal = step(&[]).released(&known, &found(&[]), &both);
        assert_eq!(goal.state.values().map(|a| a.profile_arn.as_str()).collect::<Vec<_>>(), [WEB]);
        let none = Target { instance_profile_arn: Some(String::new()), ..target() };
        let not_ours = step(&[]).released(&none, &found(&[]), &both);
        assert!(not_ours.state.is_empty() && not_ours.unsupported.is_empty());
        assert!(not_ours.residual_risk[0].contains("had no instance profile when the case was opened"));
        let unknown = step(&[]).released(&target(), &found(&[]), &both);
        assert!(unknown.state.is_empty() && unknown.unsupported[0].contains("associate the right one by hand"));
    }

    #[tokio::test]
    async fn a_profile_that_was_deleted_is_named_with_the_command_to_finish_it() {
        let refused = mock!(Client::associate_iam_instance_profile).then_error(|| {
            let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("InvalidParameterValue");
            let meta = meta.message("Invalid IAM Instance Profile name").build();
            aws_sdk_ec2::operation::associate_iam_instance_profile::AssociateIamInstanceProfileError::generic(meta)
        });
        let step = step(&[&refused]);
        let goal = step.released(&target(), &found(&[]), &first(&[("iip-assoc-1", WEB)]));
        let writes = step.write(&target(), &found(&[]), &goal.state).await;
        let said = writes.failures[0].to_string();
        assert!(
            said.contains("InvalidParameterValue") && said.contains("`aws ec2 associate-iam-instance-profile"),
            "{said}"
        );
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
