//! The message as a custom notification of Amazon Q Developer in chat applications, formerly AWS Chatbot, which
//! subscribes to the topic over HTTPS.

use serde_json::{Map, Value, json};

use crate::message::{Message, Next};
use crate::quoted::{cut, without_markup};

const TITLE_AT_MOST: usize = 250;
/// Slack advises against longer messages.
const DESCRIPTION_AT_MOST: usize = 4_000;
/// Of that, for commands; a task token alone can be longer.
const COMMANDS_AT_MOST: usize = 3_000;
const NEXT_STEPS_AT_MOST: usize = 6;
const NEXT_STEP_AT_MOST: usize = 350;
const RESOURCES_AT_MOST: usize = 10;

/// The notification. Messages of one execution have one thread.
pub(crate) fn chat(message: &Message) -> Value {
    let steps: Vec<String> = message.next.iter().take(NEXT_STEPS_AT_MOST).map(next_step).collect();
    let mut content = json!({
        "textType": "client-markdown",
        "title": cut(&message.headline, TITLE_AT_MOST),
        "description": description(message),
        "keywords": ["Cordon", message.kind],
    });
    if !steps.is_empty() {
        content["nextSteps"] = json!(steps);
    }
    let ids: Vec<&String> = message.instances.iter().filter_map(|i| i.id.as_ref()).take(RESOURCES_AT_MOST).collect();
    json!({
        "version": "1.0",
        "source": "custom",
        "id": event_id(message),
        "content": content,
        "metadata": {
            "threadId": message.execution.id,
            "summary": cut(&message.headline, TITLE_AT_MOST),
            "eventType": message.kind,
            "relatedResources": ids,
            "additionalContext": context(message),
        },
    })
}

fn event_id(message: &Message) -> String {
    let instance = message.instances.first().and_then(|i| i.id.as_deref()).unwrap_or("none");
    format!("{}/{}/{instance}", message.execution.id, message.kind.name())
}

fn next_step(next: &Next) -> String {
    cut(&format!("{}: {}", next.label, next.text.chat()), NEXT_STEP_AT_MOST)
}

/// The variables for the button of a custom action in the channel.
fn context(message: &Message) -> Map<String, Value> {
    let mut context = Map::from_iter([("Kind".to_owned(), json!(message.kind))]);
    let mut add =
        |name: &str, value: Option<String>| context.extend(value.map(|value| (name.to_owned(), json!(value))));
    add("StateMachineArn", message.execution.state_machine_arn());
    add("Console", message.execution.console());
    if let [instance] = message.instances.as_slice() {
        add("InstanceId", instance.id.clone());
        add("AccountId", instance.account.clone());
        add("Region", instance.region.clone());
    }
    add("TaskToken", message.token.clone());
    context
}

fn description(message: &Message) -> String {
    let commands = commands(message);
    let console = message.execution.console().unwrap_or_else(|| "The execution's page is in the console.".to_owned());
    let end = format!("{commands}\n{console}");
    let mut room = DESCRIPTION_AT_MOST.saturating_sub(end.chars().count() + 40);
    let mut shown = String::new();
    let lines = message.first.iter().flat_map(|section| {
        let title = format!("{}:", section.title);
        std::iter::once(title).chain(section.lines.iter().map(|line| format!("• {}", line.chat())))
    });
    for line in lines {
        let length = line.chars().count() + 1;
        if length > room {
            shown.push_str("… more in the e-mail\n");
            room = 0;
            break;
        }
        room -= length;
        shown = shown + &line + "\n";
    }
    shown + &table(message, room) + &end
}

/// As many commands as fit, as code.
fn commands(message: &Message) -> String {
    let mut shown = String::new();
    let mut left_out = false;
    for next in &message.next {
        let Some(command) = &next.command else { continue };
        let block = format!("{}:\n```\n{command}\n```\n", next.label);
        match shown.chars().count() + block.chars().count() <= COMMANDS_AT_MOST {
            true => shown.push_str(&block),
            false => left_out = true,
        }
    }
    if left_out {
        shown.push_str("The e-mail has the other commands.\n");
    }
    shown
}

/// As many lines of the table as fit, as code.
fn table(message: &Message, room: usize) -> String {
    let mut room = room.saturating_sub(10);
    let lines = message.table.iter().map(|line| format!("| {}", without_markup(line))).take_while(|line| {
        let fits = line.chars().count() < room;
        room = room.saturating_sub(line.chars().count() + 1);
        fits
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { String::new() } else { format!("```\n{}\n```\n", lines.join("\n")) }
}
