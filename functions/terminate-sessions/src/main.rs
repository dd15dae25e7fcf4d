//! The Lambda function `terminate-sessions`.

use terminate_sessions::TerminateSessions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_step(|_, config, _| TerminateSessions::new(config)).await
}
