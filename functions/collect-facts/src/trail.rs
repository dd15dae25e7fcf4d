//! Asks CloudTrail's event history: who launched the instance, who changed it, and what its credentials did.
//!
//! `LookupEvents` answers two requests a second for an account and Region, and has the management events of the last 90
//! days (<https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html>): the requests to one
//! Region go one after the other, at that pace, each for a number of pages, and all until a common deadline.

use std::time::Duration;

use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::primitives::DateTime;
use aws_sdk_cloudtrail::types::{LookupAttribute, LookupAttributeKey};
use containment::{Error, Target};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::events::Event;

/// Two requests a second, and a little less, counted from the answer: a request that the SDK has sent again after it was
/// throttled is counted at its last try. Other containments may be asking the same account.
const PACE: Duration = Duration::from_millis(510);

/// The launch comes last, and is worth some extra seconds.
const FOR_LAUNCH: Duration = Duration::from_secs(5);

/// A page has 50 events, 1,000 events are more than a person reads, and the newest come first.
const PAGES_OF_CREDENTIALS: usize = 20;
const PAGES_OF_INSTANCE: usize = 6;
const PAGES_OF_LAUNCH: usize = 2;

/// An event can have some hundred kilobytes, and the caller chooses what is in it.
const BYTES_AT_MOST: usize = 8 << 20;

/// CloudTrail's event history ends here.
pub(crate) const HISTORY_SECONDS: i64 = 90 * 24 * 3600;

/// How far from the launch that EC2 shows its event may be.
const AROUND_LAUNCH_SECONDS: i64 = 600;

/// What came of one question.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Newest first.
    pub events: Vec<Event>,
    /// Why the list is not the whole, if so.
    pub cut: Option<String>,
    /// Why there is no answer, or not all of it, if so.
    pub failed: Option<String>,
}

impl Answer {
    /// Whether nothing is missing from the list.
    pub(crate) fn is_whole(&self) -> bool {
        self.cut.is_none() && self.failed.is_none()
    }

    /// A list that is cut by its time is as good as one that is cut by its length. One that never began is common where
    /// many instances of an account are contained at once: the SDK's retries take the time.
    fn out_of_time(&mut self, what: &str) {
        self.cut = Some(format!("cloudtrail:LookupEvents on {what}: not read, no answer in time"));
    }
}

/// The span that is read, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub from: i64,
    pub to: i64,
}

/// One Region's event history.
pub(crate) struct Trail {
    client: Client,
    region: String,
    deadline: Instant,
    next: Instant,
    denied: bool,
}

impl Trail {
    pub(crate) fn new(client: Client, region: &str, deadline: Instant) -> Self {
        Trail { client, region: region.to_owned(), deadline, next: Instant::now(), denied: false }
    }

    /// Events that name the instance as a resource.
    pub(crate) async fn of_instance(&mut self, target: &Target, span: Span) -> Answer {
        self.ask(LookupAttributeKey::ResourceName, &target.instance_id, span, PAGES_OF_INSTANCE).await
    }

    /// Events by sessions whose name is the instance's id, as those of its role are.
    pub(crate) async fn of_credentials(&mut self, target: &Target, span: Span) -> Answer {
        self.ask(LookupAttributeKey::Username, &target.instance_id, span, PAGES_OF_CREDENTIALS).await
    }

    /// Events that name the instance as a resource, around its launch.
    pub(crate) async fn of_launch(&mut self, target: &Target, launched: i64) -> Answer {
        self.deadline += FOR_LAUNCH;
        let span = Span { from: launched - AROUND_LAUNCH_SECONDS, to: launched + AROUND_LAUNCH_SECONDS };
        self.ask(LookupAttributeKey::ResourceName, &target.instance_id, span, PAGES_OF_LAUNCH).await
    }

    async fn ask(&mut self, key: LookupAttributeKey, value: &str, span: Span, pages: usize) -> Answer {
        let mut answer = Answer::default();
        if self.denied {
            return answer;
        }
        let attribute = LookupAttribute::builder().attribute_key(key.clone()).attribute_value(value).build();
        let what = format!("events by {} {value} in {}", key.as_str(), self.region);
        let (Ok(attribute), mut token, mut bytes) = (attribute, None, 0) else { return answer };
        for _ in 0..pages {
            let call = self
                .client
                .lookup_events()
                .lookup_attributes(attribute.clone())
                .start_time(DateTime::from_secs(span.from))
                .end_time(DateTime::from_secs(span.to))
                .set_next_token(token.take());
            let sent = timeout_at(self.deadline, async {
                sleep_until(self.next).await;
                call.send().await.map_err(Error::aws("cloudtrail:LookupEvents", &what))
            });
            let sent = sent.await;
            self.next = Instant::now() + PACE;
            let reply = match sent {
                Ok(Ok(reply)) => reply,
                // After the SDK's own tries. Many instances of one account at a time share what CloudTrail allows: none of
                // them is contained the less for it, and what was not read is said among the facts.
                Ok(Err(error)) if error.name() == "Throttled" => {
                    answer.cut = Some(format!(
                        "{what}: not read; CloudTrail takes two questions a second, and others asked: {error}"
                    ));
                    break;
                }
                Ok(Err(error)) => {
                    self.denied = error.name() == "AccessDenied";
                    answer.failed = Some(error.to_string());
                    break;
                }
                Err(_) => {
                    answer.out_of_time(&what);
                    break;
                }
            };
            bytes += reply.events().iter().filter_map(|e| e.cloud_trail_event()).map(str::len).sum::<usize>();
            answer.events.extend(reply.events().iter().map(|event| Event::read(event, &self.region)));
            token = reply.next_token;
            if token.is_none() || bytes > BYTES_AT_MOST {
                break;
            }
        }
        let unfinished = answer.cut.is_some() || answer.failed.is_some();
        if token.is_some() || (unfinished && !answer.events.is_empty()) {
            let so_many = answer.events.len();
            answer.cut = Some(format!("{what}: only the {so_many} newest were read, there are more"));
        }
        answer
    }
}

/// Where the calls of services without Regions are recorded: IAM's, which make users, keys and policies, among them.
/// <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-concepts.html>
pub(crate) fn region_of_global_services(target: &Target) -> &'static str {
    match target.partition() {
        "aws-cn" => "cn-north-1",
        "aws-us-gov" => "us-gov-west-1",
        _ => "us-east-1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_cloudtrail::error::ErrorMetadata;
    use aws_sdk_cloudtrail::operation::lookup_events::{LookupEventsError, LookupEventsOutput};
    use aws_sdk_cloudtrail::types::Event as Raw;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};

    const SPAN: Span = Span { from: 1_000_000, to: 1_086_400 };

    fn page(name: &'static str, next: Option<&'static str>) -> LookupEventsOutput {
        LookupEventsOutput::builder()
            .events(Raw::builder().event_name(name).build())
            .set_next_token(next.map(ToOwned::to_owned))
            .build()
    }

    fn trail(rules: &[&Rule], seconds: u64) -> Trail {
        let client = mock_client!(aws_sdk_cloudtrail, RuleMode::MatchAny, rules);
        Trail::new(client, "eu-west-1", Instant::now() + Duration::from_secs(seconds))
    }

    fn refused(code: &'static str) -> Rule {
        mock!(Client::lookup_events)
            .then_error(move || LookupEventsError::generic(ErrorMetadata::builder().code(code).build()))
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_asked_for_one_after_the_other_and_no_faster_than_two_a_second() {
        let first = mock!(Client::lookup_events)
            .match_requests(|r| {
                let by = &r.lookup_attributes()[0];
                r.next_token().is_none()
                    && (by.attribute_key(), by.attribute_value())
                        == (&LookupAttributeKey::Username, "i-0123456789abcdef0")
                    && r.start_time().map(|t| t.secs()) == Some(1_000_000)
                    && r.end_time().map(|t| t.secs()) == Some(1_086_400)
            })
            .then_output(|| page("GetCallerIdentity", Some("2")));
        let second = mock!(Client::lookup_events)
            .match_requests(|r| r.next_token() == Some("2"))
            .then_output(|| page("ListBuckets", None));
        let (mut trail, began) = (trail(&[&first, &second], 30), Instant::now());
        let answer = trail.of_credentials(&Target::example(), SPAN).await;
        assert_eq!(
            answer.events.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
            ["GetCallerIdentity", "ListBuckets"]
        );
        assert!(answer.cut.is_none() && answer.failed.is_none());
        assert!(began.elapsed() >= PACE);
        trail.of_credentials(&Target::example(), SPAN).await;
        assert!(began.elapsed() >= PACE * 3, "the next question keeps the pace as well");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_without_an_end_is_cut_and_says_how_many_were_read() {
        let more = mock!(Client::lookup_events).then_output(|| page("DescribeInstances", Some("again")));
        let answer = trail(&[&more], 600).of_instance(&Target::example(), SPAN).await;
        assert_eq!(more.num_calls(), PAGES_OF_INSTANCE);
        assert_eq!(answer.events.len(), PAGES_OF_INSTANCE);
        let cut = answer.cut.expect("cut");
        assert!(
            cut.contains("only the 6 newest were read") && cut.contains("i-0123456789abcdef0 in eu-west-1"),
            "{cut}"
        );
        assert!(answer.failed.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_are_huge_are_cut_by_their_size() {
        let huge = mock!(Client::lookup_events).then_output(|| {
            let event = Raw::builder().event_name("x").cloud_trail_event("x".repeat(BYTES_AT_MOST / 2 + 1)).build();
            LookupEventsOutput::builder().events(event).next_token("again").build()
        });
        let answer = trail(&[&huge], 600).of_credentials(&Target::example(), SPAN).await;
        assert_eq!((huge.num_calls(), answer.cut.is_some()), (2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_what_was_read_stays_and_the_answer_says_that_it_is_not_all() {
        let more = mock!(Client::lookup_events).then_output(|| page("DescribeInstances", Some("again")));
        let answer = trail(&[&more], 1).of_credentials(&Target::example(), SPAN).await;
        assert_eq!(answer.events.len(), 2);
        assert!(answer.failed.is_none() && answer.cut.expect("cut").contains("only the 2 newest were read"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_nobody_answered_in_time_is_a_note_and_the_launch_has_some_seconds_more() {
        let rule = mock!(Client::lookup_events).then_output(|| page("RunInstances", None));
        let mut trail = trail(&[&rule], 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        trail.next = Instant::now() + PACE;
        let answer = trail.of_instance(&Target::example(), SPAN).await;
        assert!(answer.failed.is_none() && answer.cut.expect("a note").contains("not read, no answer in time"));
        assert_eq!(trail.of_launch(&Target::example(), 5_000).await.events.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cloudtrail_had_no_time_for_is_a_note_and_no_failure() {
        let throttled = refused("ThrottlingException");
        let answer = trail(&[&throttled], 600).of_credentials(&Target::example(), SPAN).await;
        assert!(answer.failed.is_none() && answer.cut.expect("a note").contains("not read; CloudTrail takes two"));
    }

    #[tokio::test]
    async fn a_denied_call_is_named_once_and_not_tried_again() {
        let denied = refused("AccessDeniedException");
        let mut trail = trail(&[&denied], 30);
        let answer = trail.of_credentials(&Target::example(), SPAN).await;
        assert!(answer.failed.expect("failed").starts_with("cloudtrail:LookupEvents on events by Username"));
        assert!(trail.of_instance(&Target::example(), SPAN).await.failed.is_none());
        assert_eq!(denied.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_launch_is_looked_for_around_its_time_only() {
        let rule = mock!(Client::lookup_events)
            .match_requests(|r| {
                r.start_time().map(|t| t.secs()) == Some(4_400) && r.end_time().map(|t| t.secs()) == Some(5_600)
            })
            .then_output(|| page("RunInstances", None));
        let answer = trail(&[&rule], 30).of_launch(&Target::example(), 5_000).await;
        assert_eq!(answer.events[0].name, "RunInstances");
    }

    #[test]
    fn global_services_are_recorded_in_one_region_of_each_partition() {
        let of = |region: &str| region_of_global_services(&Target { region: region.to_owned(), ..Target::example() });
        assert_eq!(
            (of("ap-northeast-1"), of("cn-northwest-1"), of("us-gov-east-1")),
            ("us-east-1", "cn-north-1", "us-gov-west-1")
        );
    }
}
