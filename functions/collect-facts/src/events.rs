//! What CloudTrail's events say, in short. Pure.
//!
//! The caller chose the user agent, the parameters and the session's name: nothing of an event is believed or
//! interpreted, all of it is cut and shown as text.

use std::collections::BTreeMap;

use aws_sdk_cloudtrail::primitives::DateTimeFormat;
use aws_sdk_cloudtrail::types::Event as Raw;
use serde_json::{Value, json};

use crate::text::shown;

const CHARACTERS: usize = 120;
const NAMES_SHOWN: usize = 3;
const CALLS_SHOWN: usize = 20;
const COUNTS_SHOWN: usize = 20;

/// One event, as far as the facts show it. The evidence has the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// When, in UTC.
    pub at: String,
    /// The API's name, such as `RunInstances`.
    pub name: String,
    /// The service, such as `ec2.amazonaws.com`.
    pub service: String,
    /// The Region in whose history it is.
    pub region: String,
    /// The caller's ARN, or what there is instead.
    pub by: String,
    /// The caller's address, or the AWS service that called.
    pub from: String,
    /// What the caller says it is.
    pub agent: String,
    /// Why it was refused, if it was.
    pub error: Option<String>,
    /// What it was about: the names in its parameters.
    pub of: Vec<String>,
    /// Whether it changed nothing; unless the event says so, it may have.
    pub read_only: bool,
}

/// Parameters that name whom or what a call is about.
const NAMES: [&str; 10] = [
    "roleArn",
    "userName",
    "roleName",
    "groupName",
    "policyName",
    "policyArn",
    "accessKeyId",
    "keyName",
    "functionName",
    "instanceProfileName",
];

/// Calls that create or widen access: what remains when this instance's credentials are denied.
const PERSISTENCE: [&str; 32] = [
    "AddRoleToInstanceProfile",
    "AddUserToGroup",
    "AttachGroupPolicy",
    "AttachRolePolicy",
    "AttachUserPolicy",
    "AuthorizeSecurityGroupIngress",
    "CreateAccessKey",
    "CreateFunction20150331",
    "CreateGroup",
    "CreateKeyPair",
    "CreateLoginProfile",
    "CreateOpenIDConnectProvider",
    "CreatePolicy",
    "CreatePolicyVersion",
    "CreateProfile",
    "CreateRole",
    "CreateSAMLProvider",
    "CreateUser",
    "CreateVirtualMFADevice",
    "DeactivateMFADevice",
    "ImportKeyPair",
    "PutGroupPolicy",
    "PutRolePolicy",
    "PutUserPolicy",
    "RunInstances",
    "SetDefaultPolicyVersion",
    "UpdateAccessKey",
    "UpdateAssumeRolePolicy",
    "UpdateFunctionCode20150331v2",
    "UpdateLoginProfile",
    "UploadSSHPublicKey",
    "UploadServerCertificate",
];

/// Calls that return other credentials: a deny on this instance's sessions does not reach those
/// (aws-behaviour#assumed-roles).
const OTHER_SESSIONS: [&str; 5] =
    ["AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "GetFederationToken", "GetSessionToken"];

impl Event {
    /// Reads an event. Never fails: what is missing or malformed stays empty.
    pub(crate) fn read(raw: &Raw, region: &str) -> Event {
        let record: Value =
            raw.cloud_trail_event().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(|text| shown(text, CHARACTERS));
        let identity = &record["userIdentity"];
        let by = ["arn", "principalId", "invokedBy", "type"].iter().find_map(|name| text(&identity[name]));
        let own = |text: Option<&str>| shown(text.unwrap_or_default(), CHARACTERS);
        Event {
            at: raw.event_time().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok()).unwrap_or_default(),
            name: own(raw.event_name()),
            service: own(raw.event_source()),
            region: region.to_owned(),
            by: by.unwrap_or_else(|| own(raw.username())),
            from: text(&record["sourceIPAddress"]).unwrap_or_default(),
            agent: text(&record["userAgent"]).unwrap_or_default(),
            error: text(&record["errorCode"]),
            of: NAMES.iter().filter_map(|name| text(&record["requestParameters"][name])).take(NAMES_SHOWN).collect(),
            read_only: raw.read_only() == Some("true"),
        }
    }

    /// The event as the facts show it.
    pub(crate) fn facts(&self) -> Value {
        json!({
            "Time": self.at, "Call": self.name, "Service": self.service, "Region": self.region, "By": self.by,
            "From": self.from, "UserAgent": self.agent, "Error": self.error, "Of": self.of,
        })
    }
}

/// The launch among the events around its time: the earliest that names the instance.
pub(crate) fn launch(events: &[Event]) -> Option<&Event> {
    events.iter().filter(|event| event.name == "RunInstances" && event.error.is_none()).min_by_key(|event| &event.at)
}

/// What was done to the instance: all calls by count, and the newest of those that may have changed it.
pub(crate) fn about_instance(events: &[Event]) -> Value {
    json!({
        "Events": events.len(),
        "Calls": counts(events.iter().map(|event| event.name.as_str())),
        "Changes": newest(events, |event| !event.read_only),
    })
}

/// What was done with the instance's credentials.
pub(crate) fn by_credentials(events: &[Event]) -> Value {
    json!({
        "Events": events.len(),
        "Refused": events.iter().filter(|event| event.error.is_some()).count(),
        "Calls": counts(events.iter().map(|event| event.name.as_str())),
        "Identities": counts(events.iter().map(|event| event.by.as_str())),
        "Addresses": counts(events.iter().map(|event| event.from.as_str())),
        "UserAgents": counts(events.iter().map(|event| event.agent.as_str())),
        "OtherSessions": newest(events, |event| OTHER_SESSIONS.contains(&event.name.as_str())),
        "Persistence": newest(events, |event| PERSISTENCE.contains(&event.name.as_str())),
    })
}

/// How many of the events were allowed and are of these kinds: other sessions, and new access.
pub(crate) fn of_concern(events: &[Event]) -> (usize, usize) {
    let allowed = |names: &[&str]| {
        events.iter().filter(|event| event.error.is_none() && names.contains(&event.name.as_str())).count()
    };
    (allowed(&OTHER_SESSIONS), allowed(&PERSISTENCE))
}

fn newest(events: &[Event], wanted: impl Fn(&Event) -> bool) -> Value {
    let wanted: Vec<&Event> = events.iter().filter(|event| wanted(event)).collect();
    json!({ "Count": wanted.len(), "Newest": wanted.iter().take(CALLS_SHOWN).map(|event| event.facts()).collect::<Vec<_>>() })
}

/// Each text with its number, the most frequent first, and how many other texts there are.
fn counts<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    let mut by_text: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts {
        *by_text.entry(text).or_default() += 1;
    }
    let mut counted: Vec<_> = by_text.into_iter().collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown: Vec<Value> =
        counted.iter().take(COUNTS_SHOWN).map(|(text, count)| json!({ "Value": text, "Count": count })).collect();
    json!({ "Distinct": counted.len(), "Most": shown })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(name: &str, record: Value) -> Raw {
        Raw::builder().event_name(name).cloud_trail_event(record.to_string()).build()
    }

    fn event(name: &str, error: Option<&str>) -> Event {
        let record = json!({
            "userIdentity": { "arn": "arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0" },
            "sourceIPAddress": "198.51.100.7", "userAgent": "aws-cli/2", "errorCode": error,
            "requestParameters": { "roleArn": "arn:aws:iam::123456789012:role/admin" },
        });
        Event::read(&raw(name, record), "eu-west-1")
    }

    #[test]
    fn an_event_says_who_called_what_from_where_and_whether_it_was_refused() {
        let event = event("AssumeRole", Some("AccessDenied"));
        assert_eq!(event.by, "arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0");
        assert_eq!((event.from.as_str(), event.agent.as_str()), ("198.51.100.7", "aws-cli/2"));
        assert_eq!(
            (event.error.as_deref(), event.of.as_slice()),
            (Some("AccessDenied"), &["arn:aws:iam::123456789012:role/admin".to_owned()][..])
        );
    }

    #[test]
    fn other_sessions_and_new_access_are_named_and_refused_calls_do_not_count() {
        let events = [
            event("AssumeRole", None),
            event("CreateAccessKey", None),
            event("CreateUser", Some("AccessDenied")),
            event("ListBuckets", None),
        ];
        let facts = by_credentials(&events);
        assert_eq!((&facts["OtherSessions"]["Count"], &facts["Persistence"]["Count"]), (&json!(1), &json!(2)));
        assert_eq!((&facts["Events"], &facts["Refused"]), (&json!(4), &json!(1)));
        assert_eq!(of_concern(&events), (1, 1));
        assert_eq!(facts["Addresses"]["Most"], json!([{ "Value": "198.51.100.7", "Count": 4 }]));
    }

    #[test]
    fn the_launch_is_the_earliest_that_was_not_refused() {
        let at = |at: &str, error: Option<&str>| Event { at: at.to_owned(), ..event("RunInstances", error) };
        let events = [
            at("2026-11-02", None),
            at("2026-11-01", None),
            at("2026-10-31", Some("Denied")),
            event("StopInstances", None),
        ];
        assert_eq!(launch(&events).map(|event| event.at.as_str()), Some("2026-11-01"));
        assert_eq!(launch(&[event("StartInstances", None)]), None);
    }

    #[test]
    fn changes_of_the_instance_leave_out_calls_that_only_read() {
        let read = Event { read_only: true, ..event("DescribeInstances", None) };
        let facts = about_instance(&[read, event("ModifyInstanceAttribute", None)]);
        assert_eq!((&facts["Events"], &facts["Changes"]["Count"]), (&json!(2), &json!(1)));
    }

    fn json_of_any_form() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,300}".prop_map(Value::from)
        ];
        let key = prop_oneof![
            Just("userIdentity".to_owned()),
            Just("arn".to_owned()),
            Just("sourceIPAddress".to_owned()),
            Just("userAgent".to_owned()),
            Just("requestParameters".to_owned()),
            Just("userName".to_owned()),
            ".{0,20}",
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn texts(value: &Value) -> Vec<&str> {
        match value {
            Value::String(text) => vec![text],
            Value::Array(values) => values.iter().flat_map(texts).collect(),
            Value::Object(map) => map.values().flat_map(texts).collect(),
            _ => Vec::new(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_facts_stay_small_and_show_no_control_character_whatever_an_event_holds(
            records in prop::collection::vec((".{0,400}", json_of_any_form(), any::<bool>()), 0..60),
            rubbish in ".{0,200}",
        ) {
            let events: Vec<Event> = records
                .iter()
                .map(|(name, record, whole)| {
                    let text = if *whole { record.to_string() } else { rubbish.clone() };
                    let raw = Raw::builder().event_name(name).username(name).cloud_trail_event(text).build();
                    Event::read(&raw, "eu-west-1")
                })
                .collect();
            for facts in [about_instance(&events), by_credentials(&events)] {
                prop_assert!(facts.to_string().len() < 150_000);
                for text in texts(&facts) {
                    prop_assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
                    prop_assert!(text.chars().count() <= CHARACTERS + 1, "{text:?}");
                }
            }
            of_concern(&events);
        }
    }

    #[test]
    fn a_deeply_nested_event_is_left_empty() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let event = Event::read(&Raw::builder().event_name("x").cloud_trail_event(deep).build(), "eu-west-1");
        assert_eq!((event.name.as_str(), event.by.as_str()), ("x", ""));
    }

    #[test]
    fn a_thousand_of_the_longest_events_make_facts_that_a_page_can_show() {
        let long = |n: usize| {
            let record = json!({
                "userIdentity": { "arn": format!("{n}{}", "値".repeat(10_000)) }, "userAgent": format!("{n}{}", "値".repeat(10_000)),
                "requestParameters": NAMES.iter().map(|name| (name.to_string(), "値".repeat(1_000).into())).collect::<serde_json::Map<_, _>>(),
            });
            Event::read(&raw("CreateUser", record), "eu-west-1")
        };
        let events: Vec<Event> = (0..1_000).map(long).collect();
        let text = by_credentials(&events).to_string();
        assert!(text.len() < 100_000, "{} bytes", text.len());
    }
}
