use super::*;
use crate::part::comment;
use crate::record::{ASKED, Asked, COMMAND, json};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_ssm::operation::cancel_command::CancelCommandOutput;
use aws_sdk_ssm::operation::describe_instance_information::DescribeInstanceInformationOutput;
use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::operation::list_commands::ListCommandsOutput;
use aws_sdk_ssm::operation::send_command::SendCommandOutput;
use aws_sdk_ssm::types::{Command, InstanceInformation, PingStatus, PlatformType};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use containment::{Capture, Journaled, Key, MemoryJournal};
use serde_json::json;

const BEGAN: i64 = 1_800_000_000;

fn target(memory: bool) -> Target {
    let capture = Capture { mode: CaptureMode::CaptureFirst, memory };
    Target { capture: Some(capture), ..Target::example() }
}

fn given() -> Settings {
    Settings {
        deadline: 900,
        home: "eu-west-1".into(),
        linux: "cordon-capture-linux".into(),
        windows: "cordon-capture-windows".into(),
        tool: None,
    }
}

fn asked(command: Option<&str>) -> MemoryJournal {
    let what = Asked { at: BEGAN, within: 900, by: "1".into(), platform: Platform::Linux, upload: None, parts: None };
    let mut kept: First = [(Key::new("triage", ASKED), json(&what).expect("JSON"))].into();
    kept.extend(command.map(|id| (Key::new("triage", COMMAND), json!(id))));
    MemoryJournal::of(NAME, kept)
}

/// An interface of the instance is in the group of this name.
fn on(group: &'static str) -> aws_sdk_ec2::Client {
    use aws_sdk_ec2::operation::describe_network_interfaces::DescribeNetworkInterfacesOutput;
    use aws_sdk_ec2::types::{GroupIdentifier, NetworkInterface};
    let shown = mock!(aws_sdk_ec2::Client::describe_network_interfaces).then_output(move || {
        let group = GroupIdentifier::builder().group_name(group).build();
        let interface = NetworkInterface::builder().groups(group).build();
        DescribeNetworkInterfacesOutput::builder().network_interfaces(interface).build()
    });
    mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&shown])
}

async fn outcome(
    ssm: &[&Rule],
    s3: &[&Rule],
    journal: &MemoryJournal,
    target: &Target,
    seconds: i64,
) -> Result<Outcome> {
    outcome_on("cordon-capture", ssm, s3, journal, target, seconds).await
}

async fn outcome_on(
    group: &'static str,
    ssm: &[&Rule],
    s3: &[&Rule],
    journal: &MemoryJournal,
    target: &Target,
    seconds: i64,
) -> Result<Outcome> {
    let settings = given();
    let step = CaptureVolatile {
        commands: Commands::faked(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, ssm)),
        ec2: on(group),
        objects: match s3 {
            [] => Objects::signing(),
            rules => Objects::faked(mock_client!(aws_sdk_s3, RuleMode::MatchAny, rules)),
        },
        journal,
        settings: &settings,
        now: BEGAN + seconds,
    };
    step.run(target).await
}

fn online() -> Rule {
    mock!(aws_sdk_ssm::Client::describe_instance_information).then_output(|| {
        let host = InstanceInformation::builder().instance_id("i-0123456789abcdef0").ping_status(PingStatus::Online);
        let host = host.platform_type(PlatformType::Linux).build();
        DescribeInstanceInformationOutput::builder().instance_information_list(host).build()
    })
}

fn sent() -> Rule {
    mock!(aws_sdk_ssm::Client::send_command)
        .match_requests(|r| {
            let value = |name: &str| r.parameters().expect("parameters")[name][0].clone();
            r.document_name() == Some("cordon-capture-linux")
                && r.instance_ids() == ["i-0123456789abcdef0"]
                && r.comment() == Some("Cordon triage c-1")
                && value("Part") == "triage"
                && value("TriageUrl").contains("/cases/123456789012/eu-west-1/c-1/capture/triage.tar.gz?")
        })
        .then_output(|| SendCommandOutput::builder().command(Command::builder().command_id("cmd-1").build()).build())
}

fn listed(commands: &'static [&'static str]) -> Rule {
    mock!(aws_sdk_ssm::Client::list_commands).then_output(move || {
        let all = commands.iter().map(|id| Command::builder().command_id(*id).comment("Cordon triage c-1").build());
        ListCommandsOutput::builder().set_commands(Some(all.collect())).build()
    })
}

fn stands(details: &'static str, output: &'static str) -> Rule {
    mock!(aws_sdk_ssm::Client::get_command_invocation).match_requests(|r| r.command_id() == Some("cmd-1")).then_output(
        move || GetCommandInvocationOutput::builder().status_details(details).standard_output_content(output).build(),
    )
}

fn nothing_there() -> Rule {
    mock!(aws_sdk_s3::Client::list_objects_v2).then_output(|| ListObjectsV2Output::builder().build())
}

#[tokio::test]
async fn the_first_call_journals_its_request_and_sends_it() {
    let (journal, online, sent) = (MemoryJournal::default(), online(), sent());
    let outcome = outcome(&[&online, &sent], &[], &journal, &target(false), 0).await.expect("an outcome");
    assert_eq!((outcome.status, sent.num_calls()), (Status::InProgress, 1));
    let kept = journal.read(&target(false), NAME).await.expect("kept").first;
    assert_eq!(kept[&Key::new("triage", COMMAND)], json!("cmd-1"));
    assert_eq!(kept[&Key::new("triage", ASKED)]["At"], json!(BEGAN));
}

#[tokio::test]
async fn a_command_whose_answer_was_lost_is_found_and_no_other_is_sent() {
    let (journal, found, stand, sent) = (asked(None), listed(&["cmd-1"]), stands("InProgress", ""), sent());
    let outcome = outcome(&[&found, &stand, &sent], &[], &journal, &target(false), 5).await.expect("an outcome");
    assert_eq!((outcome.status, sent.num_calls()), (Status::InProgress, 0));
}

#[tokio::test]
async fn an_unlisted_command_is_sent_again_only_once_it_would_be_listed() {
    let (journal, none, sent) = (asked(None), listed(&[]), sent());
    let early = outcome(&[&none, &sent], &[], &journal, &target(false), 5).await.expect("an outcome");
    assert_eq!((early.status, sent.num_calls()), (Status::InProgress, 0));
    let later = outcome(&[&none, &sent], &[], &journal, &target(false), 30).await.expect("an outcome");
    assert_eq!((later.status, sent.num_calls()), (Status::InProgress, 1));
}

#[tokio::test]
async fn a_run_days_after_a_command_that_was_never_sent_begins_again() {
    let (journal, none, online, sent) = (asked(None), listed(&[]), online(), sent());
    let days = 3 * 86_400;
    let outcome = outcome(&[&none, &online, &sent], &[], &journal, &target(false), days).await.expect("an outcome");
    assert_eq!((outcome.status, sent.num_calls()), (Status::InProgress, 1));
    let kept = journal.read(&target(false), NAME).await.expect("kept").first;
    assert_eq!(kept[&Key::new("triage-2", ASKED)]["At"], json!(BEGAN + days));
}

#[tokio::test]
async fn at_the_deadline_the_command_is_cancelled_and_the_end_is_journaled() {
    let (journal, stand, none) = (asked(Some("cmd-1")), stands("In Progress", ""), nothing_there());
    let cancelled = mock!(aws_sdk_ssm::Client::cancel_command)
        .match_requests(|r| r.command_id() == Some("cmd-1") && r.instance_ids() == ["i-0123456789abcdef0"])
        .then_output(|| CancelCommandOutput::builder().build());
    let running = outcome(&[&stand, &cancelled], &[&none], &journal, &target(false), 899).await.expect("an outcome");
    assert_eq!((running.status, cancelled.num_calls()), (Status::InProgress, 0));
    let ended = outcome(&[&stand, &cancelled], &[&none], &journal, &target(true), 900).await.expect("an outcome");
    let reason = ended.reason.expect("a reason");
    assert_eq!((ended.status, cancelled.num_calls()), (Status::Failed, 1));
    for words in ["given up 900 s", "was cancelled", "triage.tar.gz did not arrive", "no memory image was tried"] {
        assert!(reason.contains(words), "{reason}");
    }
    let again = outcome(&[], &[], &journal, &target(true), 5_000).await.expect("from the journal alone");
    assert_eq!(again.reason, Some(reason));
}

#[tokio::test]
async fn success_without_an_object_is_a_failure() {
    let (journal, none) = (asked(Some("cmd-1")), nothing_there());
    let stand = stands("Success", "cordon memory-total 4096\n");
    let outcome = outcome(&[&stand], &[&none], &journal, &target(false), 60).await.expect("an outcome");
    assert_eq!(outcome.status, Status::Failed);
    assert!(outcome.reason.expect("a reason").contains("summary.json did not arrive"));
}

#[tokio::test]
async fn a_host_that_does_not_allow_it_is_unsupported_in_our_own_words() {
    let (journal, none) = (asked(Some("cmd-1")), nothing_there());
    let stand = stands("Failed", "cordon unsupported no-uploader\n");
    let outcome = outcome(&[&stand], &[&none], &journal, &target(false), 60).await.expect("an outcome");
    assert_eq!(outcome.status, Status::Unsupported);
    assert!(outcome.reason.expect("a reason").starts_with("the host has neither curl"));
}

#[tokio::test]
async fn an_isolated_host_in_another_region_than_the_bucket_is_unsupported_at_once() {
    let mut target = target(false);
    target.capture = Some(Capture { mode: CaptureMode::IsolateFirst, memory: false });
    target.region = "us-east-1".into();
    let closed = outcome(&[], &[], &MemoryJournal::default(), &target, 0).await.expect("an outcome");
    assert!(closed.reason.expect("a reason").contains("no window"));
    target.capture_window = true;
    let far = outcome(&[], &[], &MemoryJournal::default(), &target, 0).await.expect("an outcome");
    assert_eq!(far.status, Status::Unsupported);
    assert!(far.reason.expect("a reason").contains("no VPC endpoint leads to another Region"));
}

#[tokio::test]
async fn a_host_that_was_isolated_without_a_window_is_sent_nothing() {
    let mut target = target(false);
    target.capture = Some(Capture { mode: CaptureMode::IsolateFirst, memory: false });
    target.capture_window = true;
    let closed =
        outcome_on("cordon-isolation", &[], &[], &MemoryJournal::default(), &target, 0).await.expect("an outcome");
    assert_eq!(closed.status, Status::Unsupported);
    assert!(closed.reason.expect("a reason").contains("isolate-network says what is missing"));
}

#[tokio::test]
async fn a_dry_run_only_reads() {
    let (journal, online) = (MemoryJournal::default(), online());
    let target = Target { dry_run: true, ..target(true) };
    let outcome = outcome(&[&online], &[], &journal, &target, 0).await.expect("an outcome");
    assert_eq!(outcome.status, Status::Planned);
    assert_eq!(journal.read(&target, NAME).await.expect("read"), Journaled::default());
}

#[test]
fn the_comment_fits_systems_manager_and_keeps_the_part_whatever_the_case_is_called() {
    let target = Target { case_id: "c".repeat(300), ..Target::example() };
    let triage = Ended::unsupported("");
    let (one, other) = (comment(&target, Part::Triage), comment(&target, Part::Memory(&triage)));
    assert!(one.len() == 100 && other.len() == 100 && one != other);
}
