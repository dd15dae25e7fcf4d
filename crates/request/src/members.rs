//! The accounts that Cordon may act in.

use std::collections::BTreeSet;

/// The accounts other than its own in which Cordon may act: `MEMBER_ACCOUNTS`, separated by commas.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemberAccounts(BTreeSet<String>);

impl MemberAccounts {
    /// Reads a list of accounts separated by commas, as the template sets `MEMBER_ACCOUNTS`.
    pub fn named(list: &str) -> Self {
        let accounts = list.split(',').map(|account| account.trim().to_owned());
        accounts.filter(|account| !account.is_empty()).collect()
    }

    /// Whether Cordon, whose own account is `own`, may act in this one.
    pub fn allow(&self, account: &str, own: &str) -> bool {
        account == own || self.0.contains(account)
    }

    /// The accounts that are accepted, in words.
    pub fn accepted(&self, own: &str) -> String {
        let members: Vec<&str> = self.0.iter().map(String::as_str).take(20).collect();
        match members.is_empty() {
            true => format!("{own}, Cordon's own account (the parameter MemberAccounts names no other)"),
            false => format!("{own}, Cordon's own account, and those of MemberAccounts: {}", members.join(", ")),
        }
    }
}

impl FromIterator<String> for MemberAccounts {
    fn from_iter<I: IntoIterator<Item = String>>(accounts: I) -> Self {
        MemberAccounts(accounts.into_iter().collect())
    }
}
