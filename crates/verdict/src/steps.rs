//! The list of steps. Whatever needs to know of all steps takes it from here: `CONTRIBUTING.md` says how to add one.

use std::fmt;

use serde::Serialize;

/// The branch of the containment's second Map that hands a step's outcome to the verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Branch {
    /// What takes the instance off the network and its credentials away, with the approval and the capture.
    FastPath,
    /// Snapshots, their copies, and all that protects the evidence.
    Evidence,
    /// What an investigator asks for first.
    Facts,
}

/// What a release makes of a step's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Release {
    /// They are undone, at this place in the release.
    Undone(u8),
    /// They are undone only where somebody asks for it, at this place.
    OnRequest(u8),
    /// They are evidence, and stay.
    Evidence,
    /// What was ended or deleted does not come back.
    Final,
    /// There are none.
    Nothing,
}

/// One row of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Properties {
    /// Where its outcome comes from; none where the verifier gets it another way, or makes it.
    branch: Option<Branch>,
    /// Whether it disturbs the workload, and so waits for an approval where one is needed.
    disturbs: bool,
    /// Whether it names residual risks while it runs that nobody can read back later. The workflow carries them.
    carries_risks: bool,
    /// What a release makes of it.
    release: Release,
    /// Whether its reason is in the execution's table however it ended.
    always_explained: bool,
    /// Whether it is a function of its own.
    is_function: bool,
}

/// A function of the containment.
const fn of(branch: Branch, release: Release) -> Properties {
    let (disturbs, carries_risks, always_explained) = (false, false, false);
    Properties { branch: Some(branch), release, disturbs, carries_risks, always_explained, is_function: true }
}

/// A function that disturbs the workload.
const fn disturbing(release: Release) -> Properties {
    Properties { disturbs: true, ..of(Branch::FastPath, release) }
}

/// A function beside the branches.
const fn beside() -> Properties {
    Properties { branch: None, ..of(Branch::Facts, Release::Nothing) }
}

/// What the workflow or the verifier itself says, in a row like a step's.
const fn said(branch: Option<Branch>) -> Properties {
    Properties { branch, always_explained: true, is_function: false, ..beside() }
}

const fn with_risks(properties: Properties) -> Properties {
    Properties { carries_risks: true, ..properties }
}

macro_rules! steps {
    ($(#[doc = $about:literal] $step:ident $name:literal $properties:expr;)+) => {
        /// What a row of a report can be about, in the order in which a reader wants the rows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum StepName {
            $(#[doc = $about] $step,)+
        }

        impl StepName {
            /// All of them.
            pub const ALL: &[StepName] = &[$(StepName::$step),+];

            /// The name: of the outcome's `Step`, the function, the crate and its folder.
            pub const fn name(self) -> &'static str {
                match self {
                    $(StepName::$step => $name,)+
                }
            }

            /// What it does, in one sentence.
            pub const fn about(self) -> &'static str {
                match self {
                    $(StepName::$step => $about.trim_ascii(),)+
                }
            }

            const fn properties(self) -> Properties {
                match self {
                    $(StepName::$step => $properties,)+
                }
            }
        }
    };
}

use Branch::{Evidence, Facts, FastPath};

steps! {
    /// Takes the instance out of its Auto Scaling group, which would terminate it.
    DetachAutoscaling "detach-autoscaling" with_risks(disturbing(Release::OnRequest(9)));
    /// Cuts the network.
    IsolateNetwork "isolate-network" with_risks(disturbing(Release::Undone(3)));
    /// Takes it out of its load balancers.
    DeregisterTargets "deregister-targets" disturbing(Release::Undone(4));
    /// Protects it from termination and stopping.
    ProtectInstance "protect-instance" of(Evidence, Release::Undone(5));
    /// Keeps its volumes and interfaces beyond its end.
    PreserveVolumes "preserve-volumes" of(Evidence, Release::Undone(6));
    /// Tags everything with the case.
    TagResources "tag-resources" of(Evidence, Release::Undone(8));
    /// Requests snapshots of all volumes.
    CreateSnapshots "create-snapshots" with_risks(of(Evidence, Release::Evidence));
    /// Copies them under the stack's key.
    EncryptSnapshots "encrypt-snapshots" of(Evidence, Release::Evidence);
    /// Shares the copies with the forensic account.
    ShareSnapshots "share-snapshots" of(Evidence, Release::Evidence);
    /// Copies them into the forensic account.
    CopySnapshots "copy-snapshots" of(Evidence, Release::Evidence);
    /// Locks the copies there.
    LockSnapshots "lock-snapshots" of(Evidence, Release::Evidence);
    /// Deletes unencrypted originals, where the stack is set to.
    DeleteOriginals "delete-originals" of(Evidence, Release::Final);
    /// Switches flow logs on.
    CreateFlowLogs "create-flow-logs" of(Facts, Release::Undone(7));
    /// Ends Session Manager sessions.
    TerminateSessions "terminate-sessions" disturbing(Release::Final);
    /// Denies this instance's sessions of its roles.
    RevokeCredentials "revoke-credentials" disturbing(Release::Undone(1));
    /// Detaches the instance profile.
    DetachProfile "detach-profile" disturbing(Release::Undone(2));
    /// Captures processes, connections and memory.
    CaptureVolatile "capture-volatile" of(FastPath, Release::Evidence);
    /// Reads the image, the console and CloudTrail.
    CollectFacts "collect-facts" of(Facts, Release::Evidence);
    /// Records what the instance is before anything changes.
    DescribeInstance "describe-instance" beside();
    /// Records its network.
    DescribeNetwork "describe-network" of(Evidence, Release::Evidence);
    /// Lists the hashes of the snapshots' blocks.
    HashSnapshots "hash-snapshots" of(Evidence, Release::Evidence);
    /// What a person answered.
    RequestApproval "request-approval" said(Some(FastPath));
    /// Reads a containment back.
    VerifyContainment "verify-containment" beside();
    /// Reads a release back.
    VerifyRelease "verify-release" beside();
    /// Signs the evidence.
    SealEvidence "seal-evidence" beside();
    /// What became of the case at the end of a release.
    CloseCase "close-case" said(None);
}

impl StepName {
    /// The step by its name.
    pub fn from_name(name: &str) -> Option<StepName> {
        StepName::ALL.iter().copied().find(|step| step.name() == name)
    }

    /// Where its outcome comes from; none where the verifier gets it another way, or makes it.
    pub const fn branch(self) -> Option<Branch> {
        self.properties().branch
    }

    /// Whether it disturbs the workload, and so waits for an approval where one is needed.
    pub const fn disturbs(self) -> bool {
        self.properties().disturbs
    }

    /// Whether it names residual risks while it runs that nobody can read back later. The workflow carries them.
    pub const fn carries_risks(self) -> bool {
        self.properties().carries_risks
    }

    /// What a release makes of its changes.
    pub const fn release(self) -> Release {
        self.properties().release
    }

    /// Whether a release undoes it only where somebody asks for it.
    pub const fn is_on_request(self) -> bool {
        matches!(self.release(), Release::OnRequest(_))
    }

    /// Whether its reason is in the execution's table however it ended.
    pub const fn always_explained(self) -> bool {
        self.properties().always_explained
    }

    /// Whether it is a function of its own.
    pub const fn is_function(self) -> bool {
        self.properties().is_function
    }

    /// The steps that a release can undo, in the order of the release: first what makes the instance whole, then its
    /// network, and only then what sends it traffic. Those that it undoes only on request come last.
    pub fn released() -> Vec<StepName> {
        let mut placed: Vec<(u8, StepName)> =
            StepName::ALL.iter().filter_map(|step| Some((step.release().place()?, *step))).collect();
        placed.sort_unstable();
        placed.into_iter().map(|(_, step)| step).collect()
    }
}

impl Release {
    /// Its place in a release, if it is undone.
    const fn place(self) -> Option<u8> {
        match self {
            Release::Undone(place) | Release::OnRequest(place) => Some(place),
            Release::Evidence | Release::Final | Release::Nothing => None,
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl AsRef<str> for StepName {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

impl PartialEq<StepName> for str {
    fn eq(&self, step: &StepName) -> bool {
        self == step.name()
    }
}

impl PartialEq<StepName> for String {
    fn eq(&self, step: &StepName) -> bool {
        self == step.name()
    }
}
