use serde_json::{Value, json};

use super::*;

const ID: &str = "i-0123456789abcdef0";
const OTHER: &str = "i-0fedcba9876543210";
const THIRD: &str = "i-0aaaaaaaaaaaaaaaa";
const ARN: &str = "arn:aws:guardduty:eu-west-1:111122223333:detector/d/finding/f";

/// Events as other projects published them, unchanged; a finding without its event gets an envelope here.
pub(crate) fn recorded(name: &str) -> Value {
    let text = match name {
        "ec2" => include_str!("recorded/gd_c7n_ec2-duty-event.json"),
        "iam" => include_str!("recorded/gd_c7n_iam-duty-event.json"),
        "network" => include_str!("recorded/gd_olu_network-eventbridge.json"),
        "brute-force" => include_str!("recorded/gd_seed2_Test-GuardDutyFindings.json"),
        "eks-custom-action" => include_str!("recorded/sh_awssolution_customaction_eks_payload.json"),
        _ => panic!("no recorded event {name}"),
    };
    let event: Value = serde_json::from_str(text).expect("JSON");
    match is_event(&event) {
        true => event,
        false => guardduty(event),
    }
}

/// The delegated administrator's event of a member's finding.
fn guardduty(detail: Value) -> Value {
    json!({
        "version": "0", "id": "e", "detail-type": "GuardDuty Finding", "source": "aws.guardduty",
        "account": "999999999999", "region": "us-east-1", "time": "2026-11-21T03:00:00Z", "resources": [],
        "detail": detail,
    })
}

fn finding_on(resource: Value) -> Value {
    json!({
        "accountId": "111122223333", "region": "eu-west-1", "arn": ARN, "id": "f", "severity": 8,
        "type": "Backdoor:EC2/C&CActivity.B!DNS", "title": "C&C activity", "resource": resource,
        "service": { "archived": false, "additionalInfo": { "value": "{}", "type": "default" } },
    })
}

fn on_instance() -> Value {
    finding_on(json!({ "resourceType": "Instance", "instanceDetails": { "instanceId": ID } }))
}

pub(crate) fn attack_sequence() -> Value {
    let arn = |id: &str, account: &str| format!("arn:aws:ec2:eu-west-1:{account}:instance/{id}");
    let resources = json!([
        { "uid": "arn:aws:autoscaling:eu-west-1:111122223333:autoScalingGroup:g:autoScalingGroupName/web",
          "accountId": "111122223333", "region": "eu-west-1", "resourceType": "AUTOSCALING_AUTO_SCALING_GROUP",
          "name": "web",
          "data": { "autoscalingAutoScalingGroup": { "ec2InstanceUids": [THIRD, arn(ID, "111122223333")] } } },
        { "uid": arn(ID, "111122223333"), "accountId": "111122223333", "region": "eu-west-1",
          "resourceType": "EC2_INSTANCE", "name": "i-0badbadbadbadbad0",
          "tags": [{ "key": "Name", "value": "i-0badbadbadbadbad0" }],
          "data": { "ec2Instance": { "instanceType": "t3.micro", "ec2NetworkInterfaceUids": ["eni-1"] } } },
        { "uid": OTHER, "accountId": "444455556666", "region": "eu-central-1", "resourceType": "EC2_INSTANCE" },
        { "uid": "arn:aws:iam::444455556666:instance-profile/web", "accountId": "444455556666", "region": "us-east-1",
          "resourceType": "IAM_INSTANCE_PROFILE", "data": { "iamInstanceProfile": { "ec2InstanceUids": [OTHER] } } },
        { "uid": "arn:aws:eks:eu-west-1:111122223333:cluster/c", "resourceType": "EKS_CLUSTER",
          "data": { "eksCluster": { "ec2InstanceUids": ["i-0badbadbadbadbad0"] } } },
        { "uid": "arn:aws:ecs:eu-west-1:111122223333:cluster/c", "resourceType": "ECS_CLUSTER",
          "data": { "ecsCluster": { "ec2InstanceUids": ["i-0badbadbadbadbad0"] } } },
        { "uid": "AKIA", "resourceType": "ACCESS_KEY", "data": { "accessKey": { "userName": "i-0badbadbadbadbad0" } } },
    ]);
    let mut detail = finding_on(json!({ "resourceType": "AttackSequence" }));
    detail["type"] = json!("AttackSequence:EC2/CompromisedInstanceGroup");
    detail["severity"] = json!(9);
    detail["service"]["detection"] = json!({ "sequence": {
        "uid": "s", "description": "about i-0badbadbadbadbad0", "resources": resources,
        "signals": [{ "uid": "x", "type": "FINDING", "resourceUids": ["i-0badbadbadbadbad0"] }],
    } });
    guardduty(detail)
}

fn sequence_of(resources: Value) -> Value {
    let mut event = attack_sequence();
    event["detail"]["service"]["detection"]["sequence"]["resources"] = resources;
    event
}

fn security_hub(findings: Value) -> Value {
    json!({
        "detail-type": "Security Hub Findings - Imported", "source": "aws.securityhub", "account": "999999999999",
        "region": "us-east-1", "detail": { "findings": findings },
    })
}

pub(crate) fn asff_event() -> Value {
    let mut second = asff(json!([{ "Type": "AwsEc2Instance", "Id": THIRD, "Region": "eu-north-1" }]));
    second["Id"] = json!("second");
    let first = asff(json!([
        { "Type": "AwsEc2Instance", "Id": format!("arn:aws:ec2:eu-central-1:444455556666:instance/{ID}"),
          "Region": "eu-west-1", "Tags": { "Name": "i-0badbadbadbadbad0" } },
        { "Type": "AwsIamRole", "Id": "arn:aws:ec2:eu-west-1:1:instance/i-0badbadbadbadbad0",
          "Details": { "AwsEc2Instance": { "IamInstanceProfileArn": "i-0badbadbadbadbad0" } } },
        { "Type": "AwsEc2Instance", "Id": OTHER },
    ]));
    security_hub(json!([first, second]))
}

fn asff(resources: Value) -> Value {
    json!({
        "Id": ARN, "ProductArn": "arn:aws:securityhub:eu-west-1::product/aws/guardduty", "ProductName": "GuardDuty",
        "AwsAccountId": "111122223333", "Region": "eu-west-1", "Title": "C&C activity",
        "Types": ["TTPs/Command and Control/Backdoor:EC2-C&CActivity.B!DNS"],
        "Severity": { "Product": 8, "Normalized": 80, "Label": "HIGH" }, "RecordState": "ACTIVE",
        "Workflow": { "Status": "NEW" }, "Resources": resources,
    })
}

fn asff_on_instance() -> Value {
    asff(json!([{ "Type": "AwsEc2Instance", "Id": ID }]))
}

#[track_caller]
fn only(event: Value) -> Finding {
    let alert = read(&event).expect("readable");
    assert_eq!(alert.findings.len(), 1);
    alert.findings.into_iter().next().expect("one")
}

fn places(finding: &Finding) -> Vec<(&str, &str, &str)> {
    finding.instances.iter().map(|n| (n.account_id.as_str(), n.region.as_str(), n.instance_id.as_str())).collect()
}

fn with(mut value: Value, pointer: &str, replacement: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    value.pointer_mut(parent).expect("a parent")[field.replace("~1", "/").as_str()] = replacement;
    value
}

#[track_caller]
fn refused(event: Value, field: &str, accepted: &str) {
    let text = read(&event).expect_err("refused").to_string();
    assert!(text.starts_with(field) && text.contains(accepted), "{text}");
    assert!(!text.contains('\n') && text.chars().count() < 400, "one sentence: {text}");
}

#[test]
fn a_recorded_finding_on_an_instance_names_it_with_the_members_account() {
    let finding = only(recorded("ec2"));
    assert_eq!(places(&finding), [("883606788610", "us-east-1", "i-99999999")]);
    assert_eq!(finding.instances[0].field, "detail.resource.instanceDetails.instanceId");
    assert!(finding.sample && !finding.archived);
    assert_eq!((finding.finding_type.as_str(), finding.severity), ("Backdoor:EC2/C&CActivity.B!DNS", Some(5.0)));
    assert!(finding.id.starts_with("arn:aws:guardduty:us-east-1:883606788610:detector/"));
}

#[test]
fn a_recorded_finding_on_a_key_names_no_instance_even_if_its_call_did() {
    let finding = only(recorded("iam"));
    assert_eq!((finding.about.as_str(), finding.instances.len()), ("AccessKey", 0));
}

#[test]
fn a_recorded_finding_may_be_a_sample_about_an_ordinary_instance() {
    let finding = only(recorded("network"));
    assert_eq!(places(&finding), [("123456789012", "us-west-2", ID)]);
    assert!(finding.sample);
    assert_eq!(finding.severity, Some(8.7));
}

#[test]
fn a_recorded_finding_on_a_real_instance_is_neither_sample_nor_archived() {
    let finding = only(recorded("brute-force"));
    assert_eq!(places(&finding), [("000000000000", "ap-northeast-2", "i-02bd22d56a353de42")]);
    assert!(!finding.sample && !finding.archived);
}

#[test]
fn a_recorded_custom_action_on_a_cluster_names_no_instance() {
    let alert = read(&recorded("eks-custom-action")).expect("readable");
    let finding = &alert.findings[0];
    assert_eq!(alert.source, Source::SecurityHubCustomAction);
    assert_eq!((finding.about.as_str(), finding.instances.len()), ("AwsEksCluster", 0));
    assert_eq!((finding.product.as_str(), finding.severity), ("GuardDuty", Some(5.0)));
    assert!(!finding.sample && !finding.archived);
}

#[test]
fn the_delegated_administrators_event_is_about_the_members_instance() {
    assert_eq!(places(&only(guardduty(on_instance()))), [("111122223333", "eu-west-1", ID)]);
}

#[test]
fn missing_account_and_region_come_from_the_arn_and_never_the_envelope() {
    let mut detail = on_instance();
    detail["accountId"] = Value::Null;
    detail.as_object_mut().expect("object").remove("region");
    assert_eq!(places(&only(guardduty(detail.clone()))), [("111122223333", "eu-west-1", ID)]);
    detail["arn"] = json!("no arn");
    assert_eq!(places(&only(guardduty(detail))), [("", "", ID)]);
}

#[test]
fn runtime_ecs_and_eks_findings_name_the_instance_under_them() {
    for kind in ["Instance", "EKSCluster", "ECSCluster", "Container", "SomethingNew"] {
        let resource = json!({
            "resourceType": kind, "instanceDetails": { "instanceId": ID, "tags": [{ "key": "Name", "value": OTHER }] },
            "eksClusterDetails": { "name": OTHER },
            "ecsClusterDetails": { "arn": OTHER, "taskDetails": { "tags": [OTHER] } },
            "containerDetails": { "id": OTHER },
        });
        let finding = only(guardduty(finding_on(resource)));
        assert_eq!((places(&finding), finding.about.as_str()), (vec![("111122223333", "eu-west-1", ID)], kind));
    }
}

#[test]
fn a_finding_on_fargate_or_on_a_control_plane_names_none() {
    for details in [json!(null), json!({}), json!({ "instanceId": null }), json!({ "instanceId": "" }), json!("i-1")] {
        let finding = only(guardduty(finding_on(json!({ "resourceType": "ECSCluster", "instanceDetails": details }))));
        assert!(finding.instances.is_empty() && finding.about == "ECSCluster");
    }
}

#[test]
fn ids_in_descriptions_tags_actions_and_affected_resources_are_not_named() {
    let mut detail = finding_on(json!({
        "resourceType": "AccessKey", "accessKeyDetails": { "userName": ID },
        "s3BucketDetails": [{ "name": ID, "tags": [{ "key": "instanceId", "value": ID }] }],
        "instanceDetails": { "tags": [{ "key": "instanceId", "value": ID }], "imageDescription": ID },
    }));
    detail["description"] = json!(ID);
    detail["instanceId"] = json!(ID);
    detail["service"]["action"] = json!({ "awsApiCallAction": {
        "affectedResources": { "AWS::EC2::Instance": ID }, "instanceDetails": { "instanceId": ID } } });
    detail["service"]["additionalInfo"]["instanceDetails"] = json!({ "instanceId": ID });
    assert!(only(guardduty(detail)).instances.is_empty());
}

#[test]
fn an_attack_sequence_names_its_instances_once_each_with_their_own_accounts() {
    let finding = only(attack_sequence());
    let expected = [
        ("111122223333", "eu-west-1", THIRD),
        ("111122223333", "eu-west-1", ID),
        ("444455556666", "eu-central-1", OTHER),
    ];
    assert_eq!(places(&finding), expected);
    let list = "detail.service.detection.sequence.resources";
    let fields: Vec<&str> = finding.instances.iter().map(|named| named.field.as_str()).collect();
    let group = "[0].data.autoscalingAutoScalingGroup.ec2InstanceUids";
    assert_eq!(fields, [format!("{list}{group}[0]"), format!("{list}{group}[1]"), format!("{list}[2].uid")]);
    assert_eq!((finding.about.as_str(), finding.severity, finding.sample), ("AttackSequence", Some(9.0), false));
}

#[test]
fn every_group_of_compromised_instances_counts_and_no_clusters_worker_nodes() {
    for (kind, data) in [
        ("AUTOSCALING_AUTO_SCALING_GROUP", "autoscalingAutoScalingGroup"),
        ("CLOUDFORMATION_STACK", "cloudformationStack"),
        ("EC2_IMAGE", "ec2Image"),
        ("EC2_LAUNCH_TEMPLATE", "ec2LaunchTemplate"),
        ("EC2_VPC", "ec2Vpc"),
        ("IAM_INSTANCE_PROFILE", "iamInstanceProfile"),
    ] {
        let group = json!([{ "uid": "u", "resourceType": kind, "data": { data: { "ec2InstanceUids": [ID] } } }]);
        assert_eq!(places(&only(sequence_of(group))), [("111122223333", "eu-west-1", ID)], "{kind}");
    }
    for (kind, data) in [("EKS_CLUSTER", "eksCluster"), ("ECS_CLUSTER", "ecsCluster"), ("EKS_CLUSTER", "ec2Vpc")] {
        let cluster = json!([{ "uid": ID, "resourceType": kind, "data": { data: { "ec2InstanceUids": [ID] } } }]);
        assert!(only(sequence_of(cluster)).instances.is_empty(), "{kind}");
    }
}

#[test]
fn an_instance_profiles_own_region_is_not_its_instances_region() {
    let profile = json!([{
        "uid": "p", "accountId": "444455556666", "region": "us-east-1", "resourceType": "IAM_INSTANCE_PROFILE",
        "data": { "iamInstanceProfile": { "ec2InstanceUids": [ID] } } }]);
    assert_eq!(places(&only(sequence_of(profile))), [("444455556666", "eu-west-1", ID)]);
}

#[test]
fn a_group_may_refer_to_an_instance_by_an_opaque_uid() {
    let resources = json!([
        { "uid": "t", "resourceType": "EC2_LAUNCH_TEMPLATE",
          "data": { "ec2LaunchTemplate": { "ec2InstanceUids": ["ref-1"] } } },
        { "uid": "ref-1", "accountId": "444455556666", "region": "eu-north-1", "resourceType": "EC2_INSTANCE",
          "data": { "ec2Instance": { "instanceId": ID } } },
    ]);
    assert_eq!(places(&only(sequence_of(resources))), [("444455556666", "eu-north-1", ID)]);
}

#[test]
fn an_unidentified_instance_is_passed_on_and_not_guessed_from_its_name() {
    let resources = json!([{ "uid": "ref-1", "name": ID, "resourceType": "EC2_INSTANCE" }]);
    assert_eq!(places(&only(sequence_of(resources))), [("111122223333", "eu-west-1", "ref-1")]);
}

#[test]
fn an_attack_sequence_may_list_a_single_resource() {
    let event = sequence_of(json!({ "uid": ID, "resourceType": "EC2_INSTANCE" }));
    assert_eq!(places(&only(event.clone())), [("111122223333", "eu-west-1", ID)]);
    let event = with(event, "/detail/type", json!("Backdoor:EC2/C&CActivity.B!DNS"));
    assert_eq!(only(event.clone()).instances.len(), 1, "the resource's type still says so");
    assert!(only(with(event, "/detail/resource/resourceType", json!("Instance"))).instances.is_empty());
}

#[test]
fn an_attack_sequence_on_credentials_names_none() {
    let mut event = attack_sequence();
    event["detail"]["service"]["detection"]["sequence"].as_object_mut().expect("object").remove("resources");
    assert!(only(event).instances.is_empty());
}

#[test]
fn security_hub_sends_several_findings_with_several_instances() {
    let alert = read(&asff_event()).expect("readable");
    assert_eq!((alert.source, alert.findings.len()), (Source::SecurityHub, 2));
    let first = &alert.findings[0];
    assert_eq!(places(first), [("444455556666", "eu-central-1", ID), ("111122223333", "eu-west-1", OTHER)]);
    assert_eq!(first.instances[1].field, "detail.findings[0].Resources[2].Id");
    assert_eq!(first.about, "AwsEc2Instance, AwsIamRole");
    assert_eq!(places(&alert.findings[1]), [("111122223333", "eu-north-1", THIRD)]);
}

#[test]
fn an_instance_that_a_finding_names_twice_is_named_once() {
    let resource = json!({ "Type": "AwsEc2Instance", "Id": ID });
    let arn = json!({ "Type": "AwsEc2Instance", "Id": format!("arn:aws:ec2:eu-west-1:111122223333:instance/{ID}") });
    let finding = only(security_hub(json!([asff(json!([resource, arn]))])));
    assert_eq!(finding.instances.len(), 1);
    assert_eq!(finding.instances[0].field, "detail.findings[0].Resources[0].Id");
}

#[test]
fn instance_arns_of_every_partition_are_read_and_no_other_arns() {
    let on = |id: &str| only(security_hub(json!([asff(json!([{ "Type": "AwsEc2Instance", "Id": id }]))])));
    let china = format!("arn:aws-cn:ec2:cn-north-1:444455556666:instance/{ID}");
    assert_eq!(places(&on(&china)), [("444455556666", "cn-north-1", ID)]);
    assert_eq!(places(&on(&format!("arn:aws:ec2:::instance/{ID}"))), [("111122223333", "eu-west-1", ID)]);
    let volume = "arn:aws:ec2:eu-west-1:444455556666:volume/vol-1";
    let connect = "arn:aws:connect:eu-west-1:444455556666:instance/i-0123456789abcdef0";
    for arn in [volume, connect] {
        assert_eq!(places(&on(arn)), [("111122223333", "eu-west-1", arn)], "for the caller to refuse by name");
    }
}

#[test]
fn a_single_finding_or_resource_may_replace_a_list() {
    let finding = only(security_hub(asff(json!({ "Type": "AwsEc2Instance", "Id": ID }))));
    assert_eq!(finding.instances[0].field, "detail.findings.Resources.Id");
    let event =
        guardduty(finding_on(json!([{ "resourceType": "Instance", "instanceDetails": [{ "instanceId": ID }] }])));
    let finding = only(event);
    assert_eq!(finding.instances[0].field, "detail.resource[0].instanceDetails[0].instanceId");
    assert_eq!(finding.about, "Instance");
}

#[test]
fn asffs_severity_is_guarddutys_own_or_the_normalized_or_the_labels() {
    let severity = |severity: Value, provider: Value, product: &str| {
        let finding = with(asff_on_instance(), "/Severity", severity);
        let finding = with(finding, "/FindingProviderFields", json!({ "Severity": provider }));
        let arn = format!("arn:aws:securityhub:eu-west-1::product/aws/{product}");
        let finding = with(finding, "/ProductArn", json!(arn));
        only(security_hub(json!([with(finding, "/ProductName", json!(product))]))).severity
    };
    assert_eq!(
        severity(json!({ "Product": 5.5, "Normalized": 60 }), json!({ "Label": "LOW" }), "guardduty"),
        Some(5.5)
    );
    assert_eq!(severity(json!({ "Product": 5, "Normalized": "70" }), json!(null), "inspector"), Some(7.0));
    assert_eq!(
        severity(json!({ "Normalized": 1 }), json!({ "Label": "HIGH", "Original": "8.5" }), "guardduty"),
        Some(8.5)
    );
    assert_eq!(severity(json!({ "Normalized": 1 }), json!({ "Label": "High" }), "macie"), Some(7.0));
    for (label, number) in [("INFORMATIONAL", 0.0), ("LOW", 1.0), ("MEDIUM", 4.0), ("HIGH", 7.0), ("CRITICAL", 9.0)] {
        assert_eq!(severity(json!({ "Label": label }), json!(null), "macie"), Some(number));
    }
    assert_eq!(severity(json!({ "Label": "NEW", "Normalized": 101 }), json!({}), "macie"), None);
}

#[test]
fn another_product_cannot_call_itself_guardduty() {
    let finding = with(asff_on_instance(), "/ProductArn", json!("arn:aws:securityhub:eu-west-1:1:product/1/default"));
    let finding = with(finding, "/Title", json!("[SAMPLE] by name"));
    let finding = only(security_hub(json!([finding])));
    assert!(!finding.sample && finding.product == "arn:aws:securityhub:eu-west-1:1:product/1/default");
}

#[test]
fn without_an_arn_the_products_name_counts() {
    let finding = with(asff_on_instance(), "/ProductArn", json!(null));
    assert_eq!(only(security_hub(json!([finding.clone()]))).product, "GuardDuty");
    assert_eq!(only(security_hub(json!([with(finding, "/ProductName", json!("Inspector"))]))).product, "Inspector");
}

#[test]
fn guardduty_marks_samples_in_several_places() {
    let sample = |pointer: &str, value: Value| only(guardduty(with(on_instance(), pointer, value))).sample;
    for flag in [json!(true), json!("true"), json!("True"), json!(1), json!("1")] {
        assert!(sample("/service/additionalInfo/sample", flag.clone()), "{flag}");
    }
    for text in
        [r#"{"sample":true}"#, " { \"sample\" :\n true , \"x\": 1 } ", r#"{"sample":"true"}"#, r#"{"Sample":1}"#]
    {
        assert!(sample("/service/additionalInfo/value", json!(text)), "{text}");
    }
    assert!(sample("/service/additionalInfo/value", json!({ "sample": true })));
    assert!(sample("/service/additionalInfo", json!(r#"{"sample":true}"#)));
    assert!(sample("/title", json!("[SAMPLE] C&C activity")));
    assert!(sample("/resource/instanceDetails/instanceId", json!("i-99999999")));
    for flag in [json!(false), json!("false"), json!(0), json!(null), json!({}), json!("yes")] {
        assert!(!sample("/service/additionalInfo/sample", flag.clone()), "{flag}");
    }
}

#[test]
fn names_that_an_intruder_chooses_do_not_make_a_finding_a_sample() {
    let quoted = r#"{"userAgent":"\"sample\":true","unusual":{"sample":true}}"#;
    let mut detail = with(on_instance(), "/service/additionalInfo/value", json!(quoted));
    detail["title"] = json!("The instance named [SAMPLE] is up to something");
    detail["description"] = json!("[SAMPLE] i-99999999");
    detail["sample"] = json!(true);
    detail["resource"]["sample"] = json!(true);
    detail["resource"]["instanceDetails"]["tags"] =
        json!([{ "key": "sample", "value": "true" }, { "key": "Name", "value": "[SAMPLE]" }]);
    detail["resource"]["instanceDetails"]["sample"] = json!(true);
    assert!(!only(guardduty(detail)).sample);
}

#[test]
fn a_sample_instance_among_real_ones_hides_nothing() {
    let both =
        json!([{ "uid": "i-99999999", "resourceType": "EC2_INSTANCE" }, { "uid": ID, "resourceType": "EC2_INSTANCE" }]);
    assert!(!only(sequence_of(both)).sample);
    assert!(only(sequence_of(json!([{ "uid": "i-99999999", "resourceType": "EC2_INSTANCE" }]))).sample);
    assert!(only(with(attack_sequence(), "/detail/service/additionalInfo/value", json!("{\"sample\":true}"))).sample);
}

#[test]
fn security_hub_marks_samples_in_several_places() {
    let sample =
        |pointer: &str, value: Value| only(security_hub(json!([with(asff_on_instance(), pointer, value)]))).sample;
    assert!(sample("/Sample", json!(true)) && sample("/Sample", json!("true")) && !sample("/Sample", json!(false)));
    assert!(sample("/ProductFields", json!({ "aws/guardduty/service/additionalInfo/sample": "true" })));
    let value = json!({ "aws/guardduty/service/additionalInfo/value": "{ \"sample\" : true }" });
    assert!(sample("/ProductFields", value));
    assert!(sample("/Title", json!("[SAMPLE] C&C activity")));
    assert!(sample(
        "/Resources",
        json!([{ "Type": "AwsEc2Instance", "Id": "arn:aws:ec2:eu-west-1:1:instance/i-99999999" }])
    ));
    assert!(!sample(
        "/UserDefinedFields",
        json!({ "sample": "true", "aws/guardduty/service/additionalInfo/sample": "true" })
    ));
    assert!(!sample("/ProductFields", json!({ "sample": "true" })));
}

#[test]
fn archived_suppressed_and_resolved_findings_are_archived() {
    let guardduty_says = |flag: Value| only(guardduty(with(on_instance(), "/service/archived", flag))).archived;
    assert!(guardduty_says(json!(true)) && guardduty_says(json!("true")) && !guardduty_says(json!("false")));
    let hub_says =
        |pointer: &str, value: Value| only(security_hub(json!([with(asff_on_instance(), pointer, value)]))).archived;
    assert!(hub_says("/RecordState", json!("ARCHIVED")) && !hub_says("/RecordState", json!("ACTIVE")));
    for (status, archived) in [("SUPPRESSED", true), ("RESOLVED", true), ("NEW", false), ("NOTIFIED", false)] {
        assert_eq!(hub_says("/Workflow", json!({ "Status": status })), archived, "{status}");
    }
    for (flag, archived) in [("true", true), ("false", false)] {
        assert_eq!(hub_says("/ProductFields", json!({ "aws/guardduty/service/archived": flag })), archived);
    }
}

#[test]
fn numbers_may_be_texts_and_texts_may_be_numbers() {
    let detail = with(with(on_instance(), "/severity", json!("8.0")), "/accountId", json!(10_101_010_111_u64));
    let finding = only(guardduty(detail));
    assert_eq!((finding.severity, finding.instances[0].account_id.as_str()), (Some(8.0), "010101010111"));
    for severity in [json!("NaN"), json!("high"), json!(11), json!(-1), json!(null), json!([])] {
        assert_eq!(only(guardduty(with(on_instance(), "/severity", severity))).severity, None);
    }
    let exact = only(guardduty(with(on_instance(), "/accountId", json!(123_456_789_012_u64))));
    assert_eq!(exact.instances[0].account_id, "123456789012");
}

#[test]
fn fields_may_begin_with_a_capital_as_the_cli_prints_them() {
    let event = guardduty(json!({
        "AccountId": "111122223333", "Region": "eu-west-1", "Arn": ARN, "Severity": 8, "Title": "t", "Type": "x",
        "Resource": { "ResourceType": "Instance", "InstanceDetails": { "InstanceId": ID } },
        "Service": { "Archived": true, "AdditionalInfo": { "Value": "{\"sample\":true}" } },
    }));
    let finding = only(event);
    assert_eq!(places(&finding), [("111122223333", "eu-west-1", ID)]);
    assert_eq!(finding.instances[0].field, "detail.Resource.InstanceDetails.InstanceId");
    assert!(finding.archived && finding.sample && finding.id == ARN);
    let lower = json!({ "resources": [{ "type": "AwsEc2Instance", "id": ID }], "awsAccountId": "1", "region": "r-1" });
    assert_eq!(places(&only(security_hub(json!([lower])))), [("1", "r-1", ID)]);
}

#[test]
fn a_null_in_one_spelling_does_not_hide_the_other() {
    let detail = with(on_instance(), "/resource/InstanceDetails", json!(null));
    assert_eq!(only(guardduty(detail)).instances.len(), 1);
    let detail = finding_on(json!({ "instanceDetails": null, "InstanceDetails": { "instanceId": ID } }));
    assert_eq!(only(guardduty(detail)).instances.len(), 1);
}

#[test]
fn a_detail_that_is_json_text_is_read_like_any_other() {
    for event in [guardduty(on_instance()), attack_sequence(), asff_event(), recorded("ec2")] {
        let as_text = with(event.clone(), "/detail", json!(event["detail"].to_string()));
        assert_eq!(read(&as_text), read(&event));
    }
}

#[test]
fn ids_are_trimmed_and_malformed_ones_are_passed_on() {
    let named = |id: Value| only(guardduty(with(on_instance(), "/resource/instanceDetails/instanceId", id))).instances;
    assert_eq!(named(json!(format!(" {ID}\n")))[0].instance_id, ID);
    assert_eq!(named(json!("GeneratedFindingInstanceId"))[0].instance_id, "GeneratedFindingInstanceId");
    assert_eq!(named(json!(7))[0].instance_id, "7");
}

#[test]
fn hostile_texts_are_cut_and_cannot_break_or_reorder_a_line() {
    let mut detail = with(on_instance(), "/title", json!(format!("a\nb\u{202e}c\u{1b}[31m{}", "x".repeat(10_000))));
    detail["type"] = json!("y".repeat(256));
    let finding = only(guardduty(detail));
    assert!(finding.title.starts_with("a\u{fffd}b\u{fffd}c\u{fffd}[31m") && finding.title.ends_with('…'));
    assert_eq!((finding.title.chars().count(), finding.finding_type.chars().count()), (256, 256));
    let resources: Vec<Value> = (0..1000).map(|n| json!({ "Type": format!("Type{n}") })).collect();
    assert!(only(security_hub(json!([asff(json!(resources))]))).about.chars().count() <= 256);
}

#[test]
fn a_finding_with_hardly_any_field_is_still_a_finding() {
    let finding = only(guardduty(json!({})));
    assert_eq!((finding.id.as_str(), finding.severity, finding.instances.len()), ("", None, 0));
    assert_eq!(only(security_hub(json!([{}]))).instances.len(), 0);
    let by_id = only(guardduty(json!({ "id": "f" })));
    assert_eq!(by_id.id, "f");
}

#[test]
fn an_event_from_an_unknown_sender_is_refused() {
    refused(json!({ "source": "aws.ec2", "detail": {} }), "source: \"aws.ec2\"", "aws.guardduty");
    refused(json!({ "detail-type": "x", "detail": {} }), "source: missing", "aws.securityhub");
    for event in [json!(null), json!([]), json!("x"), json!({})] {
        refused(event, "source: missing", "aws.guardduty");
    }
    refused(json!({ "source": "x\n".repeat(10_000), "detail": {} }), "source", "aws.guardduty");
}

#[test]
fn an_event_that_only_looks_like_guarddutys_is_refused() {
    let event = with(guardduty(on_instance()), "/source", json!("com.intruder"));
    refused(event, "source: \"com.intruder\"", "aws.guardduty");
    let event = with(asff_event(), "/source", json!("com.intruder"));
    refused(event, "source: \"com.intruder\"", "aws.securityhub");
}

#[test]
fn either_the_source_or_the_type_of_event_may_be_missing() {
    for (event, source) in [(guardduty(on_instance()), Source::GuardDuty), (asff_event(), Source::SecurityHub)] {
        for field in ["/source", "/detail-type"] {
            assert_eq!(read(&with(event.clone(), field, json!(null))).expect("readable").source, source);
        }
    }
    let event = with(guardduty(on_instance()), "/detail-type", json!("GuardDuty Finding (v3)"));
    assert_eq!(only(event).instances.len(), 1);
}

#[test]
fn other_events_of_both_services_are_refused_by_their_type() {
    let event = guardduty(json!({ "resourceDetails": { "instanceArn": ID }, "scanId": "s" }));
    let event = with(event, "/detail-type", json!("GuardDuty Malware Protection Object Scan Result"));
    refused(event, "detail-type: \"GuardDuty Malware", "GuardDuty Finding");
    for kind in ["Security Hub Insight Results", "Findings Imported V2", "Security Hub Findings - Imported V2"] {
        refused(with(asff_event(), "/detail-type", json!(kind)), &format!("detail-type: {kind:?}"), "Custom Action");
    }
}

#[test]
fn an_event_without_a_finding_is_refused() {
    for detail in [json!(null), json!("not json"), json!(7), json!([]), json!([null])] {
        refused(guardduty(detail.clone()), "detail", "an object");
        refused(with(asff_event(), "/detail", detail), "detail", "an object");
    }
    for findings in [json!(null), json!([]), json!([null, "x"]), json!("x")] {
        refused(security_hub(findings), "detail.findings", "at least one finding");
    }
}

#[test]
fn a_responders_input_is_not_an_event() {
    for typed in
        [json!({ "InstanceIds": [ID], "Region": "eu-west-1" }), json!({ "source": "x" }), json!([]), json!(null)]
    {
        assert!(!is_event(&typed), "{typed}");
    }
    for event in
        [json!({ "source": "x", "detail": {} }), json!({ "detail-type": "x" }), attack_sequence(), asff_event()]
    {
        assert!(is_event(&event), "{event}");
    }
}

#[test]
fn an_alert_travels_with_names_in_pascal_case() {
    let alert = serde_json::to_value(read(&guardduty(on_instance())).expect("readable")).expect("JSON");
    assert_eq!(
        (&alert["Source"], &alert["Findings"][0]["FindingType"]),
        (&json!("GuardDuty"), &json!("Backdoor:EC2/C&CActivity.B!DNS"))
    );
    assert_eq!(
        alert["Findings"][0]["Instances"][0],
        json!({
            "AccountId": "111122223333", "Region": "eu-west-1", "InstanceId": ID,
            "Field": "detail.resource.instanceDetails.instanceId",
        })
    );
}
