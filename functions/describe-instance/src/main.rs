//! The Lambda function `describe-instance`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { describe_instance::handle(&aws, event).await }).await
}
