//! Access to another account: one role, assumed for one step and one instance at a time.

use aws_credential_types::Credentials;
use aws_sdk_sts::Client;
use aws_sdk_sts::types::Tag;
use containment::{Error, Result, Target};

/// The role that `member-account.yaml` makes in each member account, and `forensic-account.yaml` in the forensic one.
#[derive(Debug)]
pub(crate) struct Role {
    /// The account that it belongs to.
    pub(crate) account_id: String,
    /// Path and name: `cordon/cordon-member`.
    pub(crate) name: String,
    /// The template that makes it, for the text of an error.
    pub(crate) template: &'static str,
    /// The external id that the role's trust policy requires; not a secret (aws-behaviour#external-id).
    pub(crate) external_id: Option<String>,
    /// Cordon's own account, for the text of an error.
    pub(crate) responder_account: String,
}

impl Role {
    fn arn(&self, target: &Target) -> String {
        format!("arn:{}:iam::{}:role/{}", target.partition(), self.account_id, self.name)
    }

    /// Credentials for an hour, the most that a role assumed by a role can have (aws-behaviour#chained-sessions).
    ///
    /// The session is tagged with the step and the instance. The role allows each step its own calls only and, where a
    /// service supports it, on this instance only; a function's own role lets it pass no other step's name.
    pub(crate) async fn assume(&self, sts: &Client, target: &Target, step: &str) -> Result<Credentials> {
        let arn = self.arn(target);
        let reply = sts
            .assume_role()
            .role_arn(&arn)
            .role_session_name(format!("{step}@{}", target.instance_id))
            .set_external_id(self.external_id.clone())
            .tags(tag("CordonStep", step))
            .tags(tag("CordonInstance", &target.instance_id))
            .send()
            .await
            .map_err(Error::aws("sts:AssumeRole", &arn))
            .map_err(|error| error.with_advice(&self.advice()))?;
        let issued =
            reply.credentials.ok_or_else(|| Error::Misconfigured(format!("STS returned no credentials for {arn}")))?;
        Ok(Credentials::new(
            issued.access_key_id,
            issued.secret_access_key,
            Some(issued.session_token),
            issued.expiration.try_into().ok(),
            "CordonRole",
        ))
    }

    fn advice(&self) -> String {
        format!(
            "account {} must have the role {} of {}, trusting account {} with {}",
            self.account_id,
            self.name,
            self.template,
            self.responder_account,
            match &self.external_id {
                Some(id) => format!("the external id {id:?}"),
                None => "no external id".to_owned(),
            },
        )
    }
}

fn tag(key: &str, value: &str) -> Tag {
    // Both are given, so building cannot fail.
    Tag::builder().key(key).value(value).build().unwrap_or_else(|_| unreachable!("a key and a value are given"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_sts::operation::assume_role::{AssumeRoleError, AssumeRoleOutput};
    use aws_sdk_sts::primitives::DateTime;
    use aws_sdk_sts::types::Credentials as Issued;
    use aws_smithy_mocks::{mock, mock_client};
    use aws_smithy_types::error::ErrorMetadata;

    fn role() -> Role {
        Role {
            account_id: "123456789012".into(),
            name: "cordon/cordon-member".into(),
            template: "member-account.yaml",
            external_id: Some("cordon".into()),
            responder_account: "999999999999".into(),
        }
    }

    #[tokio::test]
    async fn the_role_of_the_targets_account_is_assumed_for_one_step_and_one_instance() {
        let rule = mock!(Client::assume_role)
            .match_requests(|r| {
                let tags: Vec<_> = r.tags().iter().map(|t| (t.key(), t.value())).collect();
                r.role_arn() == Some("arn:aws:iam::123456789012:role/cordon/cordon-member")
                    && r.external_id() == Some("cordon")
                    && r.role_session_name() == Some("tag-resources@i-0123456789abcdef0")
                    && tags == [("CordonStep", "tag-resources"), ("CordonInstance", "i-0123456789abcdef0")]
            })
            .then_output(|| {
                let issued = Issued::builder().access_key_id("AKID").secret_access_key("secret").session_token("token");
                let issued = issued.expiration(DateTime::from_secs(1_800_000_000)).build().expect("complete");
                AssumeRoleOutput::builder().credentials(issued).build()
            });
        let sts = mock_client!(aws_sdk_sts, [&rule]);
        let credentials = role().assume(&sts, &Target::example(), "tag-resources").await.expect("assumed");
        assert_eq!((credentials.access_key_id(), credentials.session_token()), ("AKID", Some("token")));
        assert!(credentials.expiry().is_some());
    }

    #[tokio::test]
    async fn the_forensic_accounts_role_is_assumed_for_one_step_and_one_instance() {
        let rule = mock!(Client::assume_role)
            .match_requests(|r| {
                r.role_arn() == Some("arn:aws:iam::888888888888:role/cordon/cordon-forensic")
                    && r.role_session_name() == Some("copy-snapshots@i-0123456789abcdef0")
            })
            .then_error(|| AssumeRoleError::generic(ErrorMetadata::builder().code("AccessDenied").build()));
        let sts = mock_client!(aws_sdk_sts, [&rule]);
        let role = Role {
            account_id: "888888888888".into(),
            name: "cordon/cordon-forensic".into(),
            template: "forensic-account.yaml",
            ..role()
        };
        let error = role.assume(&sts, &Target::example(), "copy-snapshots").await.expect_err("denied").to_string();
        assert!(error.contains("account 888888888888 must have") && error.contains("forensic-account.yaml"), "{error}");
    }

    #[tokio::test]
    async fn a_role_that_cannot_be_assumed_is_named_with_the_template_to_deploy() {
        let rule = mock!(Client::assume_role).then_error(|| {
            AssumeRoleError::generic(ErrorMetadata::builder().code("AccessDenied").message("not authorized").build())
        });
        let sts = mock_client!(aws_sdk_sts, [&rule]);
        let error = role().assume(&sts, &Target::example(), "tag-resources").await.expect_err("denied");
        assert_eq!(error.name(), "AccessDenied");
        let text = error.to_string();
        for part in [
            "sts:AssumeRole",
            "role/cordon/cordon-member",
            "member-account.yaml",
            "123456789012",
            "external id \"cordon\"",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
