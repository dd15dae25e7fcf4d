//! A GuardDuty finding, as in the `detail` of its event.

use crate::lookup::Node;
use crate::named::{Place, distinct, named};
use crate::{Finding, sample, sequence};

/// Reads the finding. Runtime Monitoring, ECS and EKS findings may have `instanceDetails` under another `resourceType`.
pub(crate) fn finding(detail: &Node) -> Finding {
    let place = place(detail);
    let resources = detail.get("resource").each();
    let details = resources.iter().flat_map(|resource| resource.get("instanceDetails").each());
    let direct = details.filter_map(|instance| named(&instance.get("instanceId"), &place));
    let in_sequence = if sequence::is_sequence(detail) { sequence::instances(detail, &place) } else { Vec::new() };
    let instances = distinct(direct.chain(in_sequence));
    let title = detail.get("title").text_or_empty();
    let info = detail.at("service.additionalInfo");
    Finding {
        id: detail.get("arn").text().unwrap_or_else(|| detail.get("id").text_or_empty()),
        account_id: place.account_id,
        finding_type: detail.get("type").text_or_empty(),
        product: "GuardDuty".to_owned(),
        severity: detail.get("severity").number().filter(|severity| (0.0..=10.0).contains(severity)),
        sample: sample::is_marked(&info)
            || sample::is_marked(&info.get("value"))
            || sample::is_sample_title(&title)
            || sample::are_sample_instances(&instances),
        archived: detail.at("service.archived").is_true(),
        about: resources.iter().find_map(|resource| resource.get("resourceType").text()).unwrap_or_default(),
        title,
        instances,
    }
}

/// Where the finding arose. The envelope's account is the delegated administrator's (aws-behaviour#guardduty-events).
fn place(detail: &Node) -> Place {
    let own = Place {
        account_id: detail.get("accountId").account().unwrap_or_default(),
        region: detail.get("region").text_or_empty(),
    };
    own.or(&Place::of_arn(&detail.get("arn").text_or_empty()))
}
