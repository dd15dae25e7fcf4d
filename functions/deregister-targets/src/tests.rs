use super::*;
use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
use aws_sdk_ec2::types::{NetworkInterfaceIpv6Address, NetworkInterfacePrivateIpAddress};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use classic::operation::deregister_instances_from_load_balancer::DeregisterInstancesFromLoadBalancerOutput;
use classic::operation::describe_load_balancers::DescribeLoadBalancersOutput;
use classic::types::LoadBalancerDescription;
use v2::operation::deregister_targets::DeregisterTargetsOutput;
use v2::operation::describe_target_groups::DescribeTargetGroupsOutput;
use v2::operation::describe_target_health::DescribeTargetHealthOutput;
use v2::types::{TargetHealth, TargetHealthReasonEnum};

const ID: &str = "i-0123456789abcdef0";

fn target() -> Target {
    Target::example()
}

fn group(arn: &str, kind: TargetTypeEnum, vpc: &str) -> TargetGroup {
    TargetGroup::builder().target_group_arn(arn).target_type(kind).vpc_id(vpc).port(80).build()
}

fn health(id: &str, port: i32, state: TargetHealthStateEnum) -> TargetHealthDescription {
    let reason = (state == TargetHealthStateEnum::Unused).then_some(TargetHealthReasonEnum::NotRegistered);
    TargetHealthDescription::builder()
        .target(TargetDescription::builder().id(id).port(port).build())
        .target_health(TargetHealth::builder().state(state).set_reason(reason).build())
        .build()
}

fn step(ec2: &[&Rule], elb: &[&Rule], elbv2: &[&Rule]) -> DeregisterTargets {
    DeregisterTargets {
        ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, ec2),
        elb: mock_client!(aws_sdk_elasticloadbalancing, RuleMode::MatchAny, elb),
        elbv2: mock_client!(aws_sdk_elasticloadbalancingv2, RuleMode::MatchAny, elbv2),
        registered_in: OnceLock::new(),
    }
}

fn one_interface() -> Rule {
    mock!(aws_sdk_ec2::Client::describe_network_interfaces).then_output(|| {
        let v4 = NetworkInterfacePrivateIpAddress::builder().private_ip_address("10.0.0.5").build();
        let second = NetworkInterfacePrivateIpAddress::builder().private_ip_address("10.0.0.6").build();
        let v6 = NetworkInterfaceIpv6Address::builder().ipv6_address("2001:db8::5").build();
        let interface =
            NetworkInterface::builder().vpc_id("vpc-1").private_ip_addresses(v4).private_ip_addresses(second);
        DescribeNetworkInterfacesOutput::builder().network_interfaces(interface.ipv6_addresses(v6).build()).build()
    })
}

fn no_classic() -> Rule {
    mock!(classic::Client::describe_load_balancers).then_output(|| DescribeLoadBalancersOutput::builder().build())
}

#[tokio::test]
async fn every_port_and_address_of_the_instance_is_found_and_no_other_hosts() {
    let groups = mock!(v2::Client::describe_target_groups).then_output(|| {
        DescribeTargetGroupsOutput::builder()
            .target_groups(group("tg-web", TargetTypeEnum::Instance, "vpc-1"))
            .target_groups(group("tg-ip", TargetTypeEnum::Ip, "vpc-1"))
            .target_groups(group("tg-lambda", TargetTypeEnum::Lambda, "vpc-1"))
            .target_groups(group("tg-other-vpc", TargetTypeEnum::Instance, "vpc-2"))
            .target_groups(group("tg-peered", TargetTypeEnum::Ip, "vpc-2"))
            .build()
    });
    let web = mock!(v2::Client::describe_target_health)
        .match_requests(|r| r.target_group_arn() == Some("tg-web"))
        .then_output(|| {
            DescribeTargetHealthOutput::builder()
                .target_health_descriptions(health(ID, 80, TargetHealthStateEnum::Healthy))
                .target_health_descriptions(health(ID, 8080, TargetHealthStateEnum::Unhealthy))
                .target_health_descriptions(health(ID, 9090, TargetHealthStateEnum::Unused))
                .target_health_descriptions(health("i-0bbbbbbbbbbbbbbbb", 80, TargetHealthStateEnum::Healthy))
                .build()
        });
    let ip = mock!(v2::Client::describe_target_health)
        .match_requests(|r| r.target_group_arn() == Some("tg-ip"))
        .then_output(|| {
            DescribeTargetHealthOutput::builder()
                .target_health_descriptions(health("10.0.0.6", 80, TargetHealthStateEnum::Healthy))
                .target_health_descriptions(health("2001:db8::5", 80, TargetHealthStateEnum::Healthy))
                .target_health_descriptions(health("10.0.0.7", 80, TargetHealthStateEnum::Healthy))
                .build()
        });
    let step = step(&[&one_interface()], &[&no_classic()], &[&groups, &web, &ip]);
    let found = step.read(&target()).await.expect("read");
    let keys: Vec<String> = found.state.keys().map(|k| format!("{} {}", k.resource, k.attribute)).collect();
    let expected = [
        "tg-ip Target 10.0.0.6".to_owned(),
        "tg-ip Target 2001:db8::5".to_owned(),
        format!("tg-web Target {ID}"),
        format!("tg-web Target {ID}:8080"),
    ];
    assert_eq!(keys, expected);
    let goal = step.contained(&target(), &found, &Journaled::default());
    assert!(goal.residual_risk[0].contains("1 target groups of type `ip` in other VPCs"));
}

#[tokio::test]
async fn classic_load_balancers_that_have_the_instance_are_found() {
    let classic = mock!(classic::Client::describe_load_balancers).then_output(|| {
        let instance = classic::types::Instance::builder().instance_id(ID).build();
        let ours = LoadBalancerDescription::builder().load_balancer_name("old").instances(instance).build();
        let other = LoadBalancerDescription::builder().load_balancer_name("other").build();
        DescribeLoadBalancersOutput::builder()
            .load_balancer_descriptions(ours)
            .load_balancer_descriptions(other)
            .build()
    });
    let none = mock!(v2::Client::describe_target_groups).then_output(|| DescribeTargetGroupsOutput::builder().build());
    let found = step(&[&one_interface()], &[&classic], &[&none]).read(&target()).await.expect("read");
    assert_eq!(found.state.keys().collect::<Vec<_>>(), [&Key::new("old", CLASSIC)]);
}

fn found(entries: &[(&str, &str, Option<i32>, &'static str)]) -> Found<Registration, Facts> {
    let state = entries.iter().map(|(resource, attribute, port, state)| {
        let id = ID.to_owned();
        (
            Key::new(*resource, *attribute),
            Registration { id, port: *port, availability_zone: None, quic_server_id: None, state: (*state).to_owned() },
        )
    });
    Found { state: state.collect(), facts: Facts::default() }
}

#[tokio::test]
async fn each_target_is_deregistered_with_its_own_port_and_a_draining_one_is_left_alone() {
    let exact = mock!(v2::Client::deregister_targets)
        .match_requests(|r| r.targets().len() == 1 && r.targets()[0].port() == Some(8080))
        .then_output(|| DeregisterTargetsOutput::builder().build());
    let old = mock!(classic::Client::deregister_instances_from_load_balancer)
        .then_output(|| DeregisterInstancesFromLoadBalancerOutput::builder().build());
    let step = step(&[], &[&old], &[&exact]);
    let found = found(&[
        ("tg-web", "Target a:8080", Some(8080), REGISTERED),
        ("tg-web", "Target a:80", Some(80), DRAINING),
        ("old", CLASSIC, None, REGISTERED),
    ]);
    assert!(step.write(&target(), &found, &State::new()).await.failures.is_empty());
    assert_eq!((exact.num_calls(), old.num_calls()), (1, 1));
}

#[tokio::test]
async fn a_registration_by_the_group_has_the_key_under_which_it_would_be_read() {
    let groups = mock!(v2::Client::describe_target_groups).then_output(|| {
        DescribeTargetGroupsOutput::builder().target_groups(group("tg-web", TargetTypeEnum::Instance, "vpc-1")).build()
    });
    let web = mock!(v2::Client::describe_target_health).then_output(|| {
        DescribeTargetHealthOutput::builder()
            .target_health_descriptions(health(ID, 80, TargetHealthStateEnum::Healthy))
            .build()
    });
    let found = step(&[&one_interface()], &[&no_classic()], &[&groups, &web]).read(&target()).await.expect("read");
    let by_group = registrations::registered_by_group(&target(), &["tg-web".into()], &["old".into()]);
    assert!(found.state.contains_key(&by_group[0].0));
    assert_eq!(by_group[1].0, Key::new("old", CLASSIC));
}

fn web_of(targets: &'static [(&'static str, i32, TargetHealthStateEnum)]) -> [Rule; 2] {
    let groups = mock!(v2::Client::describe_target_groups).then_output(|| {
        DescribeTargetGroupsOutput::builder()
            .target_groups(group("tg-web", TargetTypeEnum::Instance, "vpc-1"))
            .target_groups(group("tg-ip", TargetTypeEnum::Ip, "vpc-1"))
            .build()
    });
    let health = mock!(v2::Client::describe_target_health).then_output(move || {
        let targets = targets.iter().map(|(id, port, state)| health(id, *port, state.clone())).collect();
        DescribeTargetHealthOutput::builder().set_target_health_descriptions(Some(targets)).build()
    });
    [groups, health]
}

fn first(entries: &[(&str, &str, serde_json::Value)]) -> First {
    entries.iter().map(|(resource, attribute, value)| (Key::new(*resource, *attribute), value.clone())).collect()
}

fn registered_first(id: &str, port: Option<i32>) -> serde_json::Value {
    let mut value = serde_json::json!({ "Id": id, "State": "registered" });
    if let Some(port) = port {
        value["Port"] = port.into();
    }
    value
}

#[tokio::test]
async fn a_release_registers_the_exact_target_again_even_while_it_drains() {
    let [groups, health] = web_of(&[(ID, 8080, TargetHealthStateEnum::Draining)]);
    let registered = mock!(v2::Client::register_targets)
        .match_requests(|r| {
            let target = &r.targets()[0];
            r.target_group_arn() == Some("tg-web")
                && target.id() == Some(ID)
                && matches!(target.port(), None | Some(8080))
        })
        .then_output(|| v2::operation::register_targets::RegisterTargetsOutput::builder().build());
    let old = mock!(classic::Client::register_instances_with_load_balancer).then_output(|| {
        classic::operation::register_instances_with_load_balancer::RegisterInstancesWithLoadBalancerOutput::builder()
            .build()
    });
    let there = mock!(classic::Client::describe_load_balancers).then_output(|| {
        let old = LoadBalancerDescription::builder().load_balancer_name("old").build();
        DescribeLoadBalancersOutput::builder().load_balancer_descriptions(old).build()
    });
    let step = step(&[&one_interface()], &[&there, &old], &[&groups, &health, &registered]);
    let first = first(&[
        ("tg-web", &format!("Target {ID}"), registered_first(ID, None)),
        ("tg-web", &format!("Target {ID}:8080"), registered_first(ID, Some(8080))),
        ("old", CLASSIC, registered_first(ID, None)),
    ]);
    let found = step.read_journaled(&target(), &first).await.expect("read");
    let goal = step.released(&target(), &found, &first);
    assert!(goal.unsupported.is_empty(), "{:?}", goal.unsupported);
    assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
    assert_eq!((registered.num_calls(), old.num_calls()), (2, 1));
}

#[tokio::test]
async fn a_target_whose_health_checks_have_only_begun_counts_as_registered() {
    let [groups, health] =
        web_of(&[(ID, 80, TargetHealthStateEnum::Initial), (ID, 9999, TargetHealthStateEnum::Healthy)]);
    let step = step(&[&one_interface()], &[], &[&groups, &health]);
    let first = first(&[("tg-web", &format!("Target {ID}"), registered_first(ID, None))]);
    let found = step.read_journaled(&target(), &first).await.expect("read");
    assert_eq!(found.state.len(), 1, "this case did not deregister the other one");
    assert_eq!(step.released(&target(), &found, &first).state, found.state);
}

#[tokio::test]
async fn a_deleted_group_is_named_with_the_command_and_the_rest_is_registered() {
    let [groups, health] = web_of(&[]);
    let none = no_classic();
    let step = step(&[&one_interface()], &[&none], &[&groups, &health]);
    let first = first(&[
        ("tg-web", &format!("Target {ID}"), registered_first(ID, None)),
        ("tg-deleted", &format!("Target {ID}:8080"), registered_first(ID, Some(8080))),
        ("tg-ip", "Target 10.0.0.99", registered_first("10.0.0.99", Some(80))),
        ("old; reboot", CLASSIC, registered_first(ID, None)),
    ]);
    let found = step.read_journaled(&target(), &first).await.expect("read");
    let goal = step.released(&target(), &found, &first);
    assert_eq!(goal.state.keys().map(|key| key.resource.as_str()).collect::<Vec<_>>(), ["tg-web"]);
    let said = goal.unsupported.join("\n");
    assert!(said.contains(&format!("--target-group-arn tg-deleted --targets Id={ID},Port=8080`")), "{said}");
    assert!(
        said.contains("10.0.0.99, which was registered in tg-ip, is no longer an address of the instance"),
        "{said}"
    );
    assert!(said.contains("--load-balancer-name 'old; reboot' --instances"), "{said}");
}

#[test]
fn a_target_that_was_draining_before_the_containment_is_not_registered_again() {
    let draining = serde_json::json!({ "Id": ID, "Port": 80, "State": "draining" });
    let goal = step(&[], &[], &[]).released(&target(), &found(&[]), &first(&[("tg-web", "Target a", draining)]));
    assert!(goal.state.is_empty() && goal.unsupported.is_empty());
}

#[test]
fn draining_is_accepted_and_no_registration_is_not_applicable() {
    let step = step(&[], &[], &[]);
    let draining = found(&[("tg-web", "Target a:80", Some(80), DRAINING)]);
    assert!(draining.state.values().all(|r| step.accepted(r)));
    assert!(step.contained(&target(), &found(&[]), &Journaled::default()).not_applicable.is_some());
}
