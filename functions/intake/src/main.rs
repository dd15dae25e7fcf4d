//! The Lambda function `intake`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { intake::handle(&aws, event).await }).await
}
