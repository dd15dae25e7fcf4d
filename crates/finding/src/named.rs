//! An instance as an event names it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::lookup::Node;

/// An instance that the event says is affected, as plain text: nothing here is checked, and all of it may be malformed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Named {
    /// The instance's account, never the one that received the event; empty if the event does not say.
    pub account_id: String,
    /// The instance's Region; empty if the event does not say.
    pub region: String,
    /// Should be `i-` and 8 or 17 hexadecimal digits; otherwise, the event's text in that place.
    pub instance_id: String,
    /// Where the event names it: `detail.resource.instanceDetails.instanceId`.
    pub field: String,
}

/// An account and a Region; empty if unknown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) account_id: String,
    pub(crate) region: String,
}

impl Place {
    /// Fills what is unknown from another place.
    pub(crate) fn or(self, other: &Place) -> Place {
        let known = |own: String, other: &String| if own.is_empty() { other.clone() } else { own };
        Place { account_id: known(self.account_id, &other.account_id), region: known(self.region, &other.region) }
    }

    /// The account and the Region of an ARN; unknown if it is none.
    pub(crate) fn of_arn(arn: &str) -> Place {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        match parts[..] {
            ["arn", _, _, region, account, _] => Place { account_id: account.to_owned(), region: region.to_owned() },
            _ => Place::default(),
        }
    }
}

/// The instance at this place of the event, whose text is an instance's ARN or its id.
pub(crate) fn named(at: &Node, unless_in_arn: &Place) -> Option<Named> {
    let text = at.text()?;
    let in_arn = id_in_arn(&text);
    let place = in_arn.map_or(Place::default(), |_| Place::of_arn(&text)).or(unless_in_arn);
    let instance_id = in_arn.unwrap_or(&text).to_owned();
    Some(Named { account_id: place.account_id, region: place.region, instance_id, field: at.path().to_owned() })
}

/// The id in `arn:aws:ec2:eu-west-1:123456789012:instance/i-…`, of any partition.
fn id_in_arn(text: &str) -> Option<&str> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts[..] {
        ["arn", _, "ec2", _, _, resource] => resource.strip_prefix("instance/").filter(|id| !id.is_empty()),
        _ => None,
    }
}

/// Each instance once, in its first place.
pub(crate) fn distinct(all: impl IntoIterator<Item = Named>) -> Vec<Named> {
    let mut seen = BTreeSet::new();
    let mut is_new = |n: &Named| seen.insert((n.account_id.clone(), n.region.clone(), n.instance_id.clone()));
    all.into_iter().filter(|named| is_new(named)).collect()
}
