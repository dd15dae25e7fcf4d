//! The progress of an execution: a line for each task and wait, made from its history. Pure.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;

use aws_sdk_sfn::types::{HistoryEvent, HistoryEventType};
use serde_json::Value;

/// What an execution's history has shown so far. Events come in the order of their ids, each once.
#[derive(Debug, Default)]
pub struct Progress {
    began: f64,
    last: i64,
    /// The place of each event; what follows from an event has the same place.
    places: HashMap<i64, Place>,
    /// Maps that were entered and have no item here yet: those of a Distributed Map run in executions of their own.
    maps_without_items: Vec<(i64, String)>,
    report: Option<Value>,
}

/// The states and items around an event, the innermost first; none is the execution itself.
type Place = Option<Rc<Frame>>;

#[derive(Debug)]
struct Frame {
    within: Place,
    what: Inside,
}

#[derive(Debug)]
enum Inside {
    State {
        id: i64,
        name: String,
        entered: f64,
    },
    /// An item of a Map, and the instance that it is about, once its first state has shown its input.
    Item(OnceCell<String>),
}

/// One line for whoever is waiting.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Seconds since the execution began.
    pub at: f64,
    /// The instance; empty for what is about all of them.
    pub instance: String,
    /// The state's name in the state machine.
    pub state: String,
    /// What happened to it.
    pub news: News,
}

/// What happened to a state.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It was entered.
    Entered,
    /// It was left after this many seconds, with a step's status or a verdict; empty if it has neither.
    Left { seconds: f64, status: String },
    /// A try failed. The workflow may try again; how the step ended is said when it is left.
    TryFailed { error: String, reason: String },
}

impl Progress {
    /// The id of the newest event that was handed over.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// What the state `Report` answered: the output of an execution that then failed, which has none itself.
    pub fn report(&self) -> Option<&Value> {
        self.report.as_ref()
    }

    /// Whether a Map is at work whose items are in executions of their own.
    pub fn has_items_elsewhere(&self) -> bool {
        !self.maps_without_items.is_empty()
    }

    /// Takes in an event; a line about it, unless it is only plumbing.
    pub fn take(&mut self, event: &HistoryEvent) -> Option<Line> {
        let at = event.timestamp().as_secs_f64();
        if self.places.is_empty() {
            self.began = at;
        }
        self.last = event.id();
        let place = self.places.get(&event.previous_event_id()).cloned().flatten();
        let (place, line) = self.step(event, at, place);
        self.places.insert(event.id(), place);
        line
    }

    fn step(&mut self, event: &HistoryEvent, at: f64, place: Place) -> (Place, Option<Line>) {
        if let Some(entered) = event.state_entered_event_details() {
            if let Some(input) = entered.input() {
                name_item(&place, input);
            }
            if event.r#type == HistoryEventType::MapStateEntered {
                self.maps_without_items.push((event.id(), entered.name().to_owned()));
            }
            let line = is_work(event).then(|| self.line(at, &place, entered.name(), News::Entered));
            let what = Inside::State { id: event.id(), name: entered.name().to_owned(), entered: at };
            return (Some(Rc::new(Frame { within: place, what })), line);
        }
        if let Some(left) = event.state_exited_event_details() {
            let Some((entry, id, entered)) = state_around(&place, left.name()) else { return (place, None) };
            self.maps_without_items.retain(|(map, _)| *map != id);
            let output = left.output().and_then(|output| serde_json::from_str::<Value>(output).ok());
            let status = output.as_ref().map(status).unwrap_or_default();
            let within = entry.within.clone();
            let line = is_work(event)
                .then(|| self.line(at, &within, left.name(), News::Left { seconds: at - entered, status }));
            if left.name() == "Report" && within.is_none() {
                self.report = output;
            }
            return (within, line);
        }
        if let Some(started) = event.map_iteration_started_event_details() {
            // An item may follow from the Map, or from the item before it, whose place it took.
            let map = started.name().and_then(|name| state_around(&place, name));
            if let Some((_, id, _)) = map {
                self.maps_without_items.retain(|(map, _)| *map != id);
            }
            let within = map.map_or_else(|| place.clone(), |(entry, _, _)| Some(Rc::clone(entry)));
            return (Some(Rc::new(Frame { within, what: Inside::Item(OnceCell::new()) })), None);
        }
        let line = failure(event).map(|(error, cause)| {
            let news = News::TryFailed { error: error.unwrap_or("no error given").to_owned(), reason: in_words(cause) };
            self.line(at, &place, innermost_state(&place), news)
        });
        (place, line)
    }

    fn line(&self, at: f64, place: &Place, state: &str, news: News) -> Line {
        Line { at: at - self.began, instance: instance(place), state: state.to_owned(), news }
    }
}

/// Tasks and waits take time; the other states are plumbing.
fn is_work(event: &HistoryEvent) -> bool {
    matches!(
        event.r#type,
        HistoryEventType::TaskStateEntered
            | HistoryEventType::TaskStateExited
            | HistoryEventType::WaitStateEntered
            | HistoryEventType::WaitStateExited
    )
}

fn around(place: &Place) -> impl Iterator<Item = &Rc<Frame>> {
    std::iter::successors(place.as_ref(), |frame| frame.within.as_ref())
}

/// The nearest state by this name, the id of the event that entered it, and when.
fn state_around<'a>(place: &'a Place, wanted: &str) -> Option<(&'a Rc<Frame>, i64, f64)> {
    around(place).find_map(|frame| match &frame.what {
        Inside::State { id, name, entered } if name == wanted => Some((frame, *id, *entered)),
        _ => None,
    })
}

fn innermost_state(place: &Place) -> &str {
    let name = around(place).find_map(|frame| match &frame.what {
        Inside::State { name, .. } => Some(name.as_str()),
        Inside::Item(_) => None,
    });
    name.unwrap_or_default()
}

/// The instance of the outermost item: one inside it is a part of the same instance.
fn instance(place: &Place) -> String {
    let items = around(place).filter_map(|frame| match &frame.what {
        Inside::Item(instance) => Some(instance.get().cloned().unwrap_or_default()),
        Inside::State { .. } => None,
    });
    items.last().unwrap_or_default()
}

fn name_item(place: &Place, input: &str) {
    let item = around(place).find_map(|frame| match &frame.what {
        Inside::Item(instance) => Some(instance),
        Inside::State { .. } => None,
    });
    let Some(item) = item.filter(|item| item.get().is_none()) else { return };
    let input = serde_json::from_str(input).unwrap_or(Value::Null);
    // Nobody else names it meanwhile.
    let _ = item.set(instance_in(&input).unwrap_or_default().to_owned());
}

/// The instance that some data is about: its least nested `InstanceId`.
pub fn instance_in(data: &Value) -> Option<&str> {
    let mut level = vec![data];
    while !level.is_empty() {
        let named = level.iter().find_map(|value| value["InstanceId"].as_str());
        if named.is_some() {
            return named;
        }
        level = level.into_iter().flat_map(inside).collect();
    }
    None
}

fn inside(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

/// The status of the outcome that a state's output ends with, or the verdict; the error's name where Catch made it.
fn status(output: &Value) -> String {
    let last = output.as_array().and_then(|list| list.last()).unwrap_or(output);
    let text = |name: &str| last[name].as_str().map(ToOwned::to_owned);
    text("Status")
        .or_else(|| text("Verdict"))
        .or_else(|| text("Error").map(|_| "Failed".to_owned()))
        .unwrap_or_default()
}

fn failure(event: &HistoryEvent) -> Option<(Option<&str>, Option<&str>)> {
    if let Some(e) = event.task_failed_event_details() {
        return Some((e.error(), e.cause()));
    }
    if let Some(e) = event.task_timed_out_event_details() {
        return Some((e.error(), e.cause()));
    }
    if let Some(e) = event.task_start_failed_event_details() {
        return Some((e.error(), e.cause()));
    }
    if let Some(e) = event.task_submit_failed_event_details() {
        return Some((e.error(), e.cause()));
    }
    if let Some(e) = event.lambda_function_failed_event_details() {
        return Some((e.error(), e.cause()));
    }
    if let Some(e) = event.lambda_function_timed_out_event_details() {
        return Some((e.error(), e.cause()));
    }
    None
}

/// What Lambda made of an error, `{"errorType": …, "errorMessage": …}`, as the sentence in it; for an outcome, its reason.
fn in_words(cause: Option<&str>) -> String {
    let cause = cause.unwrap_or_default();
    let Ok(document) = serde_json::from_str::<Value>(cause) else { return cause.to_owned() };
    let Some(message) = document["errorMessage"].as_str() else { return cause.to_owned() };
    match serde_json::from_str::<Value>(message) {
        Ok(outcome) if outcome["Reason"].is_string() => outcome["Reason"].as_str().unwrap_or_default().to_owned(),
        Ok(outcome) if outcome["Step"].is_string() => String::new(),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use aws_sdk_sfn::Client;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_runtime_api::http::{Response, StatusCode};
    use serde_json::json;

    /// As the local stack has recorded it: two instances at the same time, their events mixed. Many tasks, and all that
    /// nothing here looks at, were taken out.
    pub const RECORDED: &str = include_str!("recorded/containment-of-two.json");

    const FIRST: &str = "i-17b4bf704695b1838";
    const SECOND: &str = "i-2d96c51032ab4e06a";

    /// What the SDK makes of the reply.
    async fn events(reply: &str) -> Vec<HistoryEvent> {
        let reply = reply.to_owned();
        let status = || StatusCode::try_from(200).expect("a status");
        let rule = mock!(Client::get_execution_history)
            .then_http_response(move || Response::new(status(), reply.clone().into()));
        let client = mock_client!(aws_sdk_sfn, [&rule]);
        client.get_execution_history().execution_arn("arn").send().await.expect("a history").events
    }

    async fn lines(reply: &str) -> (Progress, Vec<Line>) {
        let mut progress = Progress::default();
        let lines = events(reply).await.iter().filter_map(|event| progress.take(event)).collect();
        (progress, lines)
    }

    fn of<'a>(lines: &'a [Line], instance: &str) -> Vec<(&'a str, &'a News)> {
        lines.iter().filter(|line| line.instance == instance).map(|line| (line.state.as_str(), &line.news)).collect()
    }

    #[tokio::test]
    async fn each_line_of_a_recorded_containment_is_under_its_instance() {
        let (progress, lines) = lines(RECORDED).await;
        for instance in [FIRST, SECOND] {
            let states: Vec<&str> = of(&lines, instance).into_iter().map(|(state, _)| state).collect();
            let mut expected =
                ["Describe instance", "Detach from Auto Scaling", "Isolate network", "Verify containment"].repeat(2);
            expected.sort_unstable();
            let mut sorted = states;
            sorted.sort_unstable();
            assert_eq!(sorted, expected, "{instance}");
        }
        let everybodys: Vec<&str> = of(&lines, "").into_iter().map(|(state, _)| state).collect();
        assert_eq!(everybodys, ["Validate input", "Validate input", "Report", "Report"], "plumbing is left out");
        assert_eq!(progress.last(), 252);
        assert_eq!(progress.report().expect("a report")["Verdict"], "Contained");
        assert!(!progress.has_items_elsewhere());
    }

    #[tokio::test]
    async fn a_finished_state_says_how_long_it_took_and_what_its_step_answered() {
        let (_, lines) = lines(RECORDED).await;
        let left = of(&lines, FIRST).into_iter().find_map(|(state, news)| match news {
            News::Left { seconds, status } if state == "Isolate network" => Some((*seconds, status.as_str())),
            _ => None,
        });
        let (seconds, status) = left.expect("it was left");
        assert!((seconds - 6.537).abs() < 0.001, "{seconds}");
        assert_eq!(status, "Done");
        let verified = of(&lines, SECOND)
            .into_iter()
            .any(|(_, news)| matches!(news, News::Left { status, .. } if status == "Contained"));
        assert!(verified);
    }

    /// A Map of two items, one at a time, in the order of events that AWS documents: the second item follows from the
    /// first, and what comes after the Map from its last item.
    fn one_at_a_time() -> String {
        let entered = |kind: &str, name: &str, input: Value| json!({"type": format!("{kind}StateEntered"), "stateEnteredEventDetails": {"name": name, "input": input.to_string()}});
        let left = |kind: &str, name: &str, output: Value| json!({"type": format!("{kind}StateExited"), "stateExitedEventDetails": {"name": name, "output": output.to_string()}});
        let item = |of: &str, index: u8| json!({"type": format!("MapIteration{of}"), format!("mapIteration{of}EventDetails"): {"name": "Each", "index": index}});
        let failed = json!({"type": "TaskFailed", "taskFailedEventDetails": {
            "resource": "invoke", "resourceType": "lambda", "error": "Throttled",
            "cause": json!({"errorType": "Throttled", "errorMessage": "ec2:CreateTags on i-0: slow down"}).to_string(),
        }});
        let caught = json!([{"Step": "isolate-network", "Error": "AccessDenied", "Cause": "no"}]);
        let events = [
            json!({"type": "ExecutionStarted", "executionStartedEventDetails": {"input": "{}"}}),
            entered("Map", "Each", json!({})),
            json!({"type": "MapStateStarted", "mapStateStartedEventDetails": {"length": 2}}),
            item("Started", 0),
            entered("Task", "Isolate", json!({"Deep": {"InstanceId": "i-not"}, "InstanceId": "i-0"})),
            failed,
            left("Task", "Isolate", caught),
            item("Succeeded", 0),
            item("Started", 1),
            entered("Task", "Isolate", json!({"Item": {"Target": {"InstanceId": "i-1"}}})),
            left("Task", "Isolate", json!({"Status": "Done"})),
            item("Succeeded", 1),
            json!({"type": "MapStateSucceeded"}),
            left("Map", "Each", json!([])),
            entered("Task", "Report", json!({})),
        ];
        let events = events.into_iter().enumerate().map(|(n, mut event)| {
            event["id"] = json!(n + 1);
            event["previousEventId"] = json!(n);
            event["timestamp"] = json!(1_800_000_000 + n);
            event
        });
        json!({ "events": events.collect::<Vec<_>>() }).to_string()
    }

    #[tokio::test]
    async fn an_item_that_takes_anothers_place_is_under_its_own_instance() {
        let (_, lines) = lines(&one_at_a_time()).await;
        let seen: Vec<(&str, &str)> = lines.iter().map(|line| (line.instance.as_str(), line.state.as_str())).collect();
        let isolate = |instance| (instance, "Isolate");
        assert_eq!(
            seen,
            [isolate("i-0"), isolate("i-0"), isolate("i-0"), isolate("i-1"), isolate("i-1"), ("", "Report")]
        );
    }

    #[tokio::test]
    async fn a_failed_attempt_is_shown_in_the_functions_words_and_a_caught_error_as_failed() {
        let (_, lines) = lines(&one_at_a_time()).await;
        let failed = News::TryFailed { error: "Throttled".into(), reason: "ec2:CreateTags on i-0: slow down".into() };
        assert_eq!(lines[1].news, failed);
        assert_eq!(lines[2].news, News::Left { seconds: 2.0, status: "Failed".into() });
        assert_eq!(lines[2].at, 6.0);
    }

    #[tokio::test]
    async fn a_map_without_items_here_has_them_elsewhere_until_it_is_left() {
        let mut history: Value = serde_json::from_str(&one_at_a_time()).expect("JSON");
        // As if the Map were left at once: its exit follows from its start.
        history["events"][13]["previousEventId"] = json!(3);
        let all = events(&history.to_string()).await;
        let after = |taken: &[usize]| {
            let mut progress = Progress::default();
            taken.iter().for_each(|&event| drop(progress.take(&all[event])));
            progress.has_items_elsewhere()
        };
        assert!(!after(&[0]));
        assert!(after(&[0, 1]) && after(&[0, 1, 2]));
        assert!(!after(&[0, 1, 2, 3]), "its items are here");
        assert!(!after(&[0, 1, 2, 13]), "it was left");
    }

    #[test]
    fn an_outcome_inside_an_error_is_shown_by_its_reason() {
        let outcome = json!({"Step": "isolate-network", "Status": "Failed", "Reason": "eni-1 is still on sg-1"});
        let cause = |message: Value| json!({"errorType": "NotContained", "errorMessage": message}).to_string();
        assert_eq!(in_words(Some(&cause(json!(outcome.to_string())))), "eni-1 is still on sg-1");
        assert_eq!(in_words(Some("RequestId: 1 timed out")), "RequestId: 1 timed out");
        assert_eq!(in_words(None), "");
    }

    #[test]
    fn anything_but_an_object_has_neither_instance_nor_status() {
        assert_eq!(instance_in(&json!(["i-1", {"InstanceId": 7}])), None);
        assert_eq!(status(&json!("Done")), "");
        assert_eq!(status(&json!([])), "");
    }
}
