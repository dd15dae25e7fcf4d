//! What EC2 shows of the interfaces, of Cordon's groups, and of the ways out that a window would use.

use std::collections::BTreeSet;

use containment::{Error, Found, Key, Result, State, Target};
use network::{CONVERSION, ISOLATION, Interface};

use crate::standing::is_on_capture;
use crate::{Facts, GROUPS, IsolateNetwork, Network, rules_key};

impl IsolateNetwork {
    pub(crate) async fn read_with_windows(&self, target: &Target) -> Result<Network> {
        let endpoints = async {
            match target.capture_window {
                true => Some(network::endpoints(&self.ec2, target).await),
                false => None,
            }
        };
        let (found, endpoints) = futures::join!(self.read_without_windows(target), endpoints);
        let mut found = found?;
        let endpoints = match endpoints {
            // A window that is to be closed: how depends on whether it is no more than a window.
            None if found.facts.interfaces.keys().any(|id| is_on_capture(&found, id)) => {
                Some(network::endpoints(&self.ec2, target).await)
            }
            endpoints => endpoints,
        };
        if let Some(endpoints) = endpoints {
            found.facts.windows =
                network::windows(&self.ec2, endpoints, &found.facts.interfaces, &found.facts.capture).await;
        }
        Ok(found)
    }

    pub(crate) async fn read_without_windows(&self, target: &Target) -> Result<Network> {
        let (interfaces, groups) =
            futures::join!(instance::interfaces(&self.ec2, target), network::find(&self.ec2, &target.account_id),);
        let (interfaces, groups) = (interfaces?, groups?);
        if interfaces.is_empty() {
            return Err(Error::NotFound(format!("interfaces of {} not found", target.instance_id)));
        }
        let mut found = Found { state: State::new(), facts: Facts::default() };
        for interface in &interfaces {
            let Some(id) = interface.network_interface_id() else { continue };
            let groups = interface.groups().iter().filter_map(|g| g.group_id().map(ToOwned::to_owned)).collect();
            found.state.insert(Key::new(id, GROUPS), groups);
            found.facts.interfaces.insert(id.to_owned(), Interface::of(interface));
        }
        let vpcs: BTreeSet<&String> = found.facts.interfaces.values().map(|i| &i.vpc).collect();
        for (name, vpc, group) in groups {
            if vpcs.contains(&vpc) {
                found.state.insert(rules_key(&vpc, name), group.rules.clone());
                let of_vpc = match name {
                    ISOLATION => &mut found.facts.isolation,
                    CONVERSION => &mut found.facts.conversion,
                    _ => &mut found.facts.capture,
                };
                of_vpc.insert(vpc, group);
            }
        }
        Ok(found)
    }
}
