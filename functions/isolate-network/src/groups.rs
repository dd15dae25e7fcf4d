//! Cordon's groups as the step needs them: those of the interfaces' VPCs, with the rules that its goal has.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use containment::{State, Target, Writes};
use futures::future::join_all;
use network::{CONVERSION, ISOLATION, NAMES};

use crate::{Facts, rules_key};

/// The ids of Cordon's groups that are there and have their rules, by VPC.
#[derive(Debug, Default)]
pub struct Ready {
    /// Of isolation groups.
    pub isolation: BTreeMap<String, String>,
    /// Of conversion groups.
    pub conversion: BTreeMap<String, String>,
    /// Of capture groups.
    pub capture: BTreeMap<String, String>,
}

/// Makes what is missing, and brings each group to its rules.
///
/// The isolation group counts only once it has been read without a rule: a group that lets anything through isolates
/// nothing. Without a conversion group the instance is isolated all the same, with a residual risk; without a capture
/// group it is isolated at once.
pub async fn ensure(
    ec2: &Client,
    target: &Target,
    facts: &Facts,
    goal: &State<BTreeSet<String>>,
    writes: &mut Writes,
) -> Ready {
    let vpcs: BTreeSet<&String> = facts.interfaces.values().map(|i| &i.vpc).collect();
    let wanted = vpcs.into_iter().flat_map(|vpc| NAMES.map(|name| (name, vpc)));
    let calls = wanted.filter_map(|(name, vpc)| {
        let known = match name {
            ISOLATION => facts.isolation.get(vpc),
            CONVERSION => facts.conversion.get(vpc),
            _ => facts.capture.get(vpc),
        };
        let rules = goal.get(&rules_key(vpc, name))?;
        Some(async move { (name, vpc.clone(), network::ensure(ec2, target, vpc, name, known, rules).await) })
    });
    let mut ready = Ready::default();
    for (name, vpc, id) in join_all(calls).await {
        match (name, id) {
            (ISOLATION, Ok(id)) => _ = ready.isolation.insert(vpc, id),
            (ISOLATION, Err(error)) => writes.failures.push(error),
            (CONVERSION, Ok(id)) => _ = ready.conversion.insert(vpc, id),
            (CONVERSION, Err(error)) => writes.residual_risk.push(format!(
                "there is no conversion group in {vpc}, so open connections may go on: {error}"
            )),
            (_, Ok(id)) => _ = ready.capture.insert(vpc, id),
            (_, Err(error)) => writes.residual_risk.push(format!(
                "there is no capture group in {vpc}, so the interfaces there were isolated at once and a capture through \
                 them is impossible: {error}"
            )),
        }
    }
    ready
}
