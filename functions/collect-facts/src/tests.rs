use super::*;
use aws_sdk_cloudtrail::Client as CloudTrail;
use aws_sdk_cloudtrail::operation::lookup_events::LookupEventsOutput;
use aws_sdk_cloudtrail::types::{Event as Raw, LookupAttributeKey};
use aws_sdk_ec2::Client as Ec2;
use aws_sdk_ec2::error::ErrorMetadata;
use aws_sdk_ec2::operation::describe_images::{DescribeImagesError, DescribeImagesOutput};
use aws_sdk_ec2::operation::describe_instances::DescribeInstancesOutput;
use aws_sdk_ec2::operation::get_console_output::GetConsoleOutputOutput;
use aws_sdk_ec2::operation::get_console_screenshot::{GetConsoleScreenshotError, GetConsoleScreenshotOutput};
use aws_sdk_ec2::types::{
    Image, InstanceNetworkInterface, InstanceNetworkInterfaceAttachment as Attachment, Reservation,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

const NOW: i64 = 1_795_000_000;
const LAUNCHED: i64 = NOW - 30 * 24 * 3600;

fn target() -> Target {
    Target::example()
}

fn instance(launched: i64) -> Rule {
    mock!(Ec2::describe_instances).then_output(move || {
        let attachment = Attachment::builder().device_index(0).attach_time(DateTime::from_secs(launched)).build();
        let interface = InstanceNetworkInterface::builder().attachment(attachment).build();
        let restarted = DateTime::from_secs(NOW - 60);
        let instance = Instance::builder().image_id("ami-1").launch_time(restarted).network_interfaces(interface);
        let reservation = Reservation::builder().instances(instance.build()).build();
        DescribeInstancesOutput::builder().reservations(reservation).build()
    })
}

fn image() -> Rule {
    mock!(Ec2::describe_images).then_output(|| {
        let image = Image::builder().image_id("ami-1").owner_id("999999999999").public(false).build();
        DescribeImagesOutput::builder().images(image).build()
    })
}

fn output() -> Rule {
    mock!(Ec2::get_console_output).then_output(|| GetConsoleOutputOutput::builder().output("Ym9vdGVk").build())
}

fn screenshot() -> Rule {
    mock!(Ec2::get_console_screenshot)
        .then_output(|| GetConsoleScreenshotOutput::builder().image_data("/9j/4AAQ").build())
}

fn no_events() -> Rule {
    mock!(CloudTrail::lookup_events).then_output(|| LookupEventsOutput::builder().build())
}

fn event(name: &str, at: i64, by: &str) -> Raw {
    let record = json!({ "userIdentity": { "arn": by }, "sourceIPAddress": "198.51.100.7" }).to_string();
    Raw::builder().event_name(name).event_time(DateTime::from_secs(at)).cloud_trail_event(record).build()
}

fn asked_by(rule_key: LookupAttributeKey, from: i64, events: &'static [(&'static str, i64)]) -> Rule {
    mock!(CloudTrail::lookup_events)
        .match_requests(move |r| {
            r.lookup_attributes()[0].attribute_key() == &rule_key && r.start_time().map(DateTime::secs) == Some(from)
        })
        .then_output(move || {
            let events = events.iter().map(|(name, at)| event(name, *at, "arn:aws:iam::123456789012:user/eve"));
            LookupEventsOutput::builder().set_events(Some(events.collect())).build()
        })
}

fn clients(ec2: &[&Rule], here: &[&Rule], global: Option<&Rule>) -> Clients {
    Clients {
        ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, ec2),
        here: mock_client!(aws_sdk_cloudtrail, RuleMode::MatchAny, here),
        global: global.map(|rule| (mock_client!(aws_sdk_cloudtrail, RuleMode::MatchAny, [rule]), "us-east-1")),
    }
}

#[tokio::test(start_paused = true)]
async fn the_facts_name_image_console_launch_and_what_the_credentials_did_in_both_regions() {
    let begin = NOW - 24 * 3600;
    let credentials = asked_by(LookupAttributeKey::Username, begin, &[("AssumeRole", NOW - 10)]);
    let about = asked_by(LookupAttributeKey::ResourceName, begin, &[("ModifyInstanceAttribute", NOW - 20)]);
    let launch = asked_by(LookupAttributeKey::ResourceName, LAUNCHED - 600, &[("RunInstances", LAUNCHED + 1)]);
    let global = asked_by(LookupAttributeKey::Username, begin, &[("CreateAccessKey", NOW - 5)]);
    let (instance, image, output, screenshot) = (instance(LAUNCHED), image(), output(), screenshot());
    let ec2 = [&instance, &image, &output, &screenshot];
    let clients = clients(&ec2, &[&credentials, &about, &launch], Some(&global));
    let collected = collect(&clients, &target(), 24, NOW).await;

    let facts = &collected.facts;
    assert_eq!(facts["Image"]["Origin"], "Shared");
    assert_eq!((&facts["ConsoleOutput"]["Bytes"], &facts["ConsoleScreenshot"]["Bytes"]), (&json!(6), &json!(6)));
    let trail = &facts["CloudTrail"];
    assert_eq!(trail["Launch"]["By"], "arn:aws:iam::123456789012:user/eve");
    assert_eq!(trail["Regions"], json!(["eu-west-1", "us-east-1"]));
    assert_eq!(trail["Credentials"]["OtherSessions"]["Newest"][0]["Call"], "AssumeRole");
    assert_eq!(trail["Credentials"]["Persistence"]["Newest"][0]["Region"], "us-east-1");
    assert_eq!(trail["Instance"]["Changes"]["Newest"][0]["Call"], "ModifyInstanceAttribute");
    assert!(trail["Notes"].to_string().contains("15 minutes") && trail["Notes"].to_string().contains("other Regions"));
    let kinds: Vec<_> = collected.objects.iter().map(|o| format!("{}.{}", o.kind.name, o.kind.ending)).collect();
    assert_eq!(kinds, ["console-output.txt", "console-screenshot.jpg"]);
    let outcome = outcome(collected.missed, collected.in_words, "stored".to_owned());
    assert_eq!(outcome.status, Status::Done);
    let reason = outcome.reason.expect("a reason");
    for part in ["shared with this account by account 999999999999", "user/eve from 198.51.100.7", "made 2 calls, 1 of"]
    {
        assert!(reason.contains(part), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_is_named_and_takes_nothing_else_with_it() {
    let denied = mock!(Ec2::describe_images)
        .then_error(|| DescribeImagesError::generic(ErrorMetadata::builder().code("UnauthorizedOperation").build()));
    let no_picture = mock!(Ec2::get_console_screenshot).then_error(|| {
        GetConsoleScreenshotError::generic(ErrorMetadata::builder().code("UnsupportedOperation").build())
    });
    let (instance, output, none) = (instance(LAUNCHED), output(), no_events());
    let clients = clients(&[&instance, &denied, &output, &no_picture], &[&none], Some(&none));
    let collected = collect(&clients, &target(), 24, NOW).await;
    assert_eq!(collected.missed.len(), 1, "{:?}", collected.missed);
    assert!(collected.missed[0].starts_with("ec2:DescribeImages on ami-1"));
    assert!(collected.facts["ConsoleScreenshot"]["None"].as_str().expect("words").contains("UnsupportedOperation"));
    assert_eq!(collected.facts["ConsoleOutput"]["Bytes"], 6);
    let outcome = outcome(collected.missed, collected.in_words, "stored as s3://b/k".to_owned());
    let reason = outcome.reason.expect("a reason");
    assert_eq!(outcome.status, Status::Failed);
    assert!(reason.contains("could not be read: ec2:DescribeImages") && reason.contains("stored as s3://b/k"));
}

#[tokio::test(start_paused = true)]
async fn a_launch_before_cloudtrails_history_is_not_asked_for_and_said_so() {
    let (instance, image, output, screenshot, none) =
        (instance(NOW - 91 * 24 * 3600), image(), output(), screenshot(), no_events());
    let clients = clients(&[&instance, &image, &output, &screenshot], &[&none], None);
    let collected = collect(&clients, &target(), 24, NOW).await;
    assert_eq!(none.num_calls(), 2, "credentials and instance");
    assert!(collected.facts["CloudTrail"]["Notes"].to_string().contains("before the 90 days"));
    assert_eq!(collected.facts["CloudTrail"]["Launch"], Value::Null);
    assert!(collected.missed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_launch_within_the_hours_needs_no_question_of_its_own() {
    let launched = asked_by(LookupAttributeKey::ResourceName, NOW - 24 * 3600, &[("RunInstances", NOW - 3600)]);
    let nothing = asked_by(LookupAttributeKey::Username, NOW - 24 * 3600, &[]);
    let (instance, image, output, screenshot) = (instance(NOW - 3600), image(), output(), screenshot());
    let clients = clients(&[&instance, &image, &output, &screenshot], &[&launched, &nothing], None);
    let collected = collect(&clients, &target(), 24, NOW).await;
    assert_eq!((launched.num_calls(), nothing.num_calls()), (1, 1));
    assert_eq!(collected.facts["CloudTrail"]["Launch"]["Call"], "RunInstances");
}

#[test]
fn the_first_launch_is_when_the_first_interface_was_attached_and_not_the_last_start() {
    let attachment = |index, at| Attachment::builder().device_index(index).attach_time(DateTime::from_secs(at)).build();
    let interface = |index, at| InstanceNetworkInterface::builder().attachment(attachment(index, at)).build();
    let instance = Instance::builder().launch_time(DateTime::from_secs(300));
    let both = instance.clone().network_interfaces(interface(1, 200)).network_interfaces(interface(0, 100));
    assert_eq!(launched(Some(&both.build())), Some(100));
    assert_eq!(launched(Some(&instance.build())), Some(300));
    assert_eq!(launched(None), None);
}

#[test]
fn hours_are_one_to_a_week_and_anything_else_is_a_mistake_that_is_named() {
    assert_eq!((hours(None).expect("24"), hours(Some("168".into())).expect("a week")), (24, 168));
    for bad in ["0", "169", "-1", "a day"] {
        assert!(hours(Some(bad.into())).expect_err("refused").to_string().contains("CLOUDTRAIL_HOURS"), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_not_waited_for_and_is_named() {
    let never = within::<()>("ec2:DescribeImages", &Target::example(), std::future::pending()).await;
    let text = never.expect_err("no answer").to_string();
    assert!(text.starts_with("ec2:DescribeImages on i-0123456789abcdef0: no answer: not within 20 seconds"), "{text}");
}
