//! Properties of every event, however broken.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::lookup::plain;
use crate::tests::{asff_event, attack_sequence, recorded};
use crate::{Named, is_event, read};

/// An id in places where it says nothing about an affected instance.
const DECOY: &str = "i-0badbadbadbadbad0";

const GROUPS: [&str; 6] = [
    "autoscalingAutoScalingGroup",
    "cloudformationStack",
    "ec2Image",
    "ec2LaunchTemplate",
    "ec2Vpc",
    "iamInstanceProfile",
];

/// One way to damage a value in an event.
#[derive(Debug, Clone)]
enum Damage {
    Delete,
    Replace(Value),
    Stringify,
    Wrap,
    Capitalize,
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        r#"arn:aws:ec2:[a-z0-9-]{0,9}:[0-9]{0,13}:instance/i-[0-9a-f]{0,18}"#.prop_map(Value::from),
    ];
    let field = prop_oneof![
        "[a-zA-Z.-]{0,8}",
        prop::sample::select(vec![
            "source",
            "detail-type",
            "detail",
            "findings",
            "Resources",
            "resource",
            "instanceDetails"
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec![
            "instanceId",
            "Id",
            "Type",
            "service",
            "severity",
            "accountId",
            "title",
            "additionalInfo"
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((field.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn known_event() -> impl Strategy<Value = Value> {
    let names = ["ec2", "iam", "network", "brute-force", "eks-custom-action"];
    let mut events: Vec<Value> = names.into_iter().map(recorded).collect();
    events.extend([attack_sequence(), attack_sequence(), asff_event()]);
    prop::sample::select(events)
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Delete),
        Just(Damage::Replace(Value::Null)),
        any_json().prop_map(Damage::Replace),
        Just(Damage::Stringify),
        Just(Damage::Wrap),
        Just(Damage::Capitalize),
    ]
}

fn damaged_event() -> impl Strategy<Value = Value> {
    let damages = prop::collection::vec((any::<prop::sample::Index>(), damage()), 0..6);
    (known_event(), damages).prop_map(|(mut event, damages)| {
        for (index, damage) in damages {
            let places = pointers(&event, "");
            let place = index.get(&places).clone();
            inflict(&mut event, &place, damage);
        }
        event
    })
}

fn pointers(value: &Value, here: &str) -> Vec<String> {
    let below =
        |name: &str, value: &Value| pointers(value, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")));
    let mut all = vec![here.to_owned()];
    match value {
        Value::Object(fields) => all.extend(fields.iter().flat_map(|(name, value)| below(name, value))),
        Value::Array(list) => all.extend(list.iter().enumerate().flat_map(|(n, value)| below(&n.to_string(), value))),
        _ => {}
    }
    all
}

fn inflict(event: &mut Value, place: &str, damage: Damage) {
    if let (Damage::Delete | Damage::Capitalize, Some((parent, name))) = (&damage, place.rsplit_once('/')) {
        let name = name.replace("~1", "/").replace("~0", "~");
        let Some(Value::Object(fields)) = event.pointer_mut(parent) else { return };
        let taken = fields.remove(&name).unwrap_or_default();
        if matches!(damage, Damage::Capitalize) {
            let letters = name.chars();
            fields.insert(
                letters.clone().take(1).map(|c| c.to_ascii_uppercase()).chain(letters.skip(1)).collect(),
                taken,
            );
        }
        return;
    }
    let Some(node) = event.pointer_mut(place) else { return };
    match damage {
        Damage::Replace(other) => *node = other,
        Damage::Stringify => *node = json!(node.to_string()),
        Damage::Wrap => *node = json!([node.take()]),
        Damage::Delete | Damage::Capitalize => {}
    }
}

/// The names along a `field`, without places in lists and with a small first letter.
fn names(field: &str) -> Vec<String> {
    let small = |name: &str| {
        let name = name.split('[').next().unwrap_or_default();
        name.chars().take(1).flat_map(char::to_lowercase).chain(name.chars().skip(1)).collect()
    };
    field.split('.').map(small).filter(|name: &String| !name.is_empty()).collect()
}

fn is_accepted_place(named: &Named) -> bool {
    let names = names(&named.field);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let in_sequence = |rest: &[&str]| match rest {
        ["uid"] | ["data", "ec2Instance", "instanceId"] => true,
        ["data", group, "ec2InstanceUids"] => GROUPS.contains(group),
        _ => false,
    };
    match names.as_slice() {
        ["detail", "resource", "instanceDetails", "instanceId"] | ["detail", "findings", "resources", "id"] => true,
        ["detail", "service", "detection", "sequence", "resources", rest @ ..] => in_sequence(rest),
        _ => false,
    }
}

/// The text at a `field`, found without the code under test.
fn text_at(event: &Value, field: &str) -> Option<String> {
    let mut event = event.clone();
    let detail = if event.is_array() { "/0/detail" } else { "/detail" };
    for detail in [detail.to_owned(), detail.replace("/d", "/D")] {
        let Some(node) = event.pointer_mut(&detail) else { continue };
        if let Some(parsed) = node.as_str().and_then(|text| serde_json::from_str(text).ok()) {
            *node = parsed;
        }
    }
    let pointer = format!("/{}", field.replace('[', "/").replace(']', "").replace('.', "/")).replace("//", "/");
    let found = event.pointer(&pointer)?;
    let found = found.as_array().filter(|list| list.len() == 1).map_or(found, |list| &list[0]);
    Some(found.as_str().map_or_else(|| found.to_string(), plain))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_json_makes_it_panic(input in any_json()) {
        is_event(&input);
        let _ = read(&input);
    }

    #[test]
    fn no_detail_of_a_known_source_makes_it_panic(detail in any_json(), hub in any::<bool>()) {
        let source = if hub { "aws.securityhub" } else { "aws.guardduty" };
        let _ = read(&json!({ "source": source, "detail": detail }));
    }

    #[test]
    fn every_instance_of_a_damaged_event_comes_from_a_field_for_affected_ones(event in damaged_event()) {
        let Ok(alert) = read(&event) else { return Ok(()) };
        prop_assert!(!alert.findings.is_empty());
        for named in alert.findings.iter().flat_map(|finding| &finding.instances) {
            prop_assert!(is_accepted_place(named), "{named:?}");
            let there = text_at(&event, &named.field);
            prop_assert!(there.is_some_and(|text| text.contains(&named.instance_id)), "{named:?}");
            prop_assert_ne!(&named.instance_id, DECOY);
        }
    }

    #[test]
    fn every_text_of_a_damaged_event_is_short_and_on_one_line(event in damaged_event()) {
        let Ok(alert) = read(&event) else { return Ok(()) };
        for finding in alert.findings {
            for text in [finding.id, finding.finding_type, finding.title, finding.about, finding.product] {
                prop_assert!(text.chars().count() <= 256 && !text.chars().any(char::is_control));
            }
            prop_assert!(finding.severity.is_none_or(|severity| (0.0..=10.0).contains(&severity)));
        }
    }

    #[test]
    fn an_id_planted_anywhere_else_is_never_named(
        place in any::<prop::sample::Index>(),
        name in "[a-zA-Z]{1,12}",
        mut event in known_event(),
    ) {
        let objects: Vec<String> =
            pointers(&event, "").into_iter().filter(|p| event.pointer(p).is_some_and(Value::is_object)).collect();
        let planted = json!({ "instanceId": DECOY, "tags": [{ "key": DECOY, "value": DECOY }], "description": DECOY });
        let place: &String = place.get(&objects);
        let holder = event.pointer_mut(place).and_then(Value::as_object_mut).expect("an object");
        holder.entry(format!("x{name}")).or_insert(planted);
        holder.entry("affectedResources").or_insert(json!({ "AWS::EC2::Instance": DECOY }));
        let alert = read(&event).expect("still readable");
        let mut named = alert.findings.iter().flat_map(|finding| &finding.instances);
        prop_assert!(named.all(|named| named.instance_id != DECOY));
    }
}
