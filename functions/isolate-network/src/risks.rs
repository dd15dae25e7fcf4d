//! What an attacker can still do, in the words of the outcome.

use std::collections::BTreeSet;

use containment::{State, Target};
use network::{CAPTURE, Group, ISOLATION, Window};

use crate::standing::{End, Standing};
use crate::{Network, rules_key};

/// No AWS API shows the connections of an interface (aws-behaviour#tracked-connections).
pub(crate) const UNSEEN: &str = "AWS does not show whether open connections were cut: an ACCEPT in the flow logs of the \
     instance's interfaces after the isolation means that one was not";

/// No security group filters these (aws-behaviour#unfiltered-traffic).
pub(crate) const UNFILTERED: &str = "no security group filters the VPC's DNS resolver, the instance metadata service, DHCP, \
     the time service or Windows activation: an attacker on the host can still tunnel through DNS names and read IMDS; \
     Route 53 Resolver DNS Firewall closes the first";

/// What a window that is wanted leaves to an attacker, or why there is none.
pub(crate) fn of_window(found: &Network, id: &str, window: &Window) -> String {
    if !window.obstacles.is_empty() {
        let why = window.obstacles.join("; ");
        return format!(
            "a capture through {id} is impossible after its isolation: {why}; CaptureMode CaptureFirst captures the host \
             before that"
        );
    }
    if Standing::of(found, id) == Standing::Isolated {
        return format!("{id} is isolated, so no window for a capture is opened on it");
    }
    format!(
        "until the capture ends, {id} can reach tcp/443 of the VPC's endpoints for Systems Manager and S3 ({}): an attacker \
         on the host can use them as well, even with credentials of another account, unless the endpoints' policies forbid it",
        peers(&window.rules)
    )
}

/// What closing a window may leave.
pub(crate) fn after_window(target: &Target, found: &Network, id: &str) -> Option<String> {
    let (End::Isolation, Standing::InWindow(rules)) = (End::of(target, found, id), Standing::of(found, id)) else {
        return None;
    };
    Some(format!(
        "connections of {id} that were open through the capture window, to tcp/443 of {}, may go on until they end or idle \
         out, among them the one of the host's agent to Systems Manager: connections through interface endpoints are tracked \
         automatically",
        peers(rules)
    ))
}

fn peers(rules: &BTreeSet<String>) -> String {
    rules.iter().filter_map(|rule| rule.rsplit(' ').next()).collect::<Vec<_>>().join(", ")
}

/// What Cordon's groups let through that they should not have.
pub(crate) fn of_drifted_groups(found: &Network, goal: &State<BTreeSet<String>>) -> Vec<String> {
    let groups = [(ISOLATION, &found.facts.isolation), (CAPTURE, &found.facts.capture)];
    let groups =
        groups.into_iter().flat_map(|(name, groups)| groups.iter().map(move |(vpc, group)| (name, vpc, group)));
    let sentence = |(name, vpc, group): (&str, &String, &Group)| {
        let wanted = goal.get(&rules_key(vpc, name))?;
        let rules: Vec<&str> = group.rules.difference(wanted).map(String::as_str).collect();
        (!rules.is_empty()).then(|| {
            format!(
                "{name} in {vpc} had rules that somebody else added, and this run removes them: {}; whatever was on the group \
                 until now was not isolated",
                rules.join(", ")
            )
        })
    };
    groups.filter_map(sentence).collect()
}
