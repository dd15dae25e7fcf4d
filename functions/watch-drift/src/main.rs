//! The Lambda function `watch-drift`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { watch_drift::handle(&aws, event).await }).await
}
