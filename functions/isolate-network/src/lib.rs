//! Cuts the instance off the network: every interface ends on a security group without any rule.
//!
//! In two steps per interface, because established connections survive a change of groups
//! (aws-behaviour#tracked-connections): a conversion group that allows everything makes tracked flows untracked, then
//! the isolation group cuts them. Between the two there is only one way, forward: a run that is killed there is
//! finished by the next.
//!
//! Where a capture of the running host is to follow, an interface ends on the capture group first, which lets tcp/443 out
//! to the VPC's own endpoints of Systems Manager and S3 and nothing else. The same step closes that window afterwards.

mod cut;
mod groups;
mod monitor;
mod read;
mod release;
mod risks;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use containment::{First, Found, Goal, Journaled, Key, Result, Reversible, State, Step, Target, Writes};
use network::{CAPTURE, CONVERSION, Group, ISOLATION, Interface, Window, everything};

pub use monitor::handle;
use standing::{End, Standing};

/// The step. Reads interfaces and Cordon's security groups; creates and repairs those groups, and sets interfaces' groups.
/// A release sets the interfaces' groups only: Cordon's own stay, since other cases may use them.
#[derive(Debug, Clone)]
pub struct IsolateNetwork {
    ec2: Client,
}

/// What the step needs to know beside the groups of each interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// By interface id.
    pub interfaces: BTreeMap<String, Interface>,
    /// Cordon's isolation group, by VPC.
    pub isolation: BTreeMap<String, Group>,
    /// Cordon's conversion group, by VPC.
    pub conversion: BTreeMap<String, Group>,
    /// Cordon's capture group, by VPC.
    pub capture: BTreeMap<String, Group>,
    /// The window that each interface can be left for a capture, by interface id. Empty where no capture window is wanted
    /// and none is open.
    pub windows: BTreeMap<String, Window>,
    /// Those of the groups to be restored that still exist; read at a release only.
    pub journaled: BTreeSet<String>,
}

/// What the step reads: for an interface its groups' ids, for one of Cordon's groups its rules in words.
pub(crate) type Network = Found<BTreeSet<String>, Facts>;

const GROUPS: &str = "Groups";
const RULES: &str = "Rules";

/// Cordon's groups by VPC and name: an id would not do, since a dry run plans groups that have none yet.
fn rules_key(vpc: &str, name: &str) -> Key {
    Key::new(format!("{vpc} {name}"), RULES)
}

impl IsolateNetwork {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        IsolateNetwork { ec2: Client::new(aws) }
    }

    /// The step with a client of the caller's, who may want to record its replies.
    pub fn with_client(ec2: Client) -> Self {
        IsolateNetwork { ec2 }
    }
}

impl Step for IsolateNetwork {
    type Value = BTreeSet<String>;
    type Facts = Facts;
    const NAME: &'static str = "isolate-network";

    async fn read(&self, target: &Target) -> Result<Network> {
        self.read_with_windows(target).await
    }

    fn contained(&self, target: &Target, found: &Network, _: &Journaled) -> Goal<BTreeSet<String>> {
        let mut goal = Goal::new(found.state.clone());
        goal.residual_risk.extend([risks::UNSEEN, risks::UNFILTERED].map(ToOwned::to_owned));
        for (id, interface) in &found.facts.interfaces {
            let key = Key::new(id, GROUPS);
            if let Some(manager) = &interface.managed_by {
                goal.unsupported.push(format!("{id} is managed by {manager}: its user can't change its groups"));
                continue;
            }
            if interface.kind == "trunk" {
                goal.unsupported.push(format!(
                    "{id} is a trunk: the pods' branch interfaces behind it have security groups of their own and are not \
                     isolated"
                ));
            }
            let (vpc, end) = (&interface.vpc, End::of(target, found, id));
            let group = match end {
                End::Window => found.facts.capture.get(vpc).map_or(CAPTURE, |group| &group.id),
                End::Isolation => found.facts.isolation.get(vpc).map_or(ISOLATION, |group| &group.id),
            };
            goal.state.insert(key, BTreeSet::from([group.to_owned()]));
            goal.state.insert(rules_key(vpc, ISOLATION), BTreeSet::new());
            if Standing::of(found, id) == Standing::Open {
                goal.state.insert(rules_key(vpc, CONVERSION), everything());
            }
            let Some(window) = found.facts.windows.get(id).filter(|_| target.capture_window) else { continue };
            if end == End::Window {
                goal.state.insert(rules_key(vpc, CAPTURE), window.rules.clone());
            }
            goal.residual_risk.push(risks::of_window(found, id, window));
        }
        goal
    }

    async fn write(&self, target: &Target, found: &Network, goal: &State<BTreeSet<String>>) -> Writes {
        self.cut(target, found, goal).await
    }
}

impl Reversible for IsolateNetwork {
    async fn read_journaled(&self, target: &Target, first: &First) -> Result<Network> {
        let (found, existing) = futures::join!(self.read_without_windows(target), release::existing(&self.ec2, first));
        let mut found = found?;
        found.facts.journaled = existing?;
        Ok(found)
    }

    fn released(&self, target: &Target, found: &Network, first: &First) -> Goal<BTreeSet<String>> {
        release::released(target, found, first)
    }

    async fn restore(&self, _: &Target, found: &Network, goal: &State<BTreeSet<String>>) -> Writes {
        self.set_back(found, goal).await
    }
}

#[cfg(test)]
mod tests;
