//! Finds fields in JSON that may not look as documented, and remembers the place of each.
//!
//! Tolerated: either case of a field's first letter (EventBridge says `accountId`, the CLI `AccountId`), null for a
//! missing field, one thing for a list of one and the reverse, numbers as text and text as numbers.

use serde_json::Value;

/// The most characters that are kept of any text, so that an attacker cannot fill a notification.
const TEXT_AT_MOST: usize = 256;

static MISSING: Value = Value::Null;

/// A place in the event.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Node<'a> {
    pub(crate) fn root(path: &str, value: &'a Value) -> Node<'a> {
        Node { value, path: path.to_owned() }
    }

    /// Such as `detail.findings[0].Resources[1].Id`, in the event's own spelling.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.value.is_null()
    }

    pub(crate) fn is_object(&self) -> bool {
        self.value.is_object()
    }

    /// The field, or a missing one.
    pub(crate) fn get(&self, field: &str) -> Node<'a> {
        let holder = self.only();
        let spellings = [field.to_owned(), with_other_first_letter(field)];
        let found = spellings.iter().find_map(|name| Some((name, holder.value.get(name).filter(|v| !v.is_null())?)));
        match found {
            Some((name, value)) => Node { value, path: join(&holder.path, name) },
            None => Node { value: &MISSING, path: join(&holder.path, field) },
        }
    }

    /// A field of a field, with dots between the names.
    pub(crate) fn at(&self, fields: &str) -> Node<'a> {
        fields.split('.').fold(self.clone(), |node, field| node.get(field))
    }

    /// The elements of a list, or the single value in place of a list; empty if it is missing.
    pub(crate) fn each(&self) -> Vec<Node<'a>> {
        let Value::Array(elements) = self.value else {
            return if self.is_missing() { Vec::new() } else { vec![self.clone()] };
        };
        let element = |(n, value)| Node { value, path: format!("{}[{n}]", self.path) };
        elements.iter().enumerate().map(element).filter(|node| !node.is_missing()).collect()
    }

    fn only(&self) -> Node<'a> {
        match self.value {
            Value::Array(elements) if elements.len() == 1 => {
                Node { value: &elements[0], path: format!("{}[0]", self.path) }
            }
            _ => self.clone(),
        }
    }

    /// A text or a number as [`plain`] text, unless it is empty.
    pub(crate) fn text(&self) -> Option<String> {
        let text = match self.only().value {
            Value::String(text) => plain(text),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        (!text.is_empty()).then_some(text)
    }

    /// The text, or an empty one.
    pub(crate) fn text_or_empty(&self) -> String {
        self.text().unwrap_or_default()
    }

    /// Whether it is this text, in any case of the letters.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text().is_some_and(|own| own.eq_ignore_ascii_case(text))
    }

    /// A number, or a text that is one.
    pub(crate) fn number(&self) -> Option<f64> {
        let number = match self.only().value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|n| n.is_finite())
    }

    /// An account's id. A number has lost its leading zeros.
    pub(crate) fn account(&self) -> Option<String> {
        match self.only().value {
            Value::Number(number) => Some(plain(&format!("{:0>12}", number.as_f64()?))),
            _ => self.text(),
        }
    }

    /// Whether it says true: `true`, `"true"`, `1` or `"1"`.
    pub(crate) fn is_true(&self) -> bool {
        match self.only().value {
            Value::Bool(flag) => *flag,
            _ => self.is("true") || self.number() == Some(1.0),
        }
    }

    /// The value of a text that holds JSON; none for any other text.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_str(self.value.as_str()?).ok()
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn with_other_first_letter(field: &str) -> String {
    let mut letters = field.chars();
    let swapped = letters.next().map(|first| match first.is_ascii_uppercase() {
        true => first.to_ascii_lowercase(),
        false => first.to_ascii_uppercase(),
    });
    swapped.into_iter().chain(letters).collect()
}

/// The text without spaces around it, on one line and cut to size. Characters that could break a line or reorder text
/// become `U+FFFD`.
pub(crate) fn plain(text: &str) -> String {
    let text = text.trim();
    let shown = text.chars().map(|c| if misleads(c) { char::REPLACEMENT_CHARACTER } else { c });
    match text.chars().nth(TEXT_AT_MOST) {
        None => shown.collect(),
        Some(_) => shown.take(TEXT_AT_MOST - 1).chain("…".chars()).collect(),
    }
}

/// Control characters, invisible ones, line separators and those that change the direction of writing.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
