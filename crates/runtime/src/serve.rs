//! Runs a function as a Lambda: only this module knows the runtime, the environment and the origin of clients.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{Builder, tls};
use cases::CaseTable;
use containment::{
    Error, Forensic, Irreversible, Outcome, Result, Reversible, Status, Target, converge, converge_reversibly, release,
};
use futures::FutureExt;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn, tracing};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::member::Role;

/// The source of a function's clients and settings.
#[derive(Debug)]
pub struct Aws {
    home: SdkConfig,
    caller: Caller,
}

/// The caller: a function, and its identity in AWS.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The function's name; empty if it is run by hand.
    pub function: String,
    sts: Option<aws_sdk_sts::Client>,
    arn: Arc<OnceCell<String>>,
}

impl Caller {
    /// The identity's ARN, read once in a process; none if STS does not answer, which is no reason to stop.
    pub async fn arn(&self) -> Option<String> {
        let sts = self.sts.as_ref()?;
        let ask = || async {
            let reply =
                sts.get_caller_identity().send().await.map_err(Error::aws("sts:GetCallerIdentity", "itself"))?;
            reply.arn.ok_or_else(|| Error::Misconfigured("STS returned no identity".to_owned()))
        };
        match self.arn.get_or_try_init(ask).await {
            Ok(arn) => Some(arn.clone()),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }
}

impl Aws {
    async fn from_env() -> Self {
        // Standard mode backs off with jitter; its default of 3 attempts is too few for a fleet on EC2's
        // token buckets (aws-behaviour#api-throttling, #sdk-retries).
        let retries = RetryConfig::standard().with_max_attempts(8);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(Duration::from_secs(15))
            .build();
        // One client for all services: each client of its own would load the root certificates and open its
        // connections anew, at every invocation.
        let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
        let home = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(retries)
            .timeout_config(timeouts)
            .http_client(http.build_https());
        let home = home.load().await;
        let mut aws = Aws { home, caller: Caller::default() };
        let function = aws.setting("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
        aws.caller = Caller { function, sts: Some(aws_sdk_sts::Client::new(&aws.home)), arn: Arc::default() };
        aws
    }

    /// The configuration of Cordon's own Region: the case table, the evidence bucket.
    pub fn home(&self) -> &SdkConfig {
        &self.home
    }

    /// Who the function is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The configuration for a target's Region and account: Cordon's own credentials at home, and those of the member
    /// role, narrowed to one step and one instance, in another account.
    ///
    /// Errors: `AccessDenied` if the role cannot be assumed; its text names the role and the template to deploy.
    pub async fn of(&self, target: &Target, step: &str) -> Result<SdkConfig> {
        let here = self.home.to_builder().region(Region::new(target.region.clone()));
        // A function that is run by hand, without the template's settings, acts in the account of its shell.
        let Some(own) = self.setting("RESPONDER_ACCOUNT").filter(|own| *own != target.account_id) else {
            return Ok(here.build());
        };
        let role = Role {
            account_id: target.account_id.clone(),
            name: self.required("MEMBER_ROLE")?,
            template: "member-account.yaml",
            external_id: self.setting("EXTERNAL_ID"),
            responder_account: own,
        };
        let credentials = role.assume(&aws_sdk_sts::Client::new(&self.home), target, step).await?;
        Ok(here.credentials_provider(SharedCredentialsProvider::new(credentials)).build())
    }

    /// The forensic account, if the operator has configured one. Calls nothing.
    ///
    /// Errors: `Misconfigured` if there is an account without a key of its own for the copies.
    pub fn forensic(&self) -> Result<Option<Forensic>> {
        let Some(account_id) = self.setting("FORENSIC_ACCOUNT") else { return Ok(None) };
        Ok(Some(Forensic {
            account_id,
            key_arn: self.required("FORENSIC_KEY_ARN")?,
            role: self.required("FORENSIC_ROLE")?,
            region: self.setting("FORENSIC_REGION"),
        }))
    }

    /// The configuration for the forensic account, in the Region that the target's copies go to: the credentials of its
    /// role, narrowed to one step and one instance.
    ///
    /// Errors: `AccessDenied` if the role cannot be assumed; its text names the role and the template to deploy.
    pub async fn of_forensic(&self, forensic: &Forensic, target: &Target, step: &str) -> Result<SdkConfig> {
        let role = Role {
            account_id: forensic.account_id.clone(),
            name: forensic.role.clone(),
            template: "forensic-account.yaml",
            external_id: self.setting("EXTERNAL_ID"),
            responder_account: self.required("RESPONDER_ACCOUNT")?,
        };
        let credentials = role.assume(&aws_sdk_sts::Client::new(&self.home), target, step).await?;
        let there = self.home.to_builder().region(Region::new(forensic.region_for(target).to_owned()));
        Ok(there.credentials_provider(SharedCredentialsProvider::new(credentials)).build())
    }

    /// A setting that `template.yaml` gives the function; an empty one counts as absent.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn setting(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// A setting without which the function can't work.
    pub fn required(&self, name: &str) -> Result<String> {
        self.setting(name).ok_or_else(|| {
            Error::Misconfigured(format!("the function's environment has no {name}; template.yaml sets it"))
        })
    }

    /// The case table.
    pub fn case_table(&self) -> Result<CaseTable> {
        Ok(CaseTable::new(aws_sdk_dynamodb::Client::new(&self.home), self.required("CASE_TABLE")?))
    }
}

/// Runs a function on the Lambda runtime until it is shut down.
///
/// The event is handed over as plain JSON: a typed one would fail with an error type that no workflow can match
/// (aws-behaviour#lambda-error-names).
pub async fn serve<H, F, O>(handler: H) -> std::result::Result<(), lambda_runtime::Error>
where
    H: Fn(Arc<Aws>, Value) -> F,
    F: Future<Output = Result<O>>,
    O: Serialize,
{
    tracing::init_default_subscriber();
    let aws = Arc::new(Aws::from_env().await);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| {
        let answer = handler(Arc::clone(&aws), event.payload);
        async move {
            let answer = answer.await;
            if let Err(error) = &answer {
                tracing::error!(error_type = error.name(), "{error}");
            }
            answer.map_err(diagnostic)
        }
    }))
    .await
}

/// An error by the name that the state machine matches on.
fn diagnostic(error: Error) -> Diagnostic {
    Diagnostic { error_type: error.name().to_owned(), error_message: error.to_string() }
}

/// The answer of a step about the forensic account if the operator has configured none.
const NONE_CONFIGURED: &str = "no forensic account is configured";

/// How many changes a step's answer carries.
const CHANGES_AT_MOST: usize = 40;

/// Failures carry fewer: they travel from containment to verification, together with those of all other instances.
const CHANGES_OF_A_FAILURE: usize = 3;

/// Runs an irreversible step as a Lambda: one target in, one outcome out.
pub async fn serve_step<S, N>(new: N) -> std::result::Result<(), lambda_runtime::Error>
where
    S: Irreversible,
    N: Fn(&Aws, &SdkConfig, &Target) -> S + Copy,
{
    serve(|aws, event| async move {
        let target = Target::parse(event)?;
        let step = new(&aws, &aws.of(&target, S::NAME).await?, &target);
        answer(&target, run_irreversible(&aws, &step, &target).await)
    })
    .await
}

/// Runs a reversible step as a Lambda: one target in, one outcome out. A target with `Release` is released by it.
pub async fn serve_reversible_step<S, N>(new: N) -> std::result::Result<(), lambda_runtime::Error>
where
    S: Reversible,
    N: Fn(&Aws, &SdkConfig, &Target) -> S + Copy,
{
    serve(|aws, event| async move {
        let target = Target::parse(event)?;
        let step = new(&aws, &aws.of(&target, S::NAME).await?, &target);
        answer(&target, run_reversible(&aws, &step, &target).await)
    })
    .await
}

/// Runs a step about the forensic account as a Lambda. Where none is configured, the answer is `NotApplicable`, and AWS is
/// not called at all.
pub async fn serve_forensic_step<S, N, F>(new: N) -> std::result::Result<(), lambda_runtime::Error>
where
    S: Irreversible,
    N: Fn(Arc<Aws>, Forensic, Target) -> F + Copy,
    F: Future<Output = Result<S>>,
{
    serve(|aws, event| async move {
        let target = Target::parse(event)?;
        let Some(forensic) = aws.forensic()? else {
            return Ok(Outcome::new(S::NAME, Status::NotApplicable, NONE_CONFIGURED.to_owned()));
        };
        // Boxed for the same reason as a whole step: see `run_irreversible`.
        let step = new(Arc::clone(&aws), forensic, target.clone()).boxed_local().await?;
        answer(&target, run_irreversible(&aws, &step, &target).boxed_local().await)
    })
    .await
}

async fn run_irreversible<S: Irreversible>(aws: &Aws, step: &S, target: &Target) -> Result<Outcome> {
    if target.release.is_some() {
        let stays = format!("a release does not undo what {} has done", S::NAME);
        return Ok(Outcome::new(S::NAME, Status::NotApplicable, stays));
    }
    // Boxed, because the type of a whole step's future is too deep for the compiler's default limit.
    converge(step, target, &aws.case_table()?).boxed().await
}

/// Runs a reversible step in the direction that its target asks for.
pub async fn run_reversible<S: Reversible>(aws: &Aws, step: &S, target: &Target) -> Result<Outcome> {
    match &target.release {
        None => converge_reversibly(step, target, &aws.case_table()?).boxed().await,
        Some(_) => run_release(aws, step, target).await,
    }
}

/// Releases a step, if the case is still the one that the target names.
pub async fn run_release<S: Reversible>(aws: &Aws, step: &S, target: &Target) -> Result<Outcome> {
    let journal = aws.case_table()?;
    // A release that was stopped, or is redriven, must not undo what another execution has contained since. A dry run
    // holds no case.
    let case = journal.last_case(target).boxed().await?;
    if let Some(case) = case.filter(|case| !target.dry_run && !case.is_held_for(target)) {
        return Err(Error::InvalidInput(format!(
            "Execution: the case of {} is now {}, held by {}; start the release again",
            target.instance_id, case.id, case.execution
        )));
    }
    release(step, target, &journal).boxed().await
}

/// The answer of a step's function: logs the whole outcome, and returns the part that travels through the workflow.
pub fn answer(target: &Target, outcome: Result<Outcome>) -> Result<Outcome> {
    let outcome = outcome.map_err(|error| match error {
        Error::NotContained(outcome) => Error::NotContained(Box::new(outcome.shortened(CHANGES_OF_A_FAILURE))),
        Error::NotReleased(outcome) => Error::NotReleased(Box::new(outcome.shortened(CHANGES_OF_A_FAILURE))),
        other => other,
    })?;
    tracing::info!(instance = target.instance_id, outcome = outcome.to_json(), "{}", outcome.step);
    Ok(outcome.shortened(CHANGES_AT_MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_reports_cordons_error_names_and_not_rust_types() {
        let diagnostic = diagnostic(Error::InvalidInput("Region is missing".into()));
        assert_eq!(diagnostic.error_type, "InvalidInput");
        assert_eq!(diagnostic.error_message, "Region is missing");
    }
}
