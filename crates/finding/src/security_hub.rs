//! A finding in Security Hub's format (ASFF), as in the `detail.findings` of its events.

use crate::lookup::Node;
use crate::named::{Place, distinct, named};
use crate::{Finding, Named, sample};

/// Begins the names under which Security Hub keeps a GuardDuty finding's `service` fields.
const GUARDDUTY_SERVICE: &str = "aws/guardduty/service";

/// Reads the finding.
pub(crate) fn finding(finding: &Node) -> Finding {
    let resources = finding.get("Resources").each();
    let instances = distinct(resources.iter().filter_map(|resource| instance(resource, finding)));
    let title = finding.get("Title").text_or_empty();
    Finding {
        id: finding.get("Id").text_or_empty(),
        account_id: finding.get("AwsAccountId").account().unwrap_or_default(),
        finding_type: finding_type(finding),
        product: product(finding),
        severity: severity(finding),
        sample: is_sample(finding, &title, &instances),
        archived: is_archived(finding),
        about: about(&resources),
        title,
        instances,
    }
}

fn instance(resource: &Node, finding: &Node) -> Option<Named> {
    if !resource.get("Type").is("AwsEc2Instance") {
        return None;
    }
    let region = resource.get("Region").text().unwrap_or_else(|| finding.get("Region").text_or_empty());
    let account_id = finding.get("AwsAccountId").account().unwrap_or_default();
    named(&resource.get("Id"), &Place { account_id, region })
}

fn finding_type(finding: &Node) -> String {
    let types = [finding.get("Types"), finding.at("FindingProviderFields.Types")];
    types.iter().flat_map(Node::each).find_map(|kind| kind.text()).unwrap_or_default()
}

/// Custom integrations choose their `ProductName`; the ARN comes from Security Hub, so it decides if there is one.
fn product(finding: &Node) -> String {
    let arn = finding.get("ProductArn").text_or_empty();
    if arn.ends_with(":product/aws/guardduty") {
        return "GuardDuty".to_owned();
    }
    match finding.get("ProductName").text() {
        Some(name) if arn.is_empty() || !name.eq_ignore_ascii_case("GuardDuty") => name,
        _ => arn,
    }
}

fn is_guardduty(finding: &Node) -> bool {
    product(finding).eq_ignore_ascii_case("GuardDuty")
}

/// On GuardDuty's scale. Of the two places, the provider's own comes first: `BatchUpdateFindings` cannot change it.
fn severity(finding: &Node) -> Option<f64> {
    let places = [finding.at("FindingProviderFields.Severity"), finding.get("Severity")];
    native(finding, &places).or_else(|| places.iter().find_map(normalized))
}

fn native(finding: &Node, places: &[Node]) -> Option<f64> {
    if !is_guardduty(finding) {
        return None;
    }
    let numbers = places.iter().flat_map(|severity| [severity.get("Product"), severity.get("Original")]);
    numbers.filter_map(|number| number.number()).find(|severity| (0.0..=10.0).contains(severity))
}

/// Security Hub's scale is from 0 to 100; its labels stand for the lowest number that they cover.
fn normalized(severity: &Node) -> Option<f64> {
    let number = severity.get("Normalized").number().filter(|number| (0.0..=100.0).contains(number));
    number.map(|number| number / 10.0).or_else(|| {
        let label = severity.get("Label").text()?.to_ascii_uppercase();
        match label.as_str() {
            "INFORMATIONAL" => Some(0.0),
            "LOW" => Some(1.0),
            "MEDIUM" => Some(4.0),
            "HIGH" => Some(7.0),
            "CRITICAL" => Some(9.0),
            _ => None,
        }
    })
}

/// Other products' titles may begin with a name that an intruder chose, so only GuardDuty's counts.
fn is_sample(finding: &Node, title: &str, instances: &[Named]) -> bool {
    let fields = finding.get("ProductFields");
    finding.get("Sample").is_true()
        || fields.get(&format!("{GUARDDUTY_SERVICE}/additionalInfo/sample")).is_true()
        || sample::is_marked(&fields.get(&format!("{GUARDDUTY_SERVICE}/additionalInfo/value")))
        || is_guardduty(finding) && sample::is_sample_title(title)
        || sample::are_sample_instances(instances)
}

fn is_archived(finding: &Node) -> bool {
    let status = finding.at("Workflow.Status");
    finding.get("RecordState").is("ARCHIVED")
        || status.is("SUPPRESSED")
        || status.is("RESOLVED")
        || finding.get("ProductFields").get(&format!("{GUARDDUTY_SERVICE}/archived")).is_true()
}

fn about(resources: &[Node]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for kind in resources.iter().filter_map(|resource| resource.get("Type").text()) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    crate::lookup::plain(&kinds.join(", "))
}
