//! A change that somebody other than Cordon made to a contained instance, as CloudTrail recorded it.

use serde::{Deserialize, Serialize};

/// An API call that may have undone a containment. Its texts are untrusted: data, never part of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Drift {
    /// CloudTrail's id of the event.
    pub event_id: String,
    /// The call, such as `ModifyNetworkInterfaceAttribute`.
    pub event_name: String,
    /// When it was made, in UTC.
    #[serde(default)]
    pub event_time: String,
    /// The caller's ARN, or the kind of caller if CloudTrail has no ARN.
    #[serde(default)]
    pub caller: String,
    /// The access key that signed the call.
    #[serde(default)]
    pub access_key_id: String,
    /// The address of the caller, or the AWS service that made the call.
    #[serde(default)]
    pub source_ip_address: String,
    /// The client that the caller claims to be.
    #[serde(default)]
    pub user_agent: String,
    /// The resource of the case that the call named: the instance itself, an interface, a snapshot, …
    #[serde(default)]
    pub resource: String,
    /// The beginning of the call's parameters, as JSON text; the whole event is in the evidence.
    #[serde(default)]
    pub parameters: String,
}

/// An execution's input has 256 KiB, as has every state; nobody reads more of a text than this.
const CHARACTERS: usize = 400;

impl Drift {
    /// Cuts every text to the length that a message shows.
    pub fn shortened(mut self) -> Self {
        for text in [
            &mut self.event_id,
            &mut self.event_name,
            &mut self.event_time,
            &mut self.caller,
            &mut self.access_key_id,
            &mut self.source_ip_address,
            &mut self.user_agent,
            &mut self.resource,
            &mut self.parameters,
        ] {
            if let Some((end, _)) = text.char_indices().nth(CHARACTERS) {
                text.truncate(end);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_of_a_call_is_cut_to_the_length_that_a_message_shows() {
        let drift = Drift { user_agent: "é".repeat(9_000), ..Drift::default() };
        assert_eq!(drift.shortened().user_agent.chars().count(), 400);
    }
}
