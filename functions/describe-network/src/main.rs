//! The Lambda function `describe-network`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { describe_network::handle(&aws, event).await }).await
}
