//! Keeps the volumes and interfaces when the instance is terminated: DeleteOnTermination off for each.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    EbsInstanceBlockDeviceSpecification, InstanceBlockDeviceMappingSpecification, NetworkInterface,
    NetworkInterfaceAttachmentChanges, Volume,
};
use containment::{
    Error, First, Found, Goal, Journaled, Key, OnDrift, Result, Reversible, State, Step, Target, Writes, command,
    first_values,
};

/// The step. Reads attachments of volumes and interfaces; changes `DeleteOnTermination` of each
/// (aws-behaviour#delete-on-termination).
#[derive(Debug, Clone)]
pub struct PreserveVolumes {
    ec2: Client,
}

/// How to address an attachment when changing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A volume: the instance that it is attached to and the device there.
    Volume {
        /// Usually the target; another one for a Multi-Attach volume.
        instance: String,
        /// Such as `/dev/xvda`.
        device: String,
    },
    /// An interface: its attachment's id.
    Interface {
        /// `eni-attach-…`.
        attachment: String,
    },
}

impl PreserveVolumes {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        PreserveVolumes { ec2: Client::new(aws) }
    }

    async fn set(&self, key: &Key, attachment: &Attachment, delete: bool) -> Result<()> {
        match attachment {
            Attachment::Volume { instance, device } => {
                let ebs = EbsInstanceBlockDeviceSpecification::builder().delete_on_termination(delete).build();
                let mapping = InstanceBlockDeviceMappingSpecification::builder().device_name(device).ebs(ebs).build();
                let call = self.ec2.modify_instance_attribute().instance_id(instance).block_device_mappings(mapping);
                let on = format!("{device} ({}) of {instance}", key.resource);
                call.send().await.map(|_| ()).map_err(Error::aws("ec2:ModifyInstanceAttribute", on))
            }
            Attachment::Interface { attachment } => {
                let change = NetworkInterfaceAttachmentChanges::builder()
                    .attachment_id(attachment)
                    .delete_on_termination(delete)
                    .build();
                let call = self
                    .ec2
                    .modify_network_interface_attribute()
                    .network_interface_id(&key.resource)
                    .attachment(change);
                let sent = call.send().await;
                sent.map(|_| ()).map_err(Error::aws("ec2:ModifyNetworkInterfaceAttribute", &key.resource))
            }
        }
    }
}

impl Step for PreserveVolumes {
    /// Whether the resource is deleted with the instance.
    type Value = bool;
    type Facts = BTreeMap<Key, Attachment>;
    const NAME: &'static str = "preserve-volumes";

    async fn read(&self, target: &Target) -> Result<Found<bool, Self::Facts>> {
        let (volumes, interfaces) =
            futures::try_join!(instance::volumes(&self.ec2, target), instance::interfaces(&self.ec2, target))?;
        Ok(found(target, &volumes, &interfaces))
    }

    fn contained(&self, _: &Target, found: &Found<bool, Self::Facts>, _: &Journaled) -> Goal<bool> {
        let mut goal = Goal::new(found.state.keys().map(|key| (key.clone(), false)).collect());
        if found.state.is_empty() {
            goal.not_applicable = Some("the instance has neither volumes nor interfaces of its own".to_owned());
        }
        goal
    }

    async fn write(&self, _: &Target, found: &Found<bool, Self::Facts>, goal: &State<bool>) -> Writes {
        let changes = goal.iter().filter(|(key, delete)| found.state.get(key) != Some(delete));
        let calls = changes.filter_map(|(key, delete)| Some(self.set(key, found.facts.get(key)?, *delete)));
        let mut writes = Writes::default();
        for result in futures::future::join_all(calls).await {
            writes.note(result);
        }
        writes
    }
}

impl Reversible for PreserveVolumes {
    const ON_DRIFT: OnDrift = OnDrift::RestoreBaseline;

    /// A volume that was detached since no longer has the setting: it is named, and whoever attaches it again decides.
    fn released(&self, target: &Target, found: &Found<bool, Self::Facts>, first: &First) -> Goal<bool> {
        let mut goal = Goal::new(found.state.clone());
        let (values, unreadable) = first_values::<bool>(first);
        goal.unsupported = unreadable;
        for (key, value) in values {
            match (goal.state.get_mut(&key), value) {
                (Some(delete), Some(value)) => *delete = value,
                (None, Some(value)) => goal.unsupported.push(detached(target, &key, value)),
                (_, None) => {}
            }
        }
        goal
    }
}

fn detached(target: &Target, key: &Key, value: bool) -> String {
    let instance = key.attribute.rsplit_once(' ').map_or(target.instance_id.as_str(), |(_, instance)| instance);
    let shown = match key.resource.starts_with("eni-") {
        true => command(target, "ec2 describe-network-interfaces", &[("--network-interface-ids", &[&key.resource])]),
        false => command(target, "ec2 describe-volumes", &[("--volume-ids", &[&key.resource])]),
    };
    format!(
        "{} is no longer attached to {instance}, so its DeleteOnTermination can't be set back to {value}: set it when \
         you attach it again; {shown} shows where it is",
        key.resource
    )
}

fn found(
    target: &Target,
    volumes: &[Volume],
    interfaces: &[NetworkInterface],
) -> Found<bool, BTreeMap<Key, Attachment>> {
    let mut found = Found { state: State::new(), facts: BTreeMap::new() };
    for volume in volumes {
        // The last instance of a Multi-Attach volume decides, so each attachment counts.
        for attachment in volume.attachments() {
            let (Some(id), Some(instance), Some(device)) =
                (volume.volume_id(), attachment.instance_id(), attachment.device())
            else {
                continue;
            };
            let attribute = match instance == target.instance_id {
                true => "DeleteOnTermination".to_owned(),
                false => format!("DeleteOnTermination with {instance}"),
            };
            let key = Key::new(id, attribute);
            found.state.insert(key.clone(), attachment.delete_on_termination().unwrap_or(false));
            found.facts.insert(key, Attachment::Volume { instance: instance.to_owned(), device: device.to_owned() });
        }
    }
    for interface in interfaces {
        let managed = interface.requester_managed().unwrap_or(false);
        let attachment = interface.attachment().filter(|_| !managed);
        let (Some(id), Some(attachment)) = (interface.network_interface_id(), attachment) else { continue };
        let key = Key::new(id, "DeleteOnTermination");
        found.state.insert(key.clone(), attachment.delete_on_termination().unwrap_or(false));
        let attachment = attachment.attachment_id().unwrap_or_default().to_owned();
        found.facts.insert(key, Attachment::Interface { attachment });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::modify_instance_attribute::ModifyInstanceAttributeOutput;
    use aws_sdk_ec2::operation::modify_network_interface_attribute::ModifyNetworkInterfaceAttributeOutput;
    use aws_sdk_ec2::types::{NetworkInterfaceAttachment, VolumeAttachment};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    fn target() -> Target {
        Target::example()
    }

    fn volume(id: &str, attachments: &[(&str, &str)]) -> Volume {
        let attachments = attachments.iter().map(|(instance, device)| {
            VolumeAttachment::builder().instance_id(*instance).device(*device).delete_on_termination(true).build()
        });
        Volume::builder().volume_id(id).set_attachments(Some(attachments.collect())).build()
    }

    fn interface(id: &str, managed: bool) -> NetworkInterface {
        let attachment =
            NetworkInterfaceAttachment::builder().attachment_id("eni-attach-1").delete_on_termination(true);
        NetworkInterface::builder()
            .network_interface_id(id)
            .requester_managed(managed)
            .attachment(attachment.build())
            .build()
    }

    #[tokio::test]
    async fn a_hundred_volumes_and_the_interface_are_all_kept() {
        let volumes: Vec<Volume> =
            (0..100).map(|n| volume(&format!("vol-{n}"), &[("i-0123456789abcdef0", &format!("/dev/sd{n}"))])).collect();
        let by_device = mock!(Client::modify_instance_attribute)
            .match_requests(|r| r.block_device_mappings().len() == 1)
            .then_output(|| ModifyInstanceAttributeOutput::builder().build());
        let by_attachment = mock!(Client::modify_network_interface_attribute)
            .match_requests(|r| r.attachment().and_then(|a| a.attachment_id()) == Some("eni-attach-1"))
            .then_output(|| ModifyNetworkInterfaceAttributeOutput::builder().build());
        let step = PreserveVolumes { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&by_device, &by_attachment]) };
        let found = found(&target(), &volumes, &[interface("eni-1", false)]);
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
        assert_eq!((by_device.num_calls(), by_attachment.num_calls()), (100, 1));
    }

    #[test]
    fn a_multi_attach_volume_is_kept_by_every_instance_that_has_it() {
        let shared = volume("vol-1", &[("i-0123456789abcdef0", "/dev/sdf"), ("i-0aaaaaaaaaaaaaaaa", "/dev/sdg")]);
        let found = found(&target(), &[shared], &[]);
        assert_eq!(found.state.len(), 2);
        let other = Key::new("vol-1", "DeleteOnTermination with i-0aaaaaaaaaaaaaaaa");
        assert_eq!(
            found.facts[&other],
            Attachment::Volume { instance: "i-0aaaaaaaaaaaaaaaa".into(), device: "/dev/sdg".into() }
        );
    }

    #[test]
    fn a_release_restores_each_attachment_and_names_what_was_detached() {
        let step = PreserveVolumes { ec2: mock_client!(aws_sdk_ec2, []) };
        let volumes = [
            volume("vol-1", &[("i-0123456789abcdef0", "/dev/sda")]),
            volume("vol-2", &[("i-0123456789abcdef0", "/dev/sdb")]),
        ];
        let before = found(&target(), &volumes, &[interface("eni-1", false)]);
        let first: First = before.state.iter().map(|(key, delete)| (key.clone(), (*delete).into())).collect();
        let mut contained = Found {
            state: step.contained(&target(), &before, &Journaled::default()).state,
            facts: before.facts.clone(),
        };
        contained.state.remove(&Key::new("vol-2", "DeleteOnTermination"));
        let goal = step.released(&target(), &contained, &first);
        assert_eq!(
            goal.state.iter().map(|(key, delete)| (key.resource.as_str(), *delete)).collect::<Vec<_>>(),
            [("eni-1", true), ("vol-1", true)]
        );
        assert_eq!(goal.unsupported.len(), 1);
        let said = &goal.unsupported[0];
        assert!(said.starts_with("vol-2 is no longer attached to i-0123456789abcdef0"), "{said}");
        assert!(said.contains("`aws ec2 describe-volumes --region eu-west-1 --volume-ids vol-2`"), "{said}");
    }

    #[test]
    fn an_interface_that_aws_manages_is_left_alone() {
        assert!(found(&target(), &[], &[interface("eni-1", true)]).state.is_empty());
    }
}
