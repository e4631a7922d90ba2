//! Cold threads give way: on a machine with few CPUs a snapshot takes what the stages leave.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "setpriority is a system call")
)]

/// How far the calling thread gives way to those of the pipeline.
const NICE: i32 = 10;

/// The calling thread runs when the others leave it a CPU. On Linux a priority is a thread's own;
/// elsewhere, and where the system says no, nothing changes.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: `setpriority` takes numbers only; 0 is the calling thread.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "a cold thread does not give way");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = NICE;
}
