//! The Lambda function `capture-volatile`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { capture_volatile::handle(&aws, event).await }).await
}
