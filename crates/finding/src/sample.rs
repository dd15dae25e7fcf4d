//! Whether a finding is one of the samples that GuardDuty makes up on request.
//!
//! Nothing is done about a sample, so only GuardDuty's own marks count. Tags and the names of resources do not, because
//! an intruder may choose them; the title may quote them, so only its beginning counts.

use crate::Named;
use crate::lookup::Node;

/// How the titles of samples begin.
const TITLE_PREFIX: &str = "[SAMPLE]";

/// The instance that samples are about.
const INSTANCE_ID: &str = "i-99999999";

/// Whether an object, or a text that holds one as JSON, has a field `sample` that says true. Deeper fields may be
/// quotations and do not count.
pub(crate) fn is_marked(info: &Node) -> bool {
    match info.json() {
        Some(parsed) => Node::root("", &parsed).get("sample").is_true(),
        None => info.get("sample").is_true(),
    }
}

pub(crate) fn is_sample_title(title: &str) -> bool {
    title.starts_with(TITLE_PREFIX)
}

/// One real instance among them is enough for a real finding.
pub(crate) fn are_sample_instances(instances: &[Named]) -> bool {
    !instances.is_empty() && instances.iter().all(|named| named.instance_id == INSTANCE_ID)
}
