//! The Lambda function `seal-evidence`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { seal_evidence::handle(&aws, event).await }).await
}
