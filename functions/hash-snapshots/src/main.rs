//! The Lambda function `hash-snapshots`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve(|aws, event| async move { hash_snapshots::handle(&aws, event).await }).await
}
