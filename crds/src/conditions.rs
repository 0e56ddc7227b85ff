//! Types and reasons of conditions: one constant each, for condition, event and metric alike.

/// Everything is as asked for and healthy.
pub const READY: &str = "Ready";
/// Work is under way or will be tried again.
pub const RECONCILING: &str = "Reconciling";
/// A person must act.
pub const STALLED: &str = "Stalled";
/// Nothing drifts and no change waits.
pub const IN_SYNC: &str = "InSync";
/// Every service runs and is healthy.
pub const HEALTHY: &str = "Healthy";
/// Every host answers.
pub const HOSTS_REACHABLE: &str = "HostsReachable";
/// No plan waits for approval.
pub const APPROVED: &str = "Approved";

/// Reasons of conditions.
pub mod reasons {
    /// Everything is as asked for.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Not checked yet.
    pub const PENDING: &str = "Pending";
    /// A transient failure; tried again.
    pub const PROGRESSING_WITH_RETRY: &str = "ProgressingWithRetry";
    /// A change is being rolled out.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Something on a host is not as applied.
    pub const DRIFTED: &str = "Drifted";
    /// The spec asks for something that is not applied yet.
    pub const CHANGE_WAITING: &str = "ChangeWaiting";
    /// A plan waits for a person.
    pub const APPROVAL_NEEDED: &str = "ApprovalNeeded";
    /// The spec is not valid.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// A host does not answer.
    pub const UNREACHABLE: &str = "Unreachable";
    /// A host shows another key than the pinned ones.
    pub const HOST_KEY_CHANGED: &str = "HostKeyChanged";
    /// A host refuses the user or its keys.
    pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
    /// Docker is missing or does not answer.
    pub const DOCKER_UNAVAILABLE: &str = "DockerUnavailable";
    /// The user may not open Docker's socket.
    pub const SOCKET_DENIED: &str = "SocketDenied";
    /// `docker compose` is missing or too old.
    pub const COMPOSE_MISSING: &str = "ComposeMissing";
    /// The engine is too old.
    pub const ENGINE_TOO_OLD: &str = "EngineTooOld";
    /// The user's login shell runs no programs.
    pub const SHELL_UNUSABLE: &str = "ShellUnusable";
    /// A program that every host needs is missing.
    pub const TOOL_MISSING: &str = "ToolMissing";
    /// The user may not write into the folder.
    pub const FOLDER_NOT_WRITABLE: &str = "FolderNotWritable";
    /// A named secret is not there or not readable.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// The release on the host is damaged.
    pub const RELEASE_DAMAGED: &str = "ReleaseDamaged";
    /// The project on the host belongs to another stack.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// An image is neither on the host nor in the registry.
    pub const IMAGE_MISSING: &str = "ImageMissing";
    /// The certificate that users are shown does not hold: not any more, or not yet.
    pub const CERTIFICATE_NOT_VALID: &str = "CertificateNotValid";
    /// A service did not become healthy.
    pub const UNHEALTHY: &str = "Unhealthy";
    /// The stack is suspended: nothing is written.
    pub const SUSPENDED: &str = "Suspended";
    /// A person put a file `HOLD` on the host: nothing is written.
    pub const HELD: &str = "Held";
    /// The host's state is Frozen: nothing is written.
    pub const FROZEN: &str = "Frozen";
    /// A repair was carried out three times and did not hold.
    pub const NOT_CONVERGING: &str = "NotConverging";
    /// A service is OOM-killed whenever it starts, and nothing is left that would help by itself.
    pub const OUT_OF_MEMORY: &str = "OutOfMemory";
    /// A service would begin without the data that it had.
    pub const DATA_WOULD_BE_LEFT: &str = "DataWouldBeLeft";
    /// What the operator keeps on the host is gone, though it was there.
    pub const LEDGER_MISSING: &str = "LedgerMissing";
    /// Another operator writes on the same host again and again.
    pub const OTHER_WRITER: &str = "OtherWriter";
    /// A defect of the operator itself ended a check.
    pub const INTERNAL_ERROR: &str = "InternalError";
    /// A change waits until a window opens.
    pub const WINDOW_CLOSED: &str = "WindowClosed";
    /// What was rolled out did not serve, and was taken back.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// What was rolled out did not serve, and was left for a person to look at.
    pub const ROLLOUT_HELD: &str = "RolloutHeld";
    /// Another writer holds the host's lock.
    pub const LOCKED: &str = "Locked";
    /// It is not known whether this operator is the one that acts: it repairs, and begins nothing.
    pub const LEADERSHIP_UNKNOWN: &str = "LeadershipUnknown";
    /// The source has an older spec than one that was carried out before, as after a restore.
    pub const SPEC_WENT_BACK: &str = "SpecWentBack";
    /// What an annotation asks for cannot be done.
    pub const REQUEST_REFUSED: &str = "RequestRefused";
    /// Writing to the host failed.
    pub const APPLY_FAILED: &str = "ApplyFailed";
    /// What a rollout needs on the host is not there.
    pub const PREFLIGHT_FAILED: &str = "PreflightFailed";
    /// Images are on their way to a host.
    pub const PULLING_IMAGES: &str = "PullingImages";
    /// A registry does not answer.
    pub const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
    /// A registry does not accept the login.
    pub const REGISTRY_DENIED: &str = "RegistryDenied";
    /// What a registry sends is not what its digest says.
    pub const DIGEST_MISMATCH: &str = "DigestMismatch";
    /// A hook of a rollout did not succeed.
    pub const HOOK_FAILED: &str = "HookFailed";
}
