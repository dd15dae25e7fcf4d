//! The guardrails that the responders have set.

use containment::{Result, Target};

use crate::CaseTable;

/// A guardrail for an instance, kept in the responders' own account: the owner of the instance's account can edit its
/// tags, so a tag would protect nothing (aws-behaviour#tags).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guardrail {
    /// `Protected`: a person is asked before it is contained. `Cordon`: it is Cordon's own, and is never contained.
    pub rule: String,
    /// Why, for the person who is asked.
    pub reason: String,
}

impl CaseTable {
    /// The instance's guardrail, if it has one. Reads the record `guardrail`.
    pub async fn guardrail(&self, target: &Target) -> Result<Option<Guardrail>> {
        let item = self.item(&target.key(), "guardrail").await?;
        let reason = item.text("Reason").unwrap_or_else(|| "no reason is given".to_owned());
        Ok(item.text("Rule").map(|rule| Guardrail { rule, reason }))
    }
}
