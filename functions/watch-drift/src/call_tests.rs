use super::*;
use proptest::prelude::*;
use serde_json::json;

const OWN: &str = "999999999999";
const ACCOUNT: &str = "123456789012";
const ID: &str = "i-0123456789abcdef0";

fn own() -> Own {
    Own {
        account: OWN.into(),
        stack: "cordon".into(),
        member_role: "cordon/cordon-member".into(),
        forensic_role: Some("cordon/cordon-forensic".into()),
    }
}

fn event(name: &str, parameters: Value) -> Value {
    json!({
        "version": "0", "detail-type": "AWS API Call via CloudTrail", "source": "aws.ec2", "account": ACCOUNT,
        "region": "eu-west-1",
        "detail": {
            "eventVersion": "1.11", "eventName": name, "eventTime": "2026-11-21T03:12:45Z",
            "eventID": "3a0e3f5e-1111-4222-8333-444444444444", "awsRegion": "eu-west-1",
            "sourceIPAddress": "198.51.100.7", "userAgent": "aws-cli/2.31.0",
            "userIdentity": {
                "type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/eve", "accessKeyId": "AKIAEVE",
            },
            "requestParameters": parameters, "responseElements": null,
        },
    })
}

fn issued_by(role: &str) -> Value {
    let mut event = event("StopInstances", json!({ "instancesSet": { "items": [{ "instanceId": ID }] } }));
    event["detail"]["userIdentity"] = json!({
        "type": "AssumedRole", "arn": "arn:aws:sts::1:assumed-role/x/isolate-network@i-0123456789abcdef0",
        "sessionContext": { "sessionIssuer": { "type": "Role", "arn": role } },
    });
    event
}

fn keys(event: &Value) -> Vec<String> {
    let call = read(event, &own()).map(|call| call.named).unwrap_or_default();
    call.into_iter().map(|named| named.key.replace("123456789012/eu-west-1/", "")).collect()
}

/// Requests as CloudTrail records them, in each of its three ways.
#[test]
fn every_call_names_its_resources_in_all_of_cloudtrails_formats() {
    let items = |name: &str| json!({ "items": [{ name: ID }] });
    let table = [
        (
            "ModifyNetworkInterfaceAttribute",
            json!({ "networkInterfaceId": "eni-1a", "groupSet": { "items": [{ "groupId": "sg-web" }] } }),
            vec!["eni-1a"],
        ),
        (
            "AttachNetworkInterface",
            json!({ "networkInterfaceId": "eni-1a", "instanceId": ID, "deviceIndex": 2 }),
            vec![ID, "eni-1a"],
        ),
        ("ModifyInstanceAttribute", json!({ "instanceId": ID, "disableApiTermination": { "value": false } }), vec![ID]),
        (
            "AuthorizeSecurityGroupIngress",
            json!({ "groupId": "sg-1a", "ipPermissions": { "items": [
            { "ipProtocol": "-1", "groups": { "items": [{ "groupId": "sg-other" }] }, "ipRanges": { "items": [{ "cidrIp": "0.0.0.0/0" }] } }
        ] } }),
            vec!["sg-1a"],
        ),
        (
            "ModifySecurityGroupRules",
            json!({ "ModifySecurityGroupRulesRequest": { "GroupId": "sg-1a",
            "SecurityGroupRule": { "tag": 1, "SecurityGroupRuleId": "sgr-1" } } }),
            vec!["sg-1a"],
        ),
        (
            "AssociateIamInstanceProfile",
            json!({ "AssociateIamInstanceProfileRequest": {
            "InstanceId": ID, "IamInstanceProfile": { "Name": "admin" } } }),
            vec![ID],
        ),
        (
            "DeleteTags",
            json!({ "resourcesSet": { "items": [{ "resourceId": ID }, { "resourceId": "vol-1a" }] },
            "tagSet": { "items": [{ "key": "CordonCase" }] } }),
            vec![ID, "vol-1a"],
        ),
        (
            "ModifySnapshotAttribute",
            json!({ "snapshotId": "snap-1a", "attributeType": "CREATE_VOLUME_PERMISSION",
            "createVolumePermission": { "add": { "items": [{ "group": "all" }] } } }),
            vec!["snap-1a"],
        ),
        ("UnlockSnapshot", json!({ "UnlockSnapshotRequest": { "SnapshotId": "snap-1a" } }), vec!["snap-1a"]),
        (
            "DeleteFlowLogs",
            json!({ "DeleteFlowLogsRequest": { "FlowLogId": { "tag": 1, "content": "fl-1a" } } }),
            vec!["fl-1a"],
        ),
        ("StopInstances", json!({ "instancesSet": items("instanceId"), "force": false }), vec![ID]),
        ("AttachInstances", json!({ "autoScalingGroupName": "web", "instanceIds": [ID] }), vec![ID]),
        (
            "RegisterTargets",
            json!({ "targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/a/1",
            "targets": [{ "id": ID, "port": 80 }, { "id": "10.0.0.4" }, { "id": ID, "port": 81 }] }),
            vec![ID, "10.0.0.4"],
        ),
        (
            "RegisterInstancesWithLoadBalancer",
            json!({ "loadBalancerName": "web", "instances": [{ "instanceId": ID }] }),
            vec![ID],
        ),
        ("StartSession", json!({ "target": ID }), vec![ID]),
        (
            "DeleteRolePolicy",
            json!({ "roleName": "web", "policyName": "cordon-deny-i-1" }),
            vec!["123456789012/iam/web/cordon-deny-i-1"],
        ),
    ];
    for (name, parameters, wanted) in table {
        assert_eq!(keys(&event(name, parameters)), wanted, "{name}");
    }
}

#[test]
fn resources_that_only_the_answer_names_are_read_from_it() {
    let mut replaced = event(
        "ReplaceIamInstanceProfileAssociation",
        json!({ "ReplaceIamInstanceProfileAssociationRequest": { "AssociationId": "iip-assoc-1" } }),
    );
    replaced["detail"]["responseElements"] = json!({ "ReplaceIamInstanceProfileAssociationResponse": { "iamInstanceProfileAssociation": { "instanceId": ID } } });
    assert_eq!(keys(&replaced), [ID]);
    let mut by_name = event("AuthorizeSecurityGroupEgress", json!({ "groupName": "cordon-isolation" }));
    by_name["detail"]["responseElements"] = json!({ "securityGroupRuleSet": { "items": [
        { "groupId": "sg-1a", "referencedGroupInfo": { "groupId": "sg-other" } }
    ] } });
    assert_eq!(keys(&by_name), ["sg-1a"]);
}

#[test]
fn an_id_in_a_tag_a_description_or_a_peer_names_nothing() {
    let tagged = json!({ "resourcesSet": { "items": [{ "resourceId": "i-0bbbbbbbbbbbbbbbb" }] },
        "tagSet": { "items": [{ "key": "Owner", "value": ID }] } });
    assert_eq!(keys(&event("CreateTags", tagged)), ["i-0bbbbbbbbbbbbbbbb"]);
    let described = json!({ "networkInterfaceId": "eni-1a", "description": { "value": ID } });
    assert_eq!(keys(&event("ModifyNetworkInterfaceAttribute", described)), ["eni-1a"]);
}

#[test]
fn refused_and_harmless_calls_are_no_drift() {
    let mut refused = event("TerminateInstances", json!({ "instancesSet": { "items": [{ "instanceId": ID }] } }));
    assert_eq!(keys(&refused), [ID]);
    refused["detail"]["errorCode"] = json!("Client.OperationNotPermitted");
    assert!(keys(&refused).is_empty());
    assert!(keys(&event("DescribeInstances", json!({ "instanceId": ID }))).is_empty());
    assert!(keys(&event("RevokeSecurityGroupIngress", json!({ "groupId": "sg-1a" }))).is_empty());
}

#[test]
fn cordons_own_calls_are_no_drift() {
    for role in [
        "arn:aws:iam::999999999999:role/cordon/cordon-IsolateNetworkRole-1AB2CD3EF4GH",
        "arn:aws:iam::123456789012:role/cordon/cordon-member",
        "arn:aws:iam::123456789012:role/cordon/cordon-forensic",
    ] {
        assert!(read(&issued_by(role), &own()).is_none(), "{role}");
    }
}

#[test]
fn a_role_named_like_cordons_is_not_cordons() {
    for role in [
        // In the victim's account, made by its owner.
        "arn:aws:iam::123456789012:role/cordon/cordon-IsolateNetworkRole-1AB2CD3EF4GH",
        "arn:aws:iam::123456789012:role/cordon-member",
        "arn:aws:iam::123456789012:role/x/cordon/cordon-member",
        "arn:aws:iam::123456789012:role/cordon/cordon-member/x",
        "arn:aws:iam::123456789012:role/cordon/cordon-member2",
        "arn:aws:iam::123456789012:role/Cordon/cordon-member",
        // In a third account.
        "arn:aws:iam::666666666666:role/cordon/cordon-member",
        "arn:aws:iam::666666666666:role/cordon/cordon-IsolateNetworkRole-1AB2CD3EF4GH",
        // In Cordon's own account, but no function's.
        "arn:aws:iam::999999999999:role/cordon/other-IsolateNetworkRole-1",
        "arn:aws:iam::999999999999:role/cordon/cordon-admin",
        "arn:aws:iam::999999999999:role/cordon-IsolateNetworkRole-1",
        "arn:aws:iam::999999999999:role/cordon/cordon-x/IsolateNetworkRole-1",
        "arn:aws:iam::999999999999:user/cordon/cordon-IsolateNetworkRole-1",
        "cordon",
    ] {
        assert!(read(&issued_by(role), &own()).is_some(), "{role}");
    }
    let mut user = issued_by("arn:aws:iam::123456789012:role/cordon/cordon-member");
    user["detail"]["userIdentity"]["sessionContext"]["sessionIssuer"]["type"] = json!("Root");
    assert!(read(&user, &own()).is_some());
}

#[test]
fn the_callers_details_are_kept_verbatim_and_cut_to_a_messages_length() {
    let mut event = event("ModifyInstanceAttribute", json!({ "instanceId": ID, "userData": "<sensitiveDataRemoved>" }));
    event["detail"]["userAgent"] = json!("x".repeat(9_000));
    let call = read(&event, &own()).expect("a call");
    assert_eq!(call.drift.caller, "arn:aws:iam::123456789012:user/eve");
    assert_eq!((call.drift.access_key_id.as_str(), call.drift.source_ip_address.as_str()), ("AKIAEVE", "198.51.100.7"));
    assert_eq!((call.drift.user_agent.len(), call.at), (400, Some(1_795_230_765)));
    let mut service = event.clone();
    service["detail"]["userIdentity"] = json!({ "type": "AWSService", "invokedBy": "autoscaling.amazonaws.com" });
    assert_eq!(read(&service, &own()).expect("a call").drift.caller, "autoscaling.amazonaws.com");
}

#[test]
fn an_event_id_that_does_not_fit_an_executions_name_is_replaced() {
    let mut event = event("StartSession", json!({ "target": ID }));
    for hostile in [json!("x'; rm -rf /"), json!(""), json!("a".repeat(200)), Value::Null] {
        event["detail"]["eventID"] = hostile;
        let id = read(&event, &own()).expect("a call").drift.event_id;
        assert!(id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(ID.to_owned()),
        Just("eni-1a".to_owned()),
        Just("arn:aws:iam::123456789012:role/cordon/cordon-member".to_owned()),
        Just("Role".to_owned()),
        ".{0,12}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    let names = prop::sample::select(vec![
        "instanceId",
        "items",
        "resourceId",
        "target",
        "id",
        "groupId",
        "roleName",
        "policyName",
        "content",
        "XRequest",
        "instancesSet",
        "sessionContext",
        "sessionIssuer",
        "arn",
        "type",
        "securityGroupRuleSet",
    ]);
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_event_causes_a_panic_or_a_key_that_it_does_not_contain(
        parameters in json_value(), answer in json_value(), identity in json_value(), time in ".{0,24}",
        name in prop::sample::select(CALLS.map(|(name, _)| name).to_vec())
    ) {
        let mut event = event(name, parameters);
        event["detail"]["responseElements"] = answer;
        event["detail"]["userIdentity"] = identity;
        event["detail"]["eventTime"] = json!(time);
        let said = format!("{}{}", event["detail"]["requestParameters"], event["detail"]["responseElements"]);
        if let Some(call) = read(&event, &own()) {
            for named in call.named {
                prop_assert!(named.key.starts_with("123456789012/"));
                prop_assert!(named.key.contains("/iam/") || said.contains(&named.id), "{}", named.key);
            }
        }
    }

    #[test]
    fn no_call_of_cordons_own_is_drift(parameters in json_value(), answer in json_value(),
        name in prop::sample::select(CALLS.map(|(name, _)| name).to_vec())) {
        let mut event = issued_by("arn:aws:iam::123456789012:role/cordon/cordon-member");
        event["detail"]["eventName"] = json!(name);
        event["detail"]["requestParameters"] = parameters;
        event["detail"]["responseElements"] = answer;
        prop_assert!(read(&event, &own()).is_none());
    }
}
