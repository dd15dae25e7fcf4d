use super::*;
use aws_sdk_ec2::types::{
    InstanceLifecycleType, InstanceNetworkInterface, InstanceNetworkInterfaceAssociation, InstancePrivateIpAddress,
    InstanceState, OperatorResponse, Tag,
};
use containment::{Found, Key, State};

pub(super) fn target() -> Target {
    Target::example()
}

fn facts_of(instance: &Instance) -> Value {
    let network = Found { state: State::new(), facts: isolate_network::Facts::default() };
    let membership = Found {
        state: [(Key::new("web", "Membership"), detach_autoscaling::Membership::default())].into(),
        facts: Default::default(),
    };
    let read = Read { instance, volumes: &[], user_data: Some("") };
    facts(&target(), read, Some(&network), Some(&membership), Some("arn:aws:iam::1:instance-profile/web"))
}

#[test]
fn a_terminated_instance_is_not_found_and_its_state_is_named() {
    for name in [InstanceStateName::Terminated, InstanceStateName::ShuttingDown] {
        let state = InstanceState::builder().name(name.clone()).build();
        let error = containable(Instance::builder().instance_id("i-1").state(state).build()).expect_err("gone");
        assert_eq!(error.name(), "NotFound");
        assert!(error.to_string().contains(name.as_str()));
    }
}

#[test]
fn an_instance_that_aws_manages_is_unsupported_and_the_text_says_what_else_to_do() {
    let operator = OperatorResponse::builder().managed(true).principal("eks.amazonaws.com").build();
    let error = containable(Instance::builder().instance_id("i-1").operator(operator).build()).expect_err("managed");
    assert_eq!(error.name(), "Unsupported");
    assert!(error.to_string().contains("eks.amazonaws.com") && error.to_string().contains("network ACL"));
}

#[test]
fn a_running_instance_and_a_stopped_one_can_be_contained() {
    for name in [InstanceStateName::Running, InstanceStateName::Stopped, InstanceStateName::Pending] {
        let state = InstanceState::builder().name(name).build();
        assert!(containable(Instance::builder().state(state).build()).is_ok());
    }
}

#[test]
fn the_facts_name_spot_group_and_profile() {
    let facts = facts_of(&Instance::builder().instance_lifecycle(InstanceLifecycleType::Spot).build());
    assert_eq!((&facts["Spot"], &facts["AutoScalingGroups"][0]), (&json!(true), &json!("web")));
    assert_eq!(facts["InstanceProfileArn"], "arn:aws:iam::1:instance-profile/web");
}

#[test]
fn tags_of_any_size_and_number_leave_the_facts_small() {
    let tag = |n: usize| Tag::builder().key(format!("{n:03}{}", "k".repeat(125))).value("値".repeat(256)).build();
    let instance = Instance::builder().set_tags(Some((0..50).map(tag).collect())).build();
    let facts = facts_of(&instance);
    assert_eq!(facts["Tags"].as_object().expect("tags").len(), 9);
    assert!(facts.to_string().len() < 4_000);
}

#[test]
fn facts_that_could_not_be_read_are_absent_and_the_outcome_says_which() {
    let instance = Instance::builder().image_id("ami-1").build();
    let facts = facts(&target(), Read { instance: &instance, volumes: &[], user_data: None }, None, None, None);
    assert_eq!((&facts["ImageId"], &facts["VpcIds"]), (&json!("ami-1"), &json!([])));
    assert_eq!(facts["UserData"], Value::Null);
    let mut missed = Missed::default();
    let none: Option<()> = missed.or_none(Err(Error::NotFound("ec2:DescribeVolumes on i-1: denied".into())));
    let outcome = missed.outcome();
    assert_eq!((none, outcome.status), (None, Status::Failed));
    assert!(outcome.reason.expect("a reason").contains("ec2:DescribeVolumes"));
}

#[test]
fn user_data_is_in_the_facts_by_size_and_hash_and_never_by_what_it_says() {
    let instance = Instance::builder().build();
    let of = |user_data| facts(&target(), Read { instance: &instance, volumes: &[], user_data }, None, None, None);
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(of(Some("YW\nJj"))["UserData"], json!({ "Present": true, "Bytes": 3, "Sha256": hash }));
    assert_eq!(of(Some(""))["UserData"], json!({ "Present": false }));
}

#[test]
fn the_public_addresses_of_every_interface_are_in_the_facts() {
    let association = |ip: &str| InstanceNetworkInterfaceAssociation::builder().public_ip(ip).build();
    let address = |ip: &str| InstancePrivateIpAddress::builder().association(association(ip)).build();
    let interface = |ip: &str| InstanceNetworkInterface::builder().private_ip_addresses(address(ip)).build();
    let instance = Instance::builder().public_ip_address("198.51.100.1");
    let instance = instance.network_interfaces(interface("198.51.100.1")).network_interfaces(interface("198.51.100.2"));
    assert_eq!(facts_of(&instance.build())["PublicIpAddresses"], json!(["198.51.100.1", "198.51.100.2"]));
}
