//! Denies every credential that the instance's role has handed to this instance, and to no other.
//!
//! Detaching the profile leaves issued credentials valid for hours (aws-behaviour#issued-credentials), and the
//! console's "revoke sessions" hits every holder of the role (aws-behaviour#revoked-sessions). So: an inline policy on
//! the role, one per contained instance, that denies all to the sessions that carry this instance's ARN or its session
//! name (aws-behaviour#session-context).

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_sdk_ec2::types::Filter;
use aws_sdk_iam::operation::get_role_policy::GetRolePolicyError;
use containment::{
    Error, First, Found, Goal, Journaled, Key, Result, Reversible, State, Step, Target, Writes, restored,
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// The step. Reads the instance's profile, its roles and the case's inline policies; writes those by `PutRolePolicy`,
/// and removes them by `DeleteRolePolicy`.
#[derive(Debug, Clone)]
pub struct RevokeCredentials {
    ec2: aws_sdk_ec2::Client,
    iam: aws_sdk_iam::Client,
}

/// The roles whose credentials the instance may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The profiles that the instance has, or had when the case was opened.
    pub profiles: BTreeSet<String>,
    /// Role id (`AROA…`) by role name.
    pub roles: BTreeMap<String, String>,
    /// How many other instances use the same profiles, or why that is unknown, which is no reason not to revoke.
    pub shared_with: std::result::Result<usize, String>,
    /// Now, in UTC, for a revocation of all sessions.
    pub now: String,
}

/// What a deny on the role can't reach (aws-behaviour#assumed-roles, #default-host-management).
const BEYOND: &str = "sessions of other roles that the attacker obtained with these credentials (role chaining), \
    users or keys that the attacker created, and credentials from Systems Manager's default host management are not \
    denied; look for the role's session in CloudTrail. A policy change takes seconds, sometimes minutes, to take \
    effect everywhere";

/// What the reader of a release must know.
const AFTERWARDS: &str = "a policy change takes seconds, sometimes minutes, to take effect everywhere: until then \
    programs on the instance may still be denied, and some wait longer before they fetch credentials again (the agent \
    of Systems Manager up to 30 minutes)";

impl RevokeCredentials {
    /// The step in the configuration's Region; IAM is global.
    pub fn new(aws: &SdkConfig) -> Self {
        RevokeCredentials { ec2: aws_sdk_ec2::Client::new(aws), iam: aws_sdk_iam::Client::new(aws) }
    }

    /// The profiles that the instance has, or had when the case was opened: credentials outlive the association.
    async fn profiles(&self, target: &Target) -> Result<BTreeSet<String>> {
        let found = instance::profile_associations(&self.ec2, target).await?;
        let now = found.iter().filter_map(|a| a.iam_instance_profile()?.arn().map(ToOwned::to_owned));
        Ok(now.chain(target.instance_profile_arn.clone()).collect())
    }

    async fn roles(&self, profile_arn: &str) -> Result<Vec<(String, String)>> {
        let name = profile_arn.rsplit('/').next().unwrap_or(profile_arn);
        let reply = self.iam.get_instance_profile().instance_profile_name(name).send().await;
        let reply = reply.map_err(Error::aws("iam:GetInstanceProfile", profile_arn))?;
        let roles = reply.instance_profile.map(|p| p.roles).unwrap_or_default();
        Ok(roles.into_iter().map(|role| (role.role_name, role.role_id)).collect())
    }

    async fn shared_with(&self, target: &Target, profile_arn: &str) -> Result<usize> {
        let same = Filter::builder().name("iam-instance-profile.arn").values(profile_arn).build();
        let alive = Filter::builder().name("instance-state-name").values("pending").values("running");
        let alive = alive.values("stopping").values("stopped").build();
        let pages = self.ec2.describe_instances().filters(same).filters(alive).into_paginator().items().send();
        let found: Vec<_> = pages.try_collect().await.map_err(Error::aws("ec2:DescribeInstances", profile_arn))?;
        let ids = found.iter().flat_map(|r| r.instances()).filter_map(|i| i.instance_id());
        Ok(ids.filter(|id| *id != target.instance_id).count())
    }

    async fn policy(&self, role: &str, name: &str) -> Result<Option<Value>> {
        let sent = self.iam.get_role_policy().role_name(role).policy_name(name).send().await;
        let document = match sent {
            Ok(reply) => reply.policy_document,
            Err(e) if e.as_service_error().is_some_and(GetRolePolicyError::is_no_such_entity_exception) => {
                return Ok(None);
            }
            Err(e) => return Err(Error::aws("iam:GetRolePolicy", format!("{name} of {role}"))(e)),
        };
        // IAM answers a policy document URL-encoded.
        let text = percent_decode_str(&document).decode_utf8_lossy();
        Ok(Some(serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))))
    }
}

fn deny_policy_name(target: &Target) -> String {
    format!("cordon-deny-{}", target.instance_id)
}

fn sessions_policy_name(target: &Target) -> String {
    format!("cordon-revoke-sessions-{}", target.instance_id)
}

/// Two statements, so that either key is enough.
fn deny_policy(target: &Target, role_id: &str) -> Value {
    let (partition, region, account, id) =
        (target.partition(), &target.region, &target.account_id, &target.instance_id);
    let deny = |condition: Value| json!({ "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition });
    json!({ "Version": "2012-10-17", "Statement": [
        deny(json!({ "ArnEquals": { "ec2:SourceInstanceARN": format!("arn:{partition}:ec2:{region}:{account}:instance/{id}") } })),
        deny(json!({ "StringEquals": { "aws:userid": format!("{role_id}:{id}") } })),
    ]})
}

fn sessions_policy(now: &str) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": { "DateLessThan": { "aws:TokenIssueTime": now } },
    }]})
}

impl Step for RevokeCredentials {
    /// An inline policy's document.
    type Value = Value;
    type Facts = Facts;
    const NAME: &'static str = "revoke-credentials";

    async fn read(&self, target: &Target) -> Result<Found<Value, Facts>> {
        let profiles = self.profiles(target).await?;
        // Whole seconds: IAM's date conditions are not documented to take fractions.
        let now = aws_sdk_iam::primitives::DateTime::from_secs(
            aws_sdk_iam::primitives::DateTime::from(SystemTime::now()).secs(),
        );
        let now = now.fmt(aws_sdk_iam::primitives::DateTimeFormat::DateTime).unwrap_or_default();
        let mut facts = Facts { profiles, roles: BTreeMap::new(), shared_with: Ok(0), now };
        let profiles = facts.profiles.clone();
        let each =
            profiles.iter().map(|arn| async move { futures::join!(self.roles(arn), self.shared_with(target, arn)) });
        for (roles, shared) in futures::future::join_all(each).await {
            facts.roles.extend(roles?);
            facts.shared_with = facts.shared_with.and_then(|sum| shared.map(|n| sum + n).map_err(|e| e.to_string()));
        }
        let mut names = vec![deny_policy_name(target)];
        if target.revoke_all_sessions {
            names.push(sessions_policy_name(target));
        }
        let keys: Vec<(&String, &String)> =
            facts.roles.keys().flat_map(|role| names.iter().map(move |name| (role, name))).collect();
        let policies = futures::future::try_join_all(keys.iter().map(|(role, name)| self.policy(role, name))).await?;
        let state =
            keys.into_iter().zip(policies).filter_map(|((role, name), policy)| Some((Key::new(role, name), policy?)));
        Ok(Found { state: state.collect(), facts })
    }

    fn contained(&self, target: &Target, found: &Found<Value, Facts>, _: &Journaled) -> Goal<Value> {
        let mut goal = Goal::new(found.state.clone());
        if found.facts.roles.is_empty() && found.facts.profiles.is_empty() {
            goal.not_applicable =
                Some("the instance has no instance profile whose credentials it could hold".to_owned());
            return goal;
        }
        if found.facts.roles.is_empty() {
            let profiles = found.facts.profiles.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            goal.unsupported.push(format!(
                "{profiles} has no role now; if it had one before, credentials that the instance got may be valid for \
                 hours: find the role in CloudTrail and revoke its sessions"
            ));
            return goal;
        }
        goal.residual_risk.push(BEYOND.to_owned());
        let theirs = if target.revoke_all_sessions { "denied as well, until they get new ones" } else { "not denied" };
        match &found.facts.shared_with {
            Ok(0) => {}
            Ok(n) => {
                goal.residual_risk.push(format!("{n} other instances use the same role: their sessions are {theirs}"))
            }
            Err(error) => goal.residual_risk.push(format!(
                "how many other instances use the same role is unknown; their sessions are {theirs}: {error}"
            )),
        }
        for (role, role_id) in &found.facts.roles {
            goal.state.insert(Key::new(role, deny_policy_name(target)), deny_policy(target, role_id));
            if target.revoke_all_sessions {
                // The first revocation of the case stands: a later time would hit unrelated sessions.
                goal.state
                    .entry(Key::new(role, sessions_policy_name(target)))
                    .or_insert_with(|| sessions_policy(&found.facts.now));
            }
        }
        goal
    }

    async fn write(&self, _: &Target, found: &Found<Value, Facts>, goal: &State<Value>) -> Writes {
        let mut writes = Writes::default();
        for key in found.state.keys().filter(|key| !goal.contains_key(*key)) {
            let sent = self.iam.delete_role_policy().role_name(&key.resource).policy_name(&key.attribute).send().await;
            let on = format!("{} of {}", key.attribute, key.resource);
            match sent.map_err(Error::aws("iam:DeleteRolePolicy", on)) {
                // Somebody was faster; the read back tells.
                Err(error) if error.code() == Some("NoSuchEntity") => {}
                result => _ = writes.note(result),
            }
        }
        for (key, policy) in goal.iter().filter(|(key, policy)| found.state.get(key) != Some(policy)) {
            let call = self.iam.put_role_policy().role_name(&key.resource).policy_name(&key.attribute);
            let sent = call.policy_document(policy.to_string()).send().await;
            writes
                .note(sent.map_err(Error::aws("iam:PutRolePolicy", format!("{} of {}", key.attribute, key.resource))));
        }
        writes
    }
}

impl Reversible for RevokeCredentials {
    /// The policies that this case has written, by the names in its journal: the profile no longer matters, and may be
    /// gone. A deleted role has no policy either.
    async fn read_journaled(&self, _: &Target, first: &First) -> Result<Found<Value, Facts>> {
        let policies =
            futures::future::try_join_all(first.keys().map(|key| self.policy(&key.resource, &key.attribute))).await?;
        let state = first.keys().cloned().zip(policies).filter_map(|(key, policy)| Some((key, policy?)));
        let facts = Facts { profiles: BTreeSet::new(), roles: BTreeMap::new(), shared_with: Ok(0), now: String::new() };
        Ok(Found { state: state.collect(), facts })
    }

    /// A policy's name has the instance in it, so another instance's deny on the same role is never touched. What
    /// somebody has written into this one since is deleted with it; the outcome has its text.
    fn released(&self, _: &Target, found: &Found<Value, Facts>, first: &First) -> Goal<Value> {
        let mut goal = restored(&found.state, first);
        goal.residual_risk.push(AFTERWARDS.to_owned());
        goal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::describe_iam_instance_profile_associations::DescribeIamInstanceProfileAssociationsOutput;
    use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
    use aws_sdk_ec2::types::{Instance, Reservation};
    use aws_sdk_iam::operation::get_instance_profile::GetInstanceProfileOutput;
    use aws_sdk_iam::operation::get_role_policy::GetRolePolicyOutput;
    use aws_sdk_iam::operation::put_role_policy::{PutRolePolicyError, PutRolePolicyOutput};
    use aws_sdk_iam::primitives::DateTime;
    use aws_sdk_iam::types::error::NoSuchEntityException;
    use aws_sdk_iam::types::{InstanceProfile, Role};
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    const PROFILE: &str = "arn:aws:iam::123456789012:instance-profile/path/web";

    fn target(revoke_all: bool) -> Target {
        Target::parse(json!({
            "AccountId": "123456789012", "Region": "eu-west-1", "InstanceId": "i-0123456789abcdef0", "CaseId": "c-1",
            "RevokeAllSessions": revoke_all, "InstanceProfileArn": PROFILE,
        }))
        .expect("a good event")
    }

    fn found(shared_with: usize) -> Found<Value, Facts> {
        let roles = BTreeMap::from([("web".to_owned(), "AROAEXAMPLE".to_owned())]);
        Found {
            state: State::new(),
            facts: Facts {
                profiles: [PROFILE.to_owned()].into(),
                roles,
                shared_with: Ok(shared_with),
                now: "2026-11-21T03:00:00Z".into(),
            },
        }
    }

    fn step(ec2: &[&Rule], iam: &[&Rule]) -> RevokeCredentials {
        RevokeCredentials {
            ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, ec2),
            iam: mock_client!(aws_sdk_iam, RuleMode::MatchAny, iam),
        }
    }

    #[test]
    fn the_deny_names_this_instance_by_arn_and_by_session_and_nobody_else() {
        let goal = step(&[], &[]).contained(&target(false), &found(0), &Journaled::default());
        let policy = &goal.state[&Key::new("web", "cordon-deny-i-0123456789abcdef0")];
        let statements = policy["Statement"].as_array().expect("statements");
        assert!(statements.iter().all(|s| s["Effect"] == "Deny" && s["Condition"].is_object()));
        assert_eq!(
            statements[0]["Condition"]["ArnEquals"]["ec2:SourceInstanceARN"],
            "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0"
        );
        assert_eq!(statements[1]["Condition"]["StringEquals"]["aws:userid"], "AROAEXAMPLE:i-0123456789abcdef0");
        assert_eq!(goal.state.len(), 1, "all sessions are revoked only on request");
    }

    #[test]
    fn two_contained_instances_of_one_role_have_a_policy_each() {
        let other = Target { instance_id: "i-0bbbbbbbbbbbbbbbb".into(), ..target(false) };
        assert_ne!(deny_policy_name(&target(false)), deny_policy_name(&other));
    }

    #[test]
    fn a_shared_role_is_reported_with_the_number_of_other_instances() {
        let goal = step(&[], &[]).contained(&target(false), &found(7), &Journaled::default());
        assert!(goal.residual_risk.iter().any(|r| r.contains("7 other instances") && r.contains("not denied")));
    }

    #[test]
    fn a_profile_whose_role_was_removed_is_not_called_harmless() {
        let mut found = found(0);
        found.facts.roles.clear();
        let goal = step(&[], &[]).contained(&target(false), &found, &Journaled::default());
        assert!(goal.not_applicable.is_none() && goal.unsupported[0].contains("may be valid for hours"));
        found.facts.profiles.clear();
        assert!(step(&[], &[]).contained(&target(false), &found, &Journaled::default()).not_applicable.is_some());
    }

    #[test]
    fn a_second_run_keeps_the_time_of_the_first_revocation_of_all_sessions() {
        let step = step(&[], &[]);
        let goal = step.contained(&target(true), &found(0), &Journaled::default());
        let later =
            Found { state: goal.state.clone(), facts: Facts { now: "2026-11-22T03:00:00Z".into(), ..found(0).facts } };
        assert_eq!(step.contained(&target(true), &later, &Journaled::default()).state, goal.state);
    }

    fn profile_and_role() -> Rule {
        mock!(aws_sdk_iam::Client::get_instance_profile)
            .match_requests(|r| r.instance_profile_name() == Some("web"))
            .then_output(|| {
                let at = DateTime::from_secs(0);
                let role = Role::builder().path("/").role_name("web").role_id("AROAEXAMPLE").arn("a").create_date(at);
                let profile =
                    InstanceProfile::builder().path("/").instance_profile_name("web").instance_profile_id("x");
                let profile = profile.arn(PROFILE).create_date(at).roles(role.build().expect("role"));
                GetInstanceProfileOutput::builder().instance_profile(profile.build().expect("profile")).build()
            })
    }

    fn nothing_associated() -> Rule {
        mock!(aws_sdk_ec2::Client::describe_iam_instance_profile_associations)
            .then_output(|| DescribeIamInstanceProfileAssociationsOutput::builder().build())
    }

    fn three_instances() -> Rule {
        mock!(aws_sdk_ec2::Client::describe_instances).then_output(|| {
            let ids = ["i-0123456789abcdef0", "i-0bbbbbbbbbbbbbbbb", "i-0cccccccccccccccc"];
            let instances = ids.map(|id| Instance::builder().instance_id(id).build());
            let reservation = Reservation::builder().set_instances(Some(instances.into())).build();
            DescribeInstancesOutput::builder().reservations(reservation).build()
        })
    }

    #[tokio::test]
    async fn a_profile_that_is_already_detached_still_has_its_role_denied() {
        let absent = mock!(aws_sdk_iam::Client::get_role_policy).then_error(|| {
            let meta = aws_sdk_iam::error::ErrorMetadata::builder().code("NoSuchEntity").build();
            GetRolePolicyError::NoSuchEntityException(NoSuchEntityException::builder().meta(meta).build())
        });
        let step = step(&[&nothing_associated(), &three_instances()], &[&profile_and_role(), &absent]);
        let found = step.read(&target(false)).await.expect("read");
        assert_eq!((found.facts.roles.len(), found.facts.shared_with.clone()), (1, Ok(2)));
        assert_eq!(step.contained(&target(false), &found, &Journaled::default()).state.len(), 1);
    }

    #[tokio::test]
    async fn the_role_is_denied_even_if_its_other_instances_are_unknown() {
        let unknown = mock!(aws_sdk_ec2::Client::describe_instances).then_error(|| {
            let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("UnauthorizedOperation").build();
            aws_sdk_ec2::operation::describe_instances::DescribeInstancesError::generic(meta)
        });
        let stored = mock!(aws_sdk_iam::Client::get_role_policy).then_output(|| {
            let reply = GetRolePolicyOutput::builder().role_name("web").policy_name("p").policy_document("{}");
            reply.build().expect("reply")
        });
        let step = step(&[&nothing_associated(), &unknown], &[&profile_and_role(), &stored]);
        let found = step.read(&target(false)).await.expect("read");
        let goal = step.contained(&target(false), &found, &Journaled::default());
        assert_eq!(goal.state.len(), 1);
        assert!(goal.residual_risk.iter().any(|r| r.contains("is unknown") && r.contains("UnauthorizedOperation")));
    }

    #[tokio::test]
    async fn a_policy_comes_back_url_encoded_and_is_recognized() {
        let stored = mock!(aws_sdk_iam::Client::get_role_policy).then_output(|| {
            let document =
                deny_policy(&target(false), "AROAEXAMPLE").to_string().replace('"', "%22").replace(':', "%3A");
            let reply = GetRolePolicyOutput::builder().role_name("web").policy_name("p").policy_document(document);
            reply.build().expect("reply")
        });
        let step = step(&[&nothing_associated(), &three_instances()], &[&profile_and_role(), &stored]);
        let found = step.read(&target(false)).await.expect("read");
        assert_eq!(step.contained(&target(false), &found, &Journaled::default()).state, found.state);
    }

    #[tokio::test]
    async fn a_role_without_room_for_another_policy_is_a_failure_in_iams_words() {
        let full = mock!(aws_sdk_iam::Client::put_role_policy).then_error(|| {
            let meta = aws_sdk_iam::error::ErrorMetadata::builder().code("LimitExceeded");
            PutRolePolicyError::generic(meta.message("Maximum policy size of 10240 bytes exceeded").build())
        });
        let step = step(&[], &[&full]);
        let goal = step.contained(&target(false), &found(0), &Journaled::default());
        let writes = step.write(&target(false), &found(0), &goal.state).await;
        assert!(writes.failures[0].to_string().contains("iam:PutRolePolicy on cordon-deny-i-0123456789abcdef0 of web"));
    }

    fn kept(document: Value) -> First {
        [(Key::new("web", "cordon-deny-i-0123456789abcdef0"), document)].into()
    }

    #[tokio::test]
    async fn a_release_deletes_this_instances_policy_and_no_other() {
        let stored = mock!(aws_sdk_iam::Client::get_role_policy)
            .match_requests(|r| {
                r.policy_name() == Some("cordon-deny-i-0123456789abcdef0") && r.role_name() == Some("web")
            })
            .then_output(|| {
                let reply = GetRolePolicyOutput::builder().role_name("web").policy_name("p").policy_document("{}");
                reply.build().expect("reply")
            });
        let deleted = mock!(aws_sdk_iam::Client::delete_role_policy)
            .match_requests(|r| {
                r.policy_name() == Some("cordon-deny-i-0123456789abcdef0") && r.role_name() == Some("web")
            })
            .then_output(|| aws_sdk_iam::operation::delete_role_policy::DeleteRolePolicyOutput::builder().build());
        let step = step(&[], &[&stored, &deleted]);
        let first = kept(Value::Null);
        let found = step.read_journaled(&target(false), &first).await.expect("read");
        let goal = step.released(&target(false), &found, &first);
        assert!(goal.state.is_empty());
        assert!(step.write(&target(false), &found, &goal.state).await.failures.is_empty());
        assert_eq!(deleted.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_deleted_role_has_no_policy_left_to_remove() {
        let gone = mock!(aws_sdk_iam::Client::get_role_policy).then_error(|| {
            let meta = aws_sdk_iam::error::ErrorMetadata::builder().code("NoSuchEntity").build();
            GetRolePolicyError::NoSuchEntityException(NoSuchEntityException::builder().meta(meta).build())
        });
        let (step, first) = (step(&[], &[&gone]), kept(Value::Null));
        let found = step.read_journaled(&target(false), &first).await.expect("read");
        assert_eq!(step.released(&target(false), &found, &first).state, found.state);
    }

    #[tokio::test]
    async fn an_earlier_document_of_that_name_is_put_back() {
        let earlier = json!({ "Version": "2012-10-17", "Statement": [] });
        let put = mock!(aws_sdk_iam::Client::put_role_policy)
            .match_requests(|r| {
                let document = r.policy_document().map(serde_json::from_str::<Value>);
                document.is_some_and(|document| document.is_ok_and(|d| d["Statement"] == json!([])))
            })
            .then_output(|| PutRolePolicyOutput::builder().build());
        let step = step(&[], &[&put]);
        let contained =
            Found { state: step.contained(&target(false), &found(0), &Journaled::default()).state, ..found(0) };
        let goal = step.released(&target(false), &contained, &kept(earlier));
        assert!(step.write(&target(false), &contained, &goal.state).await.failures.is_empty());
        assert_eq!(put.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_document_is_put_on_every_role_of_the_profile() {
        let put = mock!(aws_sdk_iam::Client::put_role_policy).then_output(|| PutRolePolicyOutput::builder().build());
        let step = step(&[], &[&put]);
        let goal = step.contained(&target(true), &found(0), &Journaled::default());
        assert!(step.write(&target(true), &found(0), &goal.state).await.failures.is_empty());
        assert_eq!(put.num_calls(), 2);
    }
}
