//! The Lambda function `prepare-fleet`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { prepare_fleet::handle(&aws, event).await }).await
}
