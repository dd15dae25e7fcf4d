//! Reads the instance before anything changes: the facts an investigator asks for first, and the case's first states.
//!
//! Journals what the two steps of the fast path will change (so that they need not spend a round trip
//! on it), and stores AWS's replies in the evidence bucket. Changes nothing of the instance.

mod facts;
mod host;

use aws_config::SdkConfig;
use aws_sdk_ec2::types::{IamInstanceProfileAssociation, Instance, InstanceAttributeName, InstanceStateName};
use containment::{Error, First, Journal, Key, Outcome, Result, Status, Step, Target, journal_ahead};
use detach_autoscaling::{DetachAutoscaling, registrations};
use evidence::Recorder;
use evidence::{Bucket, Entry};
use futures::FutureExt;
use futures::future::try_join_all;
use isolate_network::IsolateNetwork;
use serde::Serialize;
use serde_json::{Value, json};

use facts::{Membership, Network};
pub use facts::{Read, facts};

/// The step's name.
pub const NAME: &str = "describe-instance";

/// What the workflow continues with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    /// The target, with the instance profile that the case found first, and whether isolation is to leave a window for a
    /// capture.
    pub target: Target,
    /// What the instance's Auto Scaling group has registered for it. `detach-autoscaling` journals it before it detaches, and
    /// reads it itself where it is absent.
    pub registrations: Option<First>,
    /// The facts for the execution's result; all of them are in the evidence.
    pub facts: Value,
    /// Where AWS's replies are stored; absent in a dry run. Not in the case's ledger yet: that would be another round
    /// trip before isolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Entry>,
    /// `Failed` if something could not be read or stored, and containment goes on without it.
    pub outcome: Outcome,
}

/// Reads and stores; in two rounds, since nothing in the first depends on anything else in it.
///
/// It fails only where containment cannot begin: without the instance itself, or without the journal of first values.
/// Errors: [`Error::NotFound`] for an id that EC2 does not know or an instance that is gone, [`Error::Unsupported`] for
/// one that AWS manages (aws-behaviour#managed-instances): it is better to say so than to contain half of it.
pub async fn describe_instance(
    aws: &SdkConfig,
    journal: &impl Journal,
    bucket: &Bucket,
    target: Target,
    evidence_region: Option<&str>,
) -> Result<Described> {
    // This function decides about the window, and reads the same with and without one.
    let target = Target { capture_window: false, ..target };
    let recorder = Recorder::default();
    let config = aws_sdk_ec2::config::Builder::from(aws).interceptor(recorder.clone()).build();
    let ec2 = aws_sdk_ec2::Client::from_conf(config);
    let config = aws_sdk_autoscaling::config::Builder::from(aws).interceptor(recorder.clone()).build();
    let autoscaling = aws_sdk_autoscaling::Client::from_conf(config);
    let detach = DetachAutoscaling::with_client(autoscaling.clone());
    let isolate = IsolateNetwork::with_client(ec2.clone());
    let ssm = host::client(aws, &recorder);
    let mut missed = Missed::default();

    let (found, journaled, volumes, associations, attributes, membership, network, host) = futures::join!(
        found(&ec2, &target),
        journal.read(&target, NAME),
        instance::volumes(&ec2, &target),
        instance::profile_associations(&ec2, &target),
        attributes(&ec2, &target),
        detach.read(&target),
        isolate.read(&target),
        host::host(&ssm, &target),
    );
    let instance = containable(found?)?;
    let first = journaled?.first;
    let volumes = missed.or_default(volumes);
    // The instance shows its profile too, so that one failed call cannot make the case forget it
    // (aws-behaviour#issued-credentials).
    let shown = instance.iam_instance_profile().and_then(|p| p.arn()).map(ToOwned::to_owned);
    let associations = missed.or_none(associations);
    let had_none = associations.as_ref().is_some_and(Vec::is_empty) && shown.is_none();
    let profile_arn = profile_arn(&associations.unwrap_or_default()).or(shown);
    let user_data = missed.or_none(attributes);
    let membership = missed.or_none(membership);
    let network = missed.or_none(network);
    let host = missed.or_default(host);
    let (capture_window, no_window) = host::window(&target, host.as_ref(), evidence_region);
    missed.risk.extend(no_window);

    let read = Read { instance: &instance, volumes: &volumes, user_data: user_data.as_deref() };
    let mut facts = facts(&target, read, network.as_ref(), membership.as_ref(), profile_arn.as_deref());
    if let (Some(facts), Some(host)) = (facts.as_object_mut(), &host) {
        facts.extend(host.facts());
    }
    let key = Key::new(&target.instance_id, "InstanceProfileArn");
    let first_profile = first.get(&key).and_then(Value::as_str).map(ToOwned::to_owned);
    let newly_found = profile_arn.filter(|_| first_profile.is_none());
    // No profile is a first value too: a release must not bring back what somebody has associated since.
    let to_keep = newly_found.as_ref().map(|arn| json!(arn)).or_else(|| had_none.then_some(Value::Null));
    let to_keep: First =
        to_keep.filter(|_| !first.contains_key(&key)).map(|value| (key.clone(), value)).into_iter().collect();
    let target = Target { instance_profile_arn: first_profile.or(newly_found), capture_window, ..target };
    if target.dry_run {
        return Ok(Described { target, registrations: None, facts, evidence: None, outcome: missed.outcome() });
    }
    let evidence = json!({ "Target": target, "Facts": facts, "Replies": recorder.replies() });
    let (kept, stored, journaled, registered) = futures::join!(
        keep(journal, &target, to_keep),
        bucket.put(&target, NAME, &evidence),
        first_states(&target, journal, (&detach, membership.as_ref()), (&isolate, network.as_ref())),
        registered(&autoscaling, &target, membership.as_ref()),
    );
    kept?;
    let evidence = missed.or_none(stored);
    missed.or_default(journaled);
    let registrations = missed.or_none(registered).flatten();
    Ok(Described { target, registrations, facts, evidence, outcome: missed.outcome() })
}

async fn keep(journal: &impl Journal, target: &Target, first: First) -> Result<()> {
    if first.is_empty() {
        return Ok(());
    }
    journal.keep(target, NAME, &first.into()).await.map(|_| ())
}

/// What could not be read or stored. The outcome says so; the instance is contained all the same.
#[derive(Default)]
struct Missed {
    reasons: Vec<String>,
    /// What was read and the reader must know.
    risk: Vec<String>,
}

impl Missed {
    fn or_none<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.reasons.push(error.to_string())).ok()
    }

    fn or_default<T: Default>(&mut self, result: Result<T>) -> T {
        self.or_none(result).unwrap_or_default()
    }

    fn outcome(self) -> Outcome {
        let outcome = match self.reasons.is_empty() {
            true => Outcome::new(NAME, Status::Done, None),
            false => Outcome::new(NAME, Status::Failed, self.reasons.join("; ")),
        };
        Outcome { residual_risk: self.risk, ..outcome }
    }
}

/// Journals what the two steps of the fast path will change. A step whose state could not be read does it itself.
async fn first_states(
    target: &Target,
    journal: &impl Journal,
    (detach, membership): (&DetachAutoscaling, Option<&Membership>),
    (isolate, network): (&IsolateNetwork, Option<&Network>),
) -> Result<()> {
    let detach = async {
        match membership {
            Some(found) => journal_ahead(detach, target, found, journal).await,
            None => Ok(()),
        }
    };
    let isolate = async {
        match network {
            Some(found) => journal_ahead(isolate, target, found, journal).await,
            None => Ok(()),
        }
    };
    futures::try_join!(detach, isolate).map(|_| ())
}

/// What the instance's Auto Scaling group has registered for it; none where it is not known whether it has a group.
async fn registered(
    autoscaling: &aws_sdk_autoscaling::Client,
    target: &Target,
    membership: Option<&Membership>,
) -> Result<Option<First>> {
    let Some(found) = membership else { return Ok(None) };
    registrations(autoscaling, target, &found.state).await.map(Some)
}

async fn found(ec2: &aws_sdk_ec2::Client, target: &Target) -> Result<Instance> {
    let id = &target.instance_id;
    let sent = ec2.describe_instances().instance_ids(id).include_managed_resources(true).send().await;
    let reply = match sent.map_err(Error::aws("ec2:DescribeInstances", id)) {
        Err(error) if matches!(error.code(), Some("InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed")) => {
            let (region, account) = (&target.region, &target.account_id);
            return Err(Error::NotFound(format!(
                "there is no instance {id} in {region} of account {account}: {error}"
            )));
        }
        other => other?,
    };
    let found = reply.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default()).next();
    found.ok_or_else(|| Error::NotFound(format!("there is no instance {id} in {}", target.region)))
}

fn containable(instance: Instance) -> Result<Instance> {
    let id = instance.instance_id().unwrap_or_default();
    if let Some(state @ (InstanceStateName::Terminated | InstanceStateName::ShuttingDown)) =
        instance.state().and_then(|s| s.name())
    {
        return Err(Error::NotFound(format!(
            "instance {id} is {}: there is nothing left to contain; its role's credentials may still be in use, and \
             its remaining volumes can be found by their tags",
            state.as_str()
        )));
    }
    if let Some(operator) = instance.operator().filter(|o| o.managed().unwrap_or(false)) {
        let manager = operator.principal().unwrap_or("an AWS service");
        return Err(Error::Unsupported(format!(
            "instance {id} is managed by {manager}: only that service can change its settings. Contain it there \
             (isolate and evict its pods or tasks, revoke the role's sessions), or by a network ACL on its subnet"
        )));
    }
    Ok(instance)
}

fn profile_arn(associations: &[IamInstanceProfileAssociation]) -> Option<String> {
    associations.iter().find_map(|a| a.iam_instance_profile()?.arn().map(ToOwned::to_owned))
}

/// The attributes that DescribeInstances does not show: all of them for the evidence, and of user data, which is answered
/// in base64, a fingerprint for the facts. Without user data the answer is empty.
async fn attributes(ec2: &aws_sdk_ec2::Client, target: &Target) -> Result<String> {
    let names = [
        InstanceAttributeName::UserData,
        InstanceAttributeName::DisableApiTermination,
        InstanceAttributeName::DisableApiStop,
        InstanceAttributeName::InstanceInitiatedShutdownBehavior,
    ];
    let calls = names.into_iter().map(|name| async move {
        let sent = ec2.describe_instance_attribute().instance_id(&target.instance_id).attribute(name).send().await;
        sent.map_err(Error::aws("ec2:DescribeInstanceAttribute", &target.instance_id))
    });
    let replies = try_join_all(calls).await?;
    Ok(replies.into_iter().find_map(|reply| reply.user_data?.value).unwrap_or_default())
}

/// The function: a target in, the description out.
pub async fn handle(aws: &runtime::Aws, event: Value) -> Result<Described> {
    let target = Target::parse(event)?;
    let bucket = Bucket::of(aws)?;
    // Boxed, because the whole future's type is too deep for the compiler's default limit.
    let (config, journal) = (aws.of(&target, NAME).await?, aws.case_table()?);
    let home = aws.home().region().map(ToString::to_string);
    describe_instance(&config, &journal, &bucket, target, home.as_deref()).boxed().await
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
