//! The forensic account: where evidence goes that must outlive the account that it was taken in.

use crate::Target;

/// The forensic account, as the operator has configured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forensic {
    /// The account, 12 digits.
    pub account_id: String,
    /// The key of that account that copies go under.
    pub key_arn: String,
    /// Path and name of the role of `forensic-account.yaml`.
    pub role: String,
    /// The Region that copies go to; without one, they stay in the Region of their source.
    pub region: Option<String>,
}

impl Forensic {
    /// A forensic account for tests: 888888888888, with its key and its copies in `eu-central-1`.
    #[cfg(any(test, feature = "test-util"))]
    pub fn example() -> Forensic {
        Forensic {
            account_id: "888888888888".to_owned(),
            key_arn: "arn:aws:kms:eu-central-1:888888888888:key/f".to_owned(),
            role: "cordon/cordon-forensic".to_owned(),
            region: Some("eu-central-1".to_owned()),
        }
    }

    /// The Region that a target's copies go to.
    pub fn region_for<'a>(&'a self, target: &'a Target) -> &'a str {
        self.region.as_deref().unwrap_or(&target.region)
    }

    /// Why no copy of a target's snapshots can be made under the account's key, if so: a key reaches only its own Region.
    pub fn out_of_reach(&self, target: &Target) -> Option<String> {
        let (to, key_in) = (self.region_for(target), self.key_arn.split(':').nth(3).unwrap_or_default());
        (to != key_in).then(|| {
            format!("copies go to {to}, which the forensic account's key in {key_in} does not reach (ForensicRegion)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_go_to_the_region_that_is_set_or_stay_where_their_source_is() {
        let (target, set) = (Target::example(), Forensic::example());
        assert_eq!((set.region_for(&target), set.out_of_reach(&target)), ("eu-central-1", None));
        let unset = Forensic { region: None, ..set };
        assert_eq!(unset.region_for(&target), "eu-west-1");
        assert!(unset.out_of_reach(&target).expect("another Region than the key's").contains("in eu-central-1"));
    }
}
