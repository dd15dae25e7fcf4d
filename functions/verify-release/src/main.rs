//! The Lambda function `verify-release`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { verify_release::handle(&aws, event).await }).await
}
