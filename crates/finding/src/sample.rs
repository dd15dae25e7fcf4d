//! Whether a finding is one of the samples that GuardDuty makes up on request.
//!
//! Calling a finding a sample means that nothing is done, so only what GuardDuty itself writes counts. Tags and the
//! names of resources, which an intruder may choose, do not; of the title, which may quote them, only the beginning.

use crate::Named;
use crate::lookup::Node;

/// How the titles of samples begin.
const TITLE_PREFIX: &str = "[SAMPLE]";

/// The instance that samples are about.
const INSTANCE_ID: &str = "i-99999999";

/// Whether an object, or a text that holds one as JSON, has a field `sample` that says true. What stands deeper may be
/// a quotation and does not count.
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
