//! An update of one item, and the condition under which it is made.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;

/// Collects the clauses of an update expression and of its condition, in any order. Attributes are placeholders, so
/// that DynamoDB's reserved words do no harm.
#[derive(Debug, Default)]
pub(crate) struct Update {
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    /// Sets an attribute, even if the item has it.
    pub(crate) fn set(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.set.push(format!("{name} = {value}"));
        self
    }

    /// Sets an attribute unless the item has it.
    pub(crate) fn set_once(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.set.push(format!("{name} = if_not_exists({name}, {value})"));
        self
    }

    /// Removes an attribute, if the item has it.
    pub(crate) fn remove(mut self, name: &str) -> Self {
        let name = self.name(name);
        self.remove.push(name);
        self
    }

    /// Adds to a number or to a set.
    pub(crate) fn add(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.add.push(format!("{name} {value}"));
        self
    }

    /// Only if the attribute has this value.
    pub(crate) fn if_equal(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.conditions.push(format!("{name} = {value}"));
        self
    }

    /// Only if the item has no such attribute.
    pub(crate) fn if_absent(mut self, name: &str) -> Self {
        let name = self.name(name);
        self.conditions.push(format!("attribute_not_exists({name})"));
        self
    }

    /// Only if the item has such an attribute.
    pub(crate) fn if_present(mut self, name: &str) -> Self {
        let name = self.name(name);
        self.conditions.push(format!("attribute_exists({name})"));
        self
    }

    /// Only if the item has no such number, or one that is at most this.
    pub(crate) fn if_at_most(mut self, name: &str, most: AttributeValue) -> Self {
        let (name, most) = (self.name(name), self.value(most));
        self.conditions.push(format!("(attribute_not_exists({name}) OR {name} <= {most})"));
        self
    }

    /// Only if the set has fewer members than this, or this member already.
    pub(crate) fn if_room(mut self, name: &str, member: AttributeValue, most: AttributeValue) -> Self {
        let (name, member, most) = (self.name(name), self.value(member), self.value(most));
        let has = format!("contains({name}, {member}) OR size({name}) < {most}");
        self.conditions.push(format!("(attribute_not_exists({name}) OR {has})"));
        self
    }

    /// `SET … REMOVE … ADD …`, without the clauses that are empty.
    pub(crate) fn expression(&self) -> String {
        let clauses = [("SET", &self.set), ("REMOVE", &self.remove), ("ADD", &self.add)];
        let clauses = clauses.into_iter().filter(|(_, parts)| !parts.is_empty());
        clauses.map(|(verb, parts)| format!("{verb} {}", parts.join(", "))).collect::<Vec<_>>().join(" ")
    }

    /// All conditions together; none if there are none.
    pub(crate) fn condition(&self) -> Option<String> {
        (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "))
    }

    pub(crate) fn apply(self, call: UpdateItemFluentBuilder) -> UpdateItemFluentBuilder {
        let values = Some(self.values.clone()).filter(|values| !values.is_empty());
        call.update_expression(self.expression())
            .set_condition_expression(self.condition())
            .set_expression_attribute_names(Some(self.names))
            .set_expression_attribute_values(values)
    }

    /// One placeholder for each attribute, however often it is named.
    fn name(&mut self, name: &str) -> String {
        let known = self.names.iter().find(|(_, known)| *known == name).map(|(placeholder, _)| placeholder.clone());
        known.unwrap_or_else(|| {
            let placeholder = format!("#n{}", self.names.len());
            self.names.insert(placeholder.clone(), name.to_owned());
            placeholder
        })
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }
}

/// A request's expressions, with names and values in place of their placeholders.
#[cfg(test)]
pub(crate) fn spelled_out(r: &aws_sdk_dynamodb::operation::update_item::UpdateItemInput) -> (String, String) {
    let spell = |expression: Option<&str>| {
        let mut text = expression.unwrap_or_default().to_owned();
        for (placeholder, name) in r.expression_attribute_names().into_iter().flatten() {
            text = whole_words(&text, placeholder, name);
        }
        for (placeholder, value) in r.expression_attribute_values().into_iter().flatten() {
            let value = match value {
                AttributeValue::S(text) => format!("'{text}'"),
                AttributeValue::N(number) => number.clone(),
                other => format!("{other:?}"),
            };
            text = whole_words(&text, placeholder, &value);
        }
        text
    };
    (spell(r.update_expression()), spell(r.condition_expression()))
}

/// Replaces whole placeholders: `#n1` is not a part of `#n10`.
#[cfg(test)]
fn whole_words(text: &str, placeholder: &str, by: &str) -> String {
    let mut parts = text.split(placeholder);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += if part.starts_with(|c: char| c.is_ascii_digit()) { placeholder } else { by };
        out += part;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{number, text};

    #[test]
    fn clauses_are_grouped_by_verb_in_any_order() {
        let update =
            Update::default().remove("A").set("B", text("b")).remove("C").add("D", number(1)).set("E", text("e"));
        assert_eq!(update.expression(), "SET #n1 = :v0, #n4 = :v2 REMOVE #n0, #n2 ADD #n3 :v1");
        assert_eq!(update.condition(), None);
    }

    #[test]
    fn an_attribute_has_one_placeholder_and_every_condition_must_hold() {
        let update = Update::default().set_once("A", text("a")).if_absent("B").if_equal("A", text("x"));
        assert_eq!(update.expression(), "SET #n0 = if_not_exists(#n0, :v0)");
        assert_eq!(update.condition().as_deref(), Some("attribute_not_exists(#n1) AND #n0 = :v1"));
    }
}
