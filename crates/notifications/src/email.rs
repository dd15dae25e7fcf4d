//! The message as an e-mail in plain text, and the single lines: the subject and the text message.

use crate::message::{Message, Section};
use crate::quoted::{cut, defanged};

/// The most that a person can be expected to read, in bytes.
const EMAIL_AT_MOST: usize = 20_000;

/// SNS demands fewer than 100 characters.
const SUBJECT_AT_MOST: usize = 99;

/// One text message has 140 characters.
const SMS_AT_MOST: usize = 140;

/// The e-mail. The next steps are always complete: the texts around them are cut if they are too long.
pub(crate) fn email(message: &Message) -> String {
    let act = joined(&act(message));
    let mut before = vec![message.headline.clone()];
    message.first.iter().for_each(|section| write(section, &mut before));
    let before = fitted(&before, EMAIL_AT_MOST.saturating_sub(act.len()));
    let mut after = Vec::new();
    message.rest.iter().for_each(|section| write(section, &mut after));
    if !message.table.is_empty() {
        heading("In the execution's own words", &mut after);
        after.extend(message.table.iter().map(|line| format!("| {}", defanged(line))));
    }
    let room = EMAIL_AT_MOST.saturating_sub(before.len() + act.len());
    before + &act + &fitted(&after, room)
}

/// The next steps, and the execution's page.
fn act(message: &Message) -> Vec<String> {
    let mut lines = Vec::new();
    heading("What to do", &mut lines);
    for next in &message.next {
        lines.push(format!("* {}: {}", next.label, next.text.plain()));
        if let Some(command) = &next.command {
            lines.extend([String::new(), format!("    {command}"), String::new()]);
        }
    }
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    heading("Execution", &mut lines);
    lines.extend(message.execution.console());
    lines.push(match message.execution.id.as_str() {
        "" => "The event does not say which execution this is about.".to_owned(),
        id => defanged(id),
    });
    lines.extend(message.execution.start_time.iter().map(|time| format!("Started at {}", defanged(time))));
    lines
}

/// The subject: ASCII, one line, below 100 characters, beginning with a letter.
pub(crate) fn subject(message: &Message) -> String {
    one_line(&message.subject, SUBJECT_AT_MOST)
}

/// The text message.
pub(crate) fn sms(message: &Message) -> String {
    one_line(&message.headline, SMS_AT_MOST)
}

fn one_line(text: &str, characters: usize) -> String {
    let ascii: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    cut(&ascii, characters - 2).replace('…', "...")
}

fn heading(title: &str, lines: &mut Vec<String>) {
    lines.extend([String::new(), title.to_uppercase(), String::new()]);
}

fn write(section: &Section, lines: &mut Vec<String>) {
    heading(section.title, lines);
    lines.extend(section.lines.iter().map(|line| format!("* {}", line.plain())));
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn fitted(lines: &[String], bytes: usize) -> String {
    const CUT: &str = "… the rest is in the execution's output";
    let mut used = CUT.len() + 1;
    let fitting = lines.iter().take_while(|line| {
        used += line.len() + 1;
        used <= bytes
    });
    let fitting: Vec<String> = fitting.cloned().collect();
    let whole = fitting.len() == lines.len() || bytes <= CUT.len();
    joined(&fitting) + &if whole { String::new() } else { format!("{CUT}\n") }
}
