//! Registrations with load balancers: their keys and their form in the journal, for every step that removes one.

use containment::{Key, Target};
use serde::{Deserialize, Serialize};

/// The step that deregisters; a release restores the registrations in its journal.
pub const DEREGISTER_TARGETS: &str = "deregister-targets";

/// The state of a target that receives traffic, or will when it is healthy.
pub const REGISTERED: &str = "registered";
/// The state of a target that is being deregistered.
pub const DRAINING: &str = "draining";
/// The attribute of a registration with a classic load balancer.
pub const CLASSIC: &str = "ClassicLoadBalancer";

/// A registration, with everything that a deregistration and a release need: a target is an id with a port and
/// sometimes a zone, and no call lists the target groups of an instance (aws-behaviour#deregistration, #target-lookup).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Registration {
    /// An instance id or an address.
    pub id: String,
    /// The port, unless it is the target group's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// `all`, or the zone, of an address outside the target group's VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// For QUIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic_server_id: Option<String>,
    /// [`REGISTERED`] or [`DRAINING`].
    pub state: String,
}

impl Registration {
    /// An instance on the default port.
    pub fn of(instance: &str) -> Self {
        Registration {
            id: instance.to_owned(),
            port: None,
            availability_zone: None,
            quic_server_id: None,
            state: REGISTERED.to_owned(),
        }
    }
}

/// A target on its group's default port has no port in its key: that is how an Auto Scaling group registers it.
pub fn target_key(group: &str, id: &str, port: Option<i32>, default_port: Option<i32>) -> Key {
    let port = port.filter(|port| Some(*port) != default_port).map_or(String::new(), |port| format!(":{port}"));
    Key::new(group, format!("Target {id}{port}"))
}

/// The registrations that the instance's Auto Scaling group has made, and removes when the instance is detached: on the
/// default port of each target group, and with each classic load balancer.
///
/// The detach comes first, so `deregister-targets` no longer finds them, but a release must restore them.
pub fn registered_by_group(
    target: &Target,
    target_groups: &[String],
    load_balancers: &[String],
) -> Vec<(Key, Registration)> {
    let registration = || Registration::of(&target.instance_id);
    let targets = target_groups.iter().map(|arn| (target_key(arn, &target.instance_id, None, None), registration()));
    let classic = load_balancers.iter().map(|name| (Key::new(name, CLASSIC), registration()));
    targets.chain(classic).collect()
}
