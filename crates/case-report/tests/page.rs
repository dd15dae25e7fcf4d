//! The whole page: of a realistic case, and of one whose every word is an attacker's.
//!
//! The pages are left in `target/tmp/case-report`, where the tests with a real browser find them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use case_report::html;
use custody::{Change, Item, Manifest, Snapshot, Step};
use proptest::prelude::*;
use serde_json::{Value, json};

fn case() -> Manifest {
    serde_json::from_str(include_str!("case.json")).expect("a manifest")
}

/// What attackers write into tags and file names.
const HOSTILE: [&str; 18] = [
    "<script>document.title='pwned'</script>",
    "\"><img src=x onerror=\"document.title='pwned'\">",
    "'><svg onload=alert(1)>",
    "</style><style>*{display:none}</style>",
    "</title></head><body><h1>Contained</h1>",
    "</li></ol></section><section class=\"verdict good\"><h1>Contained</h1>",
    "</td></tr><tr><td>forged</td></tr>",
    "]]><!--",
    "--><script>alert(1)</script>",
    "javascript:document.title='pwned'",
    "&lt;script&gt;&#x3c;b&#x3e;&nbsp;",
    "\u{202E}deniatnoC\u{202C} \u{2066}isolate\u{2069} \u{200F}\u{061C}",
    "in\u{200B}vis\u{FEFF}ible\u{00AD}\u{E0041}\u{2028}",
    "nul\0bell\u{7}esc\u{1B}[31m\r\nnew line\ttab\u{85}\u{9B}",
    "Z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}algo",
    "\u{FDFD}\u{FDFD}\u{12219}\u{12219} \u{05E9}\u{05DC}\u{05D5}\u{05DD} \u{0645}\u{0631}\u{062D}\u{0628}\u{0627}",
    "$(reboot); `reboot` && reboot | reboot > /dev/sda",
    "url(https://evil.example/x) @import 'https://evil.example/y';",
];

/// A case in which every word that anybody but the product can choose is one of these.
fn case_of(words: &[String]) -> Manifest {
    let mut next = words.iter().cycle().cloned();
    let mut word = || next.next().unwrap_or_default();
    let value = |a: String, b: String, c: String| json!({ a.clone(): [b, c, null, { "nested": a }] });
    let step = |step: String, status: String, reason: String, began: Option<String>, change: Change| Step {
        step,
        status: status.as_str().into(),
        reason: Some(reason),
        ended: began.clone(),
        began,
        changes: vec![change],
    };
    let mut change = || Change {
        resource: word(),
        attribute: word(),
        before: value(word(), word(), word()),
        after: value(word(), word(), word()),
    };
    let changes: Vec<Change> = (0..6).map(|_| change()).collect();
    let statuses = ["Done", "Failed", "Unsupported", "InProgress", "NotApplicable"].map(String::from);
    let names = ["isolate-network", "detach-profile"].map(String::from).into_iter().chain((0..4).map(|_| word()));
    let names: Vec<String> = names.collect();
    let mut steps: Vec<Step> = names
        .into_iter()
        .zip(statuses.into_iter().chain([word()]))
        .zip(changes)
        .enumerate()
        .map(|(n, ((name, status), change))| {
            let began = n.is_multiple_of(2).then(|| format!("2026-11-21T09:15:{:02}Z", n * 9));
            step(name, status, word(), began, change)
        })
        .collect();
    steps.push(Step {
        began: Some(word()),
        ended: Some(word()),
        step: word(),
        status: word().as_str().into(),
        ..Step::default()
    });
    let item = Item {
        name: word(),
        version_id: word(),
        size: u64::MAX,
        sha256: Some(word()),
        stored_at: word(),
        resource: word(),
        function: word(),
        caller: Some(word()),
        execution: Some(word()),
        request_id: Some(word()),
        calls: vec![word(), word()],
        note: Some(word()),
        ..Item::default()
    };
    let snapshot = Snapshot {
        snapshot_id: word(),
        account_id: word(),
        region: word(),
        state: word(),
        started_at: Some(word()),
        volume_id: Some(word()),
        device_name: Some(word()),
        source_snapshot_id: Some(word()),
        volume_size: i32::MIN,
        kms_key_id: Some(word()),
        lock: Some(custody::Lock { state: word(), expires_at: Some(word()) }),
        blocks: Some(custody::Blocks { parts: vec![word()], count: u64::MAX, sha256: word() }),
        ..Snapshot::default()
    };
    Manifest {
        format: 1,
        case_id: word(),
        account_id: word(),
        region: word(),
        instance_id: word(),
        sealed_at: word(),
        execution: word(),
        sealed_by: word(),
        verdict: "NotContained".into(),
        open: vec![word(), word(), word()],
        residual_risk: vec![word(), word()],
        release: Some(custody::Release { execution: word(), case_closed: false, steps: steps.clone() }),
        steps,
        evidence: vec![item],
        snapshots: vec![snapshot],
        facts: json!({ word(): value(word(), word(), word()), "Tags": { word(): word() }, "KeyName": word() }),
        previous: Some(custody::Previous { version_id: word(), sha256: word() }),
    }
}

fn hostile() -> Manifest {
    let long = ["x".repeat(100_000), "\u{5168}".repeat(100_000), "\u{202E}".repeat(5_000)];
    let words: Vec<String> = HOSTILE.iter().map(|word| (*word).to_owned()).chain(long).collect();
    case_of(&words)
}

#[test]
fn the_pages_for_the_browser_are_written() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("case-report");
    fs::create_dir_all(&folder).expect("a folder");
    let contained = |mut case: Manifest| {
        case.verdict = "Contained".into();
        case.open.clear();
        case.steps.retain(|step| step.status.is_good());
        // A drill, or a case without volumes: over in seconds, on a linear axis.
        case.steps.retain(|step| step.ended.as_deref().is_none_or(|ended| ended < "2026-11-21T09:15:10Z"));
        case.evidence.retain(|item| item.state == custody::ItemState::Intact);
        case.snapshots.retain(|snapshot| snapshot.state == "completed");
        case
    };
    let verdict = |name: &str| Manifest { verdict: name.into(), ..case() };
    for (name, case) in [
        ("partly", case()),
        ("contained", contained(case())),
        ("not-contained", verdict("NotContained")),
        ("not-approved", verdict("NotApproved")),
        ("unknown", verdict("Exonerated")),
        ("empty", Manifest::default()),
        ("hostile", hostile()),
    ] {
        fs::write(folder.join(format!("{name}.html")), html(&case)).expect("written");
    }
}

/// The elements that the page is made of, and the attributes that they may have.
const ELEMENTS: [&str; 51] = [
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "input",
    "header",
    "label",
    "main",
    "footer",
    "section",
    "nav",
    "article",
    "h1",
    "h2",
    "h3",
    "p",
    "div",
    "span",
    "bdi",
    "strong",
    "a",
    "ul",
    "ol",
    "li",
    "dl",
    "dt",
    "dd",
    "br",
    "pre",
    "code",
    "time",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "figure",
    "figcaption",
    "svg",
    "g",
    "path",
    "circle",
    "rect",
    "line",
    "text",
    "desc",
    "tspan",
    "b",
];
const VOID: [&str; 3] = ["meta", "input", "br"];

/// Reads a page as strictly as a test can: every tag is one of ours and is closed, every attribute is quoted and
/// harmless. Answers how often each element occurs, and the page's text.
fn read(page: &str) -> (BTreeMap<String, usize>, String) {
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    let (mut counts, mut text, mut open) = (BTreeMap::new(), String::new(), Vec::<String>::new());
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "closed in order");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(ELEMENTS.contains(&name), "<{tag}>");
        *counts.entry(name.to_owned()).or_default() += 1;
        read_attributes(attributes);
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("its end")..];
        }
        if !VOID.contains(&name) {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    (counts, text)
}

fn read_attributes(mut rest: &str) {
    while !rest.trim_start().is_empty() {
        rest = rest.trim_start();
        let (name, after) = match rest.strip_prefix("checked") {
            Some(after) => {
                rest = after;
                continue;
            }
            None => rest.split_once("=\"").expect("a quoted attribute"),
        };
        let (value, after) = after.split_once('"').expect("the quotation ends");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{name}");
        assert!(!name.starts_with("on") && name != "style" && name != "src", "{name}");
        assert!(name != "href" || value.starts_with('#'), "{value}");
        rest = after;
    }
}

/// What a text becomes when everything that hides is named; the page's own way of saying it, but without its elements.
fn without_tags(page: &str) -> String {
    read(page).1.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[test]
fn the_page_refers_to_nothing_outside_and_runs_nothing() {
    let page = html(&case());
    let (counts, _) = read(&page);
    assert!(!counts.contains_key("script") && !counts.contains_key("link") && !counts.contains_key("img"));
    assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    for fetched in ["http:", "https:", "@import", "url(", "src=", "//"] {
        let found = page.find(fetched).map(|at| &page[at.saturating_sub(20)..at + 40]);
        assert!(found.is_none_or(|found| found.contains("s3://BUCKET")), "{found:?}");
    }
}

#[test]
fn the_page_has_all_of_a_case_in_both_languages() {
    let case = case();
    let text = without_tags(&html(&case));
    let mut wanted = vec![case.case_id.clone(), case.execution.clone(), case.sealed_by.clone()];
    wanted.extend(case.open.iter().chain(&case.residual_risk).cloned());
    wanted.extend(case.steps.iter().flat_map(|s| s.changes.iter().map(|c| c.resource.clone()).chain(s.reason.clone())));
    wanted.extend(
        case.evidence.iter().flat_map(|i| [i.name.clone(), i.version_id.clone()].into_iter().chain(i.sha256.clone())),
    );
    wanted.extend(case.snapshots.iter().map(|snapshot| snapshot.snapshot_id.clone()));
    wanted.extend(
        case.facts.as_object().expect("facts")["PrivateIpAddresses"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|a| a.as_str().expect("an address").to_owned()),
    );
    for wanted in wanted {
        assert!(text.contains(&wanted), "{wanted}");
    }
    for both in
        ["Partly contained", "一部のみ封じ込め", "Residual risks", "残存リスク", "How to release", "封じ込めの解除方法"]
    {
        assert!(text.contains(both), "{both}");
    }
}

#[test]
fn the_verdict_is_the_first_heading_and_the_only_one_of_its_rank() {
    for (name, word) in [
        ("Contained", "Contained"),
        ("NotApproved", "Not approved"),
        ("contained", "Verdict unknown"),
        ("", "Verdict unknown"),
    ] {
        let page = html(&Manifest { verdict: name.into(), ..hostile() });
        let first = page.find("<h1>").expect("a heading");
        assert!(page[first..].starts_with(&format!("<h1><span class=\"en\" lang=\"en\">{word}</span>")), "{name}");
        assert_eq!(page.matches("<h1").count(), 1);
        assert!(page.find("<h2").expect("further ones") > first);
    }
}

fn released(verdict: &str, case_closed: bool, open: &[&str]) -> Manifest {
    let group = Change {
        resource: "eni-0a1b".into(),
        attribute: "Groups".into(),
        before: json!(["sg-cordon"]),
        after: json!(["sg-web-0"]),
    };
    let step = |step: &str, status: &str, changes| Step {
        step: step.into(),
        status: status.into(),
        reason: Some(format!("{step} said so")),
        changes,
        ..Step::default()
    };
    let network = if open.is_empty() { "Done" } else { "Unsupported" };
    let steps = vec![step("isolate-network", network, vec![group]), step("close-case", "Done", vec![])];
    let execution = "arn:aws:states:eu-west-1:999988887777:execution:cordon-release:undo".to_owned();
    let release = custody::Release { execution, case_closed, steps };
    let open = open.iter().map(|line| (*line).to_owned()).collect();
    Manifest { verdict: verdict.into(), open, release: Some(release), residual_risk: vec![], ..case() }
}

#[test]
fn a_released_case_says_so_first_and_has_nothing_left_to_restore() {
    let page = html(&released("Released", true, &[]));
    assert!(page.contains("<h1><span class=\"en\" lang=\"en\">Released</span>"));
    for told in
        ["cordon-release:undo", "sg-web-0", "A later containment of the instance opens a new one", "The evidence stays"]
    {
        assert!(page.contains(told), "{told}");
    }
    for gone in ["start-execution", "Restore to", "Cut the network by hand"] {
        assert!(!page.contains(gone), "{gone}");
    }
}

#[test]
fn a_partial_release_says_what_is_left_and_how_to_go_on() {
    let page = html(&released("PartiallyReleased", false, &["isolate-network Unsupported: the group is gone"]));
    for told in
        ["Partly released", "isolate-network said so", "The case is still open", "start-execution", "Restore to"]
    {
        assert!(page.contains(told), "{told}");
    }
    assert!(!page.contains("Cut the network by hand"), "that would contain it again");
}

#[test]
fn a_contained_case_says_how_to_release_it() {
    let page = html(&case());
    assert!(page.contains("stateMachine:cordon-release"));
}

#[test]
fn a_contained_verdict_beside_open_items_is_called_into_question() {
    let told = |case: &Manifest| html(case).contains("Go by what is open");
    let contained = Manifest { verdict: "Contained".into(), ..case() };
    assert!(told(&contained));
    assert!(!told(&case()), "a partly contained one says so itself");
    assert!(!told(&Manifest { open: vec![], steps: vec![], ..contained }));
}

#[test]
fn lost_and_altered_evidence_comes_first_and_is_announced_at_the_top() {
    let page = html(&case());
    let (alarm, verdict) = (page.find("altered: 0, missing: 1").expect("told"), page.find("<h1>").expect("a verdict"));
    assert!(alarm > verdict && alarm < page.find("id=\"open\"").expect("what is open"));
    let name = |name: &str| page.find(&format!("<h3><bdi class=\"code\" translate=\"no\">{name}")).expect("an item");
    assert!(name("cloudtrail-") < name("flow-logs/") && name("flow-logs/") < name("describe-instance-"));
}

#[test]
fn hidden_characters_are_shown_and_long_texts_are_cut() {
    let page = html(&hostile());
    for hidden in ['\u{202E}', '\u{2066}', '\u{200B}', '\u{FEFF}', '\0', '\u{1B}', '\u{E0041}', '\u{61C}'] {
        assert!(!page.contains(hidden), "U+{:04X}", u32::from(hidden));
        assert!(page.contains(&format!("<span class=\"hidden\">U+{:04X}</span>", u32::from(hidden))));
    }
    assert!(!page.contains(&"x".repeat(2_001)));
    assert!(page.contains("of 100000 characters; all of them are in the manifest"));
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

#[test]
fn hostile_words_are_in_no_command() {
    let page = html(&hostile());
    let commands = page.split("<pre>").skip(1).map(|rest| rest.split("</pre>").next().expect("its end"));
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() >= 4);
    assert!(commands.iter().all(|command| !command.contains("reboot") && !command.contains("bdi")));
    assert!(commands[0].contains("cases/ACCOUNT/REGION/CASE CASE"));
    let real = html(&case());
    assert!(real.contains("aws s3 sync s3://BUCKET/cases/111122223333/eu-west-1/c-20261121T091459Z-7f3a c-2026"));
    assert!(
        real.contains(
            "--network-interface-id eni-03074bbd43476d785 --groups sg-9615ac43940af135f sg-0aa1bb2cc3dd4ee5f"
        )
    );
}

#[test]
fn a_step_without_times_is_listed_and_long_waits_make_the_axis_logarithmic() {
    let page = html(&case());
    let untimed = page.split("class=\"untimed\"").nth(1).expect("a list").split("</ul>").next().expect("its end");
    assert!(untimed.contains("request-approval"));
    assert!(page.contains("logarithmic scale") && page.contains("対数目盛"));
    let short =
        Manifest { steps: case().steps.into_iter().filter(|s| s.step == "isolate-network").collect(), ..case() };
    assert!(html(&short).contains("linear scale") && !html(&short).contains("logarithmic scale"));
}

/// A word of any characters, often of those that mean something to a browser.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[<>&\"'/=! a-z\u{202a}-\u{202e}\u{0}-\u{1f}-]{0,40}",
        prop::sample::select(HOSTILE.to_vec()).prop_map(String::from),
        (prop::sample::select(HOSTILE.to_vec()), prop::sample::select(HOSTILE.to_vec()))
            .prop_map(|(a, b)| format!("{a}{b}")),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(9, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..5).prop_map(Value::from_iter),
        ]
    })
}

fn hides(character: char) -> bool {
    let reorders = matches!(character, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}');
    reorders || character.is_control() && character != '\n'
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the words are, the page has the same elements of its own: nobody adds a heading, a row, an item.
    #[test]
    fn nobodys_words_become_elements(words in prop::collection::vec(word(), 1..24)) {
        let page = html(&case_of(&words));
        let (counts, _) = read(&page);
        let harmless: Vec<String> = words.iter().enumerate().map(|(n, _)| format!("word{n}")).collect();
        let (usual, _) = read(&html(&case_of(&harmless)));
        for element in ["h1", "h2", "section", "article", "tr", "table", "figure", "input", "label", "style", "title", "meta", "nav"] {
            prop_assert_eq!(counts.get(element), usual.get(element), "{}", element);
        }
    }

    #[test]
    fn no_character_hides_or_reorders(text in word()) {
        let page = html(&Manifest { open: vec![text], ..case() });
        prop_assert_eq!(page.chars().find(|c| hides(*c)), None);
    }

    #[test]
    fn no_letter_is_lost(text in "[ -~]{0,200}") {
        let page = html(&Manifest { open: vec![text.clone()], ..case() });
        prop_assert!(without_tags(&page).contains(&text));
    }

    #[test]
    fn any_json_is_shown(value in json_value()) {
        let change = Change { resource: "r".into(), attribute: "a".into(), before: value.clone(), after: Value::Null };
        let steps = vec![Step { step: "isolate-network".into(), status: "Done".into(), changes: vec![change], ..Step::default() }];
        read(&html(&Manifest { steps, facts: value, ..Manifest::default() }));
    }

    #[test]
    fn any_times_make_a_picture(times in prop::collection::vec((-70_000_000_000i64..300_000_000_000, any::<i32>()), 0..30)) {
        let at = |seconds: i64| {
            let days = seconds.to_string();
            Some(if seconds % 7 == 0 { days } else { format!("2026-11-{:02}T{:02}:{:02}:{:02}Z", seconds.rem_euclid(30) + 1, seconds.rem_euclid(24), seconds.rem_euclid(60), seconds.rem_euclid(59)) })
        };
        let steps = times.iter().map(|(began, ended)| Step { step: "s".into(), began: at(*began), ended: at(i64::from(*ended)), ..Step::default() });
        let page = html(&Manifest { steps: steps.collect(), ..Manifest::default() });
        read(&page);
        prop_assert!(!page.contains("NaN") && !page.contains("=\"inf"));
    }
}
