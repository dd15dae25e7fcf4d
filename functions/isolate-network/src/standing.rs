//! How an interface stands on its way from the workload's groups to isolation, and where it is to end.

use std::collections::BTreeSet;

use containment::{Key, Target};
use network::{Group, everything};

use crate::{GROUPS, Network};

/// How an interface stands. The way leads from the first of these to the last, and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing<'a> {
    /// On groups of the workload's, or on one of Cordon's that has other rules than it should: connections may have been
    /// opened through it, and they are tracked.
    Open,
    /// On the conversion group alone: an earlier run was stopped halfway, or another one is running.
    Converted,
    /// On the capture group alone, whose rules lead nowhere but to the VPC's endpoints. A window is closed without the
    /// conversion group: that would let everybody in for seconds, to cut connections to those endpoints, most of which it
    /// could not cut (aws-behaviour#automatic-tracking).
    InWindow(&'a BTreeSet<String>),
    /// On the isolation group alone, which has no rule.
    Isolated,
}

impl<'a> Standing<'a> {
    pub fn of(found: &'a Network, id: &str) -> Self {
        let facts = &found.facts;
        let vpc = &facts.interfaces[id].vpc;
        if let Some(group) = facts.isolation.get(vpc).filter(|group| is_only_on(found, id, group))
            && group.rules.is_empty()
        {
            return Standing::Isolated;
        }
        if let Some(group) = facts.conversion.get(vpc).filter(|group| is_only_on(found, id, group))
            && group.rules == everything()
        {
            return Standing::Converted;
        }
        let window = facts.windows.get(id);
        match facts.capture.get(vpc).filter(|group| is_only_on(found, id, group)) {
            Some(group) if window.is_some_and(|window| group.rules.is_subset(&window.rules)) => {
                Standing::InWindow(&group.rules)
            }
            _ => Standing::Open,
        }
    }
}

/// Whether the interface is on the capture group alone, whatever that group's rules are.
pub(crate) fn is_on_capture(found: &Network, id: &str) -> bool {
    let group = found.facts.capture.get(&found.facts.interfaces[id].vpc);
    group.is_some_and(|group| is_only_on(found, id, group))
}

fn is_only_on(found: &Network, id: &str, group: &Group) -> bool {
    let groups = found.state.get(&Key::new(id, GROUPS));
    groups.is_some_and(|groups| groups.len() == 1 && groups.contains(&group.id))
}

/// Where an interface is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// On the capture group, until the capture has ended.
    Window,
    /// On the isolation group.
    Isolation,
}

impl End {
    /// What is isolated stays isolated: a window is only ever on the way there, so that no run that comes late or comes
    /// twice can open it again.
    pub fn of(target: &Target, found: &Network, id: &str) -> Self {
        let window = found.facts.windows.get(id).filter(|window| window.obstacles.is_empty());
        match target.capture_window && window.is_some() && Standing::of(found, id) != Standing::Isolated {
            true => End::Window,
            false => End::Isolation,
        }
    }
}

/// Whether the interface is where it is to end, and that group has exactly the rules that it should have.
pub(crate) fn is_settled(target: &Target, found: &Network, id: &str) -> bool {
    match (End::of(target, found, id), Standing::of(found, id)) {
        (End::Isolation, standing) => standing == Standing::Isolated,
        (End::Window, Standing::InWindow(rules)) => found.facts.windows.get(id).is_some_and(|w| &w.rules == rules),
        (End::Window, _) => false,
    }
}
