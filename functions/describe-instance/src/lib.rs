//! Reads the instance before anything changes: the facts an investigator asks for first, and the case's first states.
//!
//! Opens the case, journals what the two steps of the fast path will change (so that they need not spend a round trip
//! on it), and stores AWS's replies in the evidence bucket. Changes nothing of the instance.

mod facts;

use aws_config::SdkConfig;
use aws_sdk_ec2::types::{
    Filter, IamInstanceProfileAssociation, Instance, InstanceAttributeName, InstanceStateName, Volume,
};
use containment::{Case, CaseTable, Error, Recorder, Result, Step, Target, keep_first};
use detach_autoscaling::DetachAutoscaling;
use evidence::{Bucket, Pointer};
use futures::FutureExt;
use futures::future::try_join_all;
use isolate_network::IsolateNetwork;
use serde::Serialize;
use serde_json::{Value, json};

pub use facts::facts;

/// What the workflow goes on with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    /// The target, with the open case's id and the instance profile that the case found first.
    pub target: Target,
    /// The facts for the execution's result; all of them are in the evidence.
    pub facts: Value,
    /// Where AWS's replies are stored; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Pointer>,
}

/// Reads and stores; in two rounds, since nothing in the first depends on anything else in it.
///
/// Errors: [`Error::NotFound`] for an id that EC2 does not know or an instance that is gone, [`Error::Unsupported`] for
/// one that AWS manages (trap A10): half-contained would be worse than said.
pub async fn describe_instance(aws: &SdkConfig, cases: &CaseTable, bucket: &Bucket, target: Target) -> Result<Described> {
    let recorder = Recorder::default();
    let config = aws_sdk_ec2::config::Builder::from(aws).interceptor(recorder.clone()).build();
    let ec2 = aws_sdk_ec2::Client::from_conf(config);
    let config = aws_sdk_autoscaling::config::Builder::from(aws).interceptor(recorder.clone()).build();
    let detach = DetachAutoscaling::with_client(aws_sdk_autoscaling::Client::from_conf(config));
    let isolate = IsolateNetwork::with_client(ec2.clone());

    // The instance is looked at first of all results: its absence explains every other failure.
    let (instance, rest) = futures::join!(instance(&ec2, &target), async {
        futures::try_join!(
            volumes(&ec2, &target),
            profile_arn(&ec2, &target),
            attributes(&ec2, &target),
            detach.read(&target),
            isolate.read(&target),
            cases.case(&target),
        )
    });
    let instance = containable(instance?)?;
    let (volumes, profile_arn, (), membership, network, open_case) = rest?;

    let facts = facts(&target, &instance, &volumes, &network, &membership, profile_arn.as_deref());
    let is_new = open_case.is_none();
    let case = open_case.unwrap_or(Case { id: target.case_id.clone(), instance_profile_arn: profile_arn.clone() });
    let target = Target {
        case_id: case.id.clone(),
        instance_profile_arn: case.instance_profile_arn.clone().or(profile_arn),
        ..target
    };
    if target.dry_run {
        return Ok(Described { target, facts, evidence: None });
    }
    let evidence = json!({ "Target": target, "Facts": facts, "Replies": recorder.replies() });
    let opened = async {
        if is_new { cases.open(&target, &case).await } else { Ok(()) }
    };
    let (pointer, (), (), ()) = futures::try_join!(
        bucket.put(&target, "describe-instance", &evidence),
        opened,
        keep_first(&detach, &target, &membership, cases),
        keep_first(&isolate, &target, &network, cases),
    )?;
    Ok(Described { target, facts, evidence: Some(pointer) })
}

async fn instance(ec2: &aws_sdk_ec2::Client, target: &Target) -> Result<Instance> {
    let id = &target.instance_id;
    let sent = ec2.describe_instances().instance_ids(id).include_managed_resources(true).send().await;
    let reply = match sent.map_err(Error::aws("ec2:DescribeInstances", id)) {
        Err(error) if matches!(error.code(), Some("InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed")) => {
            let (region, account) = (&target.region, &target.account_id);
            return Err(Error::NotFound(format!("there is no instance {id} in {region} of account {account}: {error}")));
        }
        other => other?,
    };
    let found = reply.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default()).next();
    found.ok_or_else(|| Error::NotFound(format!("there is no instance {id} in {}", target.region)))
}

fn containable(instance: Instance) -> Result<Instance> {
    let id = instance.instance_id().unwrap_or_default();
    if let Some(state @ (InstanceStateName::Terminated | InstanceStateName::ShuttingDown)) = instance.state().and_then(|s| s.name()) {
        return Err(Error::NotFound(format!(
            "instance {id} is {}: there is nothing left to contain; its role's credentials may still be in use, and \
             volumes that outlived it can be found by their tags",
            state.as_str()
        )));
    }
    if let Some(operator) = instance.operator().filter(|o| o.managed().unwrap_or(false)) {
        let manager = operator.principal().unwrap_or("an AWS service");
        return Err(Error::Unsupported(format!(
            "instance {id} is managed by {manager}: EC2 lets nobody else change its settings. Contain it through that \
             service (isolate and evict its pods or tasks, revoke the role's sessions), or by a network ACL on its subnet"
        )));
    }
    Ok(instance)
}

async fn volumes(ec2: &aws_sdk_ec2::Client, target: &Target) -> Result<Vec<Volume>> {
    let attached = Filter::builder().name("attachment.instance-id").values(&target.instance_id).build();
    let pages = ec2.describe_volumes().filters(attached).into_paginator().items().send();
    pages.try_collect().await.map_err(Error::aws("ec2:DescribeVolumes", &target.instance_id))
}

async fn profile_arn(ec2: &aws_sdk_ec2::Client, target: &Target) -> Result<Option<String>> {
    let of_instance = Filter::builder().name("instance-id").values(&target.instance_id).build();
    let pages = ec2.describe_iam_instance_profile_associations().filters(of_instance).into_paginator().items().send();
    let found: Vec<IamInstanceProfileAssociation> = pages
        .try_collect()
        .await
        .map_err(Error::aws("ec2:DescribeIamInstanceProfileAssociations", &target.instance_id))?;
    Ok(found.iter().find_map(|a| a.iam_instance_profile()?.arn().map(ToOwned::to_owned)))
}

/// For the evidence alone: user data, and the attributes that DescribeInstances does not show.
async fn attributes(ec2: &aws_sdk_ec2::Client, target: &Target) -> Result<()> {
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
    try_join_all(calls).await.map(|_| ())
}

/// The function: a target in, the description out.
pub async fn handle(aws: &containment::Aws, event: Value) -> Result<Described> {
    let target = Target::parse(event)?;
    let bucket = Bucket::new(aws.home(), aws.required("EVIDENCE_BUCKET")?);
    // Boxed, because the whole future's type is too deep for the compiler's default limit.
    let (config, cases) = (aws.of(&target), aws.case_table()?);
    describe_instance(&config, &cases, &bucket, target).boxed().await
}

#[cfg(test)]
mod tests;
