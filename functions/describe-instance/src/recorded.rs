//! Replies of DescribeInstances that were recorded elsewhere, through the SDK's own parser.

use std::path::Path;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::InstanceLifecycleType;
use aws_smithy_mocks::{mock, mock_client};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use super::*;

/// Where EC2's XML has another name for a member than boto3's JSON.
const NAMES: &[(&str, &str)] = &[
    ("Reservations", "reservationSet"),
    ("Instances", "instancesSet"),
    ("Groups", "groupSet"),
    ("SecurityGroups", "groupSet"),
    ("NetworkInterfaces", "networkInterfaceSet"),
    ("PrivateIpAddresses", "privateIpAddressesSet"),
    ("Ipv6Addresses", "ipv6AddressesSet"),
    ("BlockDeviceMappings", "blockDeviceMapping"),
    ("Tags", "tagSet"),
    ("PublicIpAddress", "ipAddress"),
    ("PublicDnsName", "dnsName"),
];

fn xml(name: &str, value: &Value, within: &str) -> String {
    let lower = || name[..1].to_lowercase() + &name[1..];
    let known = NAMES.iter().find(|(json, _)| *json == name).map(|(_, xml)| (*xml).to_owned());
    let tag = match name {
        "State" if within == "Instances" => "instanceState".to_owned(),
        _ => known.unwrap_or_else(lower),
    };
    let inside = match value {
        Value::Object(time) if time.get("__class__").is_some() => {
            let part = |name: &str| time[name].as_u64().unwrap_or_default();
            let (date, hour) = ((part("year"), part("month"), part("day")), part("hour"));
            format!("{}-{:02}-{:02}T{hour:02}:{:02}:{:02}Z", date.0, date.1, date.2, part("minute"), part("second"))
        }
        Value::Object(members) => members.iter().map(|(member, value)| xml(member, value, name)).collect(),
        Value::Array(items) => items.iter().map(|item| xml("item", item, name)).collect(),
        Value::String(text) => text.replace('&', "&amp;").replace('<', "&lt;"),
        other => other.to_string(),
    };
    let inside = match (name, value) {
        // The members of an item belong to the list that it is in.
        ("item", Value::Object(members)) => members.iter().map(|(member, value)| xml(member, value, within)).collect(),
        _ => inside,
    };
    format!("<{tag}>{inside}</{tag}>")
}

async fn read(file: &Path) -> Vec<Result<Instance>> {
    let text = std::fs::read_to_string(file).expect("a readable file");
    let recorded: Value = serde_json::from_str(&text).expect("JSON");
    let data = recorded.get("data").unwrap_or(&recorded);
    let body = xml("DescribeInstancesResponse", &json!({ "Reservations": data["Reservations"] }), "");
    let body = body.replace("describeInstancesResponse", "DescribeInstancesResponse");
    let rule = mock!(Client::describe_instances)
        .then_http_response(move || HttpResponse::new(200.try_into().expect("a status"), SdkBody::from(body.clone())));
    let reply = mock_client!(aws_sdk_ec2, [&rule]).describe_instances().send().await.expect("the SDK parses it");
    let instances = reply.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default());
    instances.map(containable).collect()
}

fn recorded(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recorded").join(name)
}

#[tokio::test]
async fn the_recorded_instance_with_two_interfaces_is_described_whole() {
    let instances = read(&recorded("describe-instances_two-enis.json")).await;
    let described: Vec<Value> = instances
        .iter()
        .filter_map(|i| i.as_ref().ok())
        .map(|i| facts(&super::tests::target(), Read { instance: i, volumes: &[], user_data: None }, None, None, None))
        .collect();
    let two = described.iter().find(|f| f["PrivateIpAddresses"].as_array().is_some_and(|a| a.len() >= 2));
    let two = two.expect("an instance with two addresses");
    assert!(two["ImageId"].as_str().expect("an image").starts_with("ami-"));
    assert!(two["LaunchTime"].as_str().expect("a time").ends_with('Z'));
}

#[tokio::test]
async fn the_recorded_spot_instance_is_known_as_one() {
    let instances = read(&recorded("describe-instances_spot.json")).await;
    let spot = instances.iter().filter_map(|i| i.as_ref().ok());
    let spot: Vec<_> = spot.filter(|i| i.instance_lifecycle() == Some(&InstanceLifecycleType::Spot)).collect();
    assert!(!spot.is_empty());
    let facts =
        facts(&super::tests::target(), Read { instance: spot[0], volumes: &[], user_data: None }, None, None, None);
    assert_eq!((&facts["Spot"], facts["PublicIpAddress"].is_string()), (&json!(true), true));
}

#[tokio::test]
async fn the_recorded_terminated_instance_is_not_contained_and_says_so() {
    let instances = read(&recorded("describe-instances_terminated.json")).await;
    assert!(!instances.is_empty());
    let error = instances[0].as_ref().expect_err("terminated");
    assert!(error.to_string().contains("is terminated"));
}

#[tokio::test]
async fn every_recorded_reply_is_either_described_or_refused_with_a_reason() {
    let folder = std::fs::read_dir(recorded("")).expect("the folder of recorded replies");
    let files =
        folder.map(|entry| entry.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
    let mut read_files = 0;
    for file in files {
        for instance in read(&file).await {
            match instance {
                Ok(instance) => assert!(
                    facts(
                        &super::tests::target(),
                        Read { instance: &instance, volumes: &[], user_data: None },
                        None,
                        None,
                        None
                    )["InstanceType"]
                        .is_string()
                ),
                Err(error) => assert!(matches!(error.name(), "NotFound" | "Unsupported"), "{error}"),
            }
        }
        read_files += 1;
    }
    assert!(read_files >= 3);
}
