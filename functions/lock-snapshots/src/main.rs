//! The Lambda function `lock-snapshots`.

use containment::Step;
use lock_snapshots::{LockSnapshots, wanted};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_forensic_step(|aws, forensic, target| async move {
        let there = aws.of_forensic(&forensic, &target, LockSnapshots::NAME).await?;
        Ok(LockSnapshots::new(&there, forensic, wanted(&aws)?))
    })
    .await
}
