//! The Lambda function `copy-snapshots`.

use containment::Step;
use copy_snapshots::CopySnapshots;
use snapshots::key_in_region;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_forensic_step(|aws, forensic, target| async move {
        let key = key_in_region(aws.setting("SNAPSHOT_KEY_ARN"), &target);
        let here = aws.of(&target, CopySnapshots::NAME).await?;
        let there = aws.of_forensic(&forensic, &target, CopySnapshots::NAME).await?;
        Ok(CopySnapshots::new(&here, &there, forensic, key))
    })
    .await
}
