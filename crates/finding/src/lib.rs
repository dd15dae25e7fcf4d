//! Reads an alert: which findings an EventBridge event carries, and which EC2 instances they name.
//!
//! Pure and tolerant: a finding about something else names no instance, and malformed values are passed on as text.
//! An instance counts only if the service says that it is affected; ids in descriptions, tags, actions and
//! `affectedResources` do not. Whether an id, an account or a Region is acceptable is the caller's question.

mod guardduty;
mod lookup;
mod named;
#[cfg(test)]
mod properties;
mod sample;
mod security_hub;
mod sequence;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

use lookup::{Node, plain};
pub use named::Named;

/// Who sent the event, and on whose initiative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Source {
    /// GuardDuty itself, within minutes, and again whenever the finding recurs.
    GuardDuty,
    /// A person chose the findings in Security Hub and pressed a custom action.
    SecurityHubCustomAction,
    /// Security Hub passes on every new or updated finding of every product: `Security Hub Findings - Imported`.
    SecurityHub,
}

/// The content of one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Alert {
    /// Who sent it.
    pub source: Source,
    /// At least one finding, in the order of the event. Two of them may name the same instance.
    pub findings: Vec<Finding>,
}

/// One finding. Texts have at most 256 characters and no control characters; a text that the event lacks is empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// The finding's ARN if it has one, else its id. Updates of a finding keep it.
    pub id: String,
    /// The account that the finding was made in, as the service vouches for it. From Security Hub it may name resources
    /// of other accounts, because the importer of a finding writes their ARNs. Empty if the event does not say.
    pub account_id: String,
    /// GuardDuty's type such as `Backdoor:EC2/C&CActivity.B!DNS`; from Security Hub the first of the finding's types,
    /// such as `TTPs/Command and Control/Backdoor:EC2-C&CActivity.B!DNS`.
    pub finding_type: String,
    /// The service's headline, which may quote names that an attacker chose.
    pub title: String,
    /// The product that found it: `GuardDuty`, or the one that Security Hub names, such as `Inspector`. Findings of
    /// other products may name instances that are merely vulnerable. A product that only calls itself GuardDuty appears
    /// with its ARN.
    pub product: String,
    /// On GuardDuty's scale from 0 to 10, where 7 and above is high; none if the event has no such number.
    pub severity: Option<f64>,
    /// Made up by the service for a test: nothing happened.
    pub sample: bool,
    /// Whether a person or a suppression rule has archived the finding.
    pub archived: bool,
    /// The kind of resource it is about, in the service's words: `Instance`, `AccessKey`, `AwsEksCluster`.
    pub about: String,
    /// The distinct EC2 instances that the finding names as affected, in the order of the event.
    pub instances: Vec<Named>,
}

/// Why an event is not an alert: one sentence with the field, the value and the accepted values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

const GUARDDUTY: &str = "aws.guardduty";
const SECURITY_HUB: &str = "aws.securityhub";
const GUARDDUTY_FINDING: &str = "GuardDuty Finding";
const CUSTOM_ACTION: &str = "Security Hub Findings - Custom Action";
const IMPORTED: &str = "Security Hub Findings - Imported";

/// Whether this is an EventBridge event, not a person's input. Says nothing about the sender.
pub fn is_event(input: &Value) -> bool {
    let has = |field: &str| input.get(field).is_some();
    has("detail-type") || has("source") && has("detail")
}

/// Reads an event of GuardDuty or Security Hub as EventBridge delivers it.
pub fn read(event: &Value) -> Result<Alert, Unreadable> {
    let event = Node::root("", event);
    let source = source(&event)?;
    let unparsed = event.get("detail");
    let parsed = unparsed.json();
    let detail = parsed.as_ref().map_or(unparsed.clone(), |value| Node::root(unparsed.path(), value));
    let details: Vec<Node> = detail.each().into_iter().filter(Node::is_object).collect();
    if details.is_empty() {
        return Err(refusal(&unparsed, "an object with the finding"));
    }
    let findings = match source {
        Source::GuardDuty => guardduty_findings(&event, &details)?,
        Source::SecurityHub | Source::SecurityHubCustomAction => security_hub_findings(&details)?,
    };
    Ok(Alert { source, findings })
}

/// Names beginning with `aws.` are reserved, so only the service sends them. Any other `source` is therefore refused
/// even if the `detail-type` fits: anyone may put that on a bus.
fn source(event: &Node) -> Result<Source, Unreadable> {
    let source = event.get("source");
    let kind = event.get("detail-type");
    if source.is(GUARDDUTY) || source.is_missing() && kind.is(GUARDDUTY_FINDING) {
        return Ok(Source::GuardDuty);
    }
    if kind.is(CUSTOM_ACTION) && (source.is(SECURITY_HUB) || source.is_missing()) {
        return Ok(Source::SecurityHubCustomAction);
    }
    if kind.is(IMPORTED) && source.is_missing() || source.is(SECURITY_HUB) && (kind.is(IMPORTED) || kind.is_missing()) {
        return Ok(Source::SecurityHub);
    }
    if source.is(SECURITY_HUB) {
        return Err(refusal(&kind, &format!("{CUSTOM_ACTION:?} and {IMPORTED:?}")));
    }
    Err(refusal(&source, &format!("{GUARDDUTY:?} and {SECURITY_HUB:?}")))
}

/// GuardDuty also reports on malware scans and on its own agents, in events of other types without a `resource`.
fn guardduty_findings(event: &Node, details: &[Node]) -> Result<Vec<Finding>, Unreadable> {
    let kind = event.get("detail-type");
    let says_so = kind.is_missing() || kind.is(GUARDDUTY_FINDING);
    if !says_so && details.iter().all(|detail| detail.get("resource").is_missing()) {
        return Err(refusal(&kind, &format!("{GUARDDUTY_FINDING:?}")));
    }
    Ok(details.iter().map(guardduty::finding).collect())
}

fn security_hub_findings(details: &[Node]) -> Result<Vec<Finding>, Unreadable> {
    let listed: Vec<Node> = details.iter().map(|detail| detail.get("findings")).collect();
    let findings = listed.iter().flat_map(Node::each).filter(Node::is_object);
    let findings: Vec<Finding> = findings.map(|finding| security_hub::finding(&finding)).collect();
    match findings.is_empty() {
        false => Ok(findings),
        true => Err(refusal(&listed[0], "a list of at least one finding")),
    }
}

fn refusal(at: &Node, accepted: &str) -> Unreadable {
    if at.is_missing() {
        return Unreadable(format!("{}: missing; accepted: {accepted}", at.path()));
    }
    let shown = plain(&at.value().to_string());
    Unreadable(format!("{}: {shown} is not accepted; accepted: {accepted}", at.path()))
}
