//! The Lambda function `isolate-network`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { isolate_network::handle(&aws, event).await }).await
}
