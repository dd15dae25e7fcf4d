//! The Lambda function `revoke-credentials`.

use revoke_credentials::RevokeCredentials;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_reversible_step(|_, config, _| RevokeCredentials::new(config)).await
}
