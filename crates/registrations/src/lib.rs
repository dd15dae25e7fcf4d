//! Registrations with load balancers: how one is named, and how the journal keeps it, whichever step takes it away.

use containment::{Key, Target};
use serde::{Deserialize, Serialize};

/// The step that deregisters; its journal has what a release registers again.
pub const DEREGISTER_TARGETS: &str = "deregister-targets";

/// The state of a target that gets traffic, or will when it is healthy.
pub const REGISTERED: &str = "registered";
/// The state of a target that is on its way out.
pub const DRAINING: &str = "draining";
/// The attribute of a registration with a classic load balancer.
pub const CLASSIC: &str = "ClassicLoadBalancer";

/// A registration as it has to be undone and, at a release, restored: a target is an id with a port and sometimes a zone,
/// and there is no call that lists the target groups of an instance (aws-behaviour#deregistration, #target-lookup).
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
    /// An instance, on whatever port is the default.
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

/// What the instance's Auto Scaling group has registered for it, and takes away when the instance is detached: on the
/// default port of each target group, and with each classic load balancer.
///
/// The detach comes first and leaves nothing of this for `deregister-targets` to find, but a release must restore it.
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
