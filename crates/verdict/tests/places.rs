//! The list of steps, and the places outside Rust that repeat a part of it: each is compared here, and a step that is
//! missing somewhere fails with the name of the place. The compiler finds the places inside Rust.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use verdict::{Branch, Release, StepName};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn document(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const CONTAIN: &str = "statemachine/contain.asl.json";
const RELEASE: &str = "statemachine/release.asl.json";

/// A state machine's states by name, those of Maps and Parallel branches included, in the order of the file.
fn states(path: &str) -> Vec<(String, Value)> {
    // The order of states counts, and serde_json sorts members: so they are found in the text.
    let text = text(path);
    let place = |name: &str| text.find(&format!("{name:?}: {{")).unwrap_or_else(|| panic!("{path}: {name}"));
    let mut states = Vec::new();
    let mut open = vec![document(path)];
    while let Some(value) = open.pop() {
        if let Some(named) = value["States"].as_object() {
            states.extend(named.iter().map(|(name, state)| (name.clone(), state.clone())));
        }
        match value {
            Value::Object(members) => open.extend(members.into_iter().map(|(_, value)| value)),
            Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
    states.sort_by_key(|(name, _)| place(name));
    states
}

/// The step whose function a state invokes: `${IsolateNetwork}` is isolate-network's.
fn invoked(state: &Value) -> Option<StepName> {
    let function = state["Arguments"]["FunctionName"].as_str()?;
    StepName::ALL.iter().copied().find(|step| function == format!("${{{}}}", resource(*step)))
}

fn resource(step: StepName) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    step.name().split('-').map(capital).collect()
}

fn names(steps: impl IntoIterator<Item = StepName>) -> BTreeSet<String> {
    steps.into_iter().map(|step| step.to_string()).collect()
}

fn of_branch(branch: Branch) -> BTreeSet<String> {
    names(StepName::ALL.iter().copied().filter(|step| step.branch() == Some(branch)))
}

/// The lists of step names in a state's output: `Step in ['a', 'b']`.
fn lists(path: &str, state: &str) -> Vec<BTreeSet<String>> {
    let (_, state) = states(path).into_iter().find(|(name, _)| name == state).unwrap_or_else(|| panic!("{state}"));
    let output = state["Output"].as_str().expect("an output").to_owned();
    let lists = output.split("Step in [").skip(1).map(|rest| rest.split(']').next().expect("its end"));
    lists.map(|list| list.split(", ").map(|name| name.trim_matches('\'').to_owned()).collect()).collect()
}

#[test]
fn every_step_has_its_function_its_event_and_its_resource() {
    let template = text("template.yaml");
    for step in StepName::ALL.iter().filter(|step| step.is_function()) {
        for path in [format!("functions/{step}/Cargo.toml"), format!("events/{step}.json")] {
            assert!(project().join(&path).exists(), "{path} is missing");
        }
        for line in [format!("\n  {}:\n", resource(*step)), format!("Binary: {step}")] {
            assert!(template.contains(&line), "template.yaml has no line {:?}", line.trim());
        }
    }
}

/// Functions that are not steps: no report has a row of theirs.
const NOT_STEPS: [&str; 6] = ["intake", "notify", "plan-release", "prepare-fleet", "report", "watch-drift"];

#[test]
fn every_function_is_a_step_of_the_list_or_known_not_to_be_one() {
    let folders =
        fs::read_dir(project().join("functions")).expect("functions").map(|entry| entry.expect("a folder").path());
    let folders = folders.filter(|path| path.join("Cargo.toml").exists());
    let folders: BTreeSet<String> =
        folders.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect();
    let listed = names(StepName::ALL.iter().copied().filter(|step| step.is_function()));
    let known: BTreeSet<String> = listed.into_iter().chain(NOT_STEPS.map(ToOwned::to_owned)).collect();
    let unknown: Vec<&String> = folders.symmetric_difference(&known).collect();
    assert!(unknown.is_empty(), "only in functions/, or only in crates/verdict/src/steps.rs: {unknown:?}");
}

#[test]
fn every_step_calls_itself_what_the_list_calls_it() {
    for step in StepName::ALL.iter().filter(|step| step.is_function()) {
        let sources = fs::read_dir(project().join(format!("functions/{step}/src"))).expect("src");
        for source in sources.map(|entry| entry.expect("a file").path()).filter(|path| path.is_file()) {
            let text = fs::read_to_string(&source).expect("text");
            for line in text.lines().filter(|line| line.contains("const NAME: ")) {
                let name = line.split('"').nth(1);
                assert!(name.is_none_or(|name| name == step.name()), "{}: {line}", source.display());
            }
        }
    }
}

#[test]
fn every_state_that_invokes_a_step_answers_for_that_step_alone() {
    for path in [CONTAIN, RELEASE] {
        for (name, state) in states(path) {
            let Some(step) = invoked(&state) else { continue };
            let caught = state["Catch"].to_string();
            let named: BTreeSet<&str> =
                caught.split("'Step': '").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
            assert_eq!(named, BTreeSet::from([step.name()]), "{path}, {name}: its Catch");
        }
    }
}

#[test]
fn the_containment_runs_every_step_of_its_branches() {
    let ran: BTreeSet<StepName> = states(CONTAIN).iter().filter_map(|(_, state)| invoked(state)).collect();
    for step in StepName::ALL.iter().filter(|step| step.is_function() && step.branch().is_some()) {
        assert!(ran.contains(step), "{CONTAIN}: no state invokes ${{{}}}", resource(*step));
    }
}

#[test]
fn each_branch_hands_exactly_its_own_steps_to_the_verifier() {
    assert_eq!(lists(CONTAIN, "Fast path settled"), [of_branch(Branch::FastPath)], "{CONTAIN}, Fast path settled");
    assert_eq!(lists(CONTAIN, "Facts outcomes"), [of_branch(Branch::Facts)], "{CONTAIN}, Facts outcomes");
    let others = [of_branch(Branch::FastPath), of_branch(Branch::Facts)];
    assert_eq!(lists(CONTAIN, "Evidence outcomes"), others, "{CONTAIN}, Evidence outcomes: all steps but these");
}

#[test]
fn residual_risks_that_cannot_be_read_back_are_carried_to_the_verifier() {
    let carried = names(StepName::ALL.iter().copied().filter(|step| step.carries_risks()));
    let state = "Hand over to verification";
    assert_eq!(lists(CONTAIN, state), [carried], "{CONTAIN}, {state}");
}

#[test]
fn every_step_that_disturbs_the_workload_can_wait_and_no_other_does() {
    let deferred = states(CONTAIN);
    let deferred = deferred.iter().filter(|(name, _)| name.ends_with("(deferred)"));
    let deferred = names(deferred.filter_map(|(_, state)| invoked(state)));
    let disturbing = names(StepName::ALL.iter().copied().filter(|step| step.disturbs()));
    assert_eq!(deferred, disturbing, "{CONTAIN}, the states that end with \"(deferred)\"");
}

#[test]
fn a_release_undoes_every_step_that_can_be_undone_in_the_order_of_the_list() {
    let mut ran: Vec<StepName> = Vec::new();
    for step in states(RELEASE).iter().filter_map(|(_, state)| invoked(state)) {
        if !ran.contains(&step) {
            ran.push(step);
        }
    }
    let expected: Vec<StepName> =
        StepName::released().into_iter().chain([StepName::VerifyRelease, StepName::SealEvidence]).collect();
    assert_eq!(ran, expected, "{RELEASE}");
    let accepted = &document("events/release-input.schema.json")["properties"]["Steps"]["items"]["enum"];
    assert_eq!(
        accepted,
        &json!(StepName::released().iter().map(|s| s.name()).collect::<Vec<_>>()),
        "its input's schema"
    );
}

#[test]
fn places_in_a_release_are_counted_from_one_and_those_on_request_come_last() {
    let released = StepName::released();
    for (n, step) in released.iter().enumerate() {
        let place = match step.release() {
            Release::Undone(place) | Release::OnRequest(place) => usize::from(place),
            other => panic!("{step}: {other:?}"),
        };
        assert_eq!(place, n + 1, "{step}: two steps have one place, or a place has none");
    }
    assert!(released.is_sorted_by_key(|step| step.is_on_request()));
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    steps: Vec<Row>,
    released: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    step: &'static str,
    about: &'static str,
    function: bool,
    branch: Option<Branch>,
    disturbs: bool,
    release: Release,
}

/// For what is not Rust: the reference pages and the Python tests read `docs/steps.json`.
#[test]
fn the_list_is_written_down_for_other_readers() {
    let row = |step: &StepName| Row {
        step: step.name(),
        about: step.about(),
        function: step.is_function(),
        branch: step.branch(),
        disturbs: step.disturbs(),
        release: step.release(),
    };
    let released = StepName::released().iter().map(|step| step.name()).collect();
    let written = Written { steps: StepName::ALL.iter().map(row).collect(), released };
    let written = serde_json::to_string_pretty(&written).expect("JSON") + "\n";
    let path = "docs/steps.json";
    if std::env::var_os("UPDATE_STEPS").is_some() {
        fs::write(project().join(path), &written).expect("written");
    }
    let advice = "is not the list of crates/verdict/src/steps.rs: UPDATE_STEPS=1 cargo test -p verdict writes it";
    assert!(fs::read_to_string(project().join(path)).is_ok_and(|there| there == written), "{path} {advice}");
}
