//! Whether releases are stores or exchanges, and what a process must be able to do for it.

mod support;

use crosslock::crosslock_core::RobustOps;
use crosslock::{Error, Options, Release};
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
use support::forked;

/// From now on this process has no `membarrier`.
fn forbid_membarrier() {
    const fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        #[expect(clippy::cast_possible_truncation, reason = "the codes are small")]
        return libc::sock_filter { code: code as u16, jt, jf, k };
    }
    let (load, equal, give) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET,
    );
    let number = u32::try_from(libc::SYS_membarrier).unwrap();
    let mut filter = [
        statement(load, 0, 0, 0),
        statement(equal, 0, 1, number),
        statement(give, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        statement(give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: restricts this process only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is a valid one.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn the_kind_of_release_is_the_segments() {
    let kind = |segment: &crosslock::Segment| segment.context().unwrap().has_heavy_barrier();
    for (release, by_store) in [(Release::Store, true), (Release::Exchange, false)] {
        let segment = Options::new().release(release).create_memfd("release").unwrap();
        assert_eq!(kind(&segment), by_store);
        assert_eq!(kind(&crosslock::Segment::from_fd(segment.descriptor().unwrap()).unwrap()), by_store);
        segment.context().unwrap().heavy_barrier();
    }
    let has_barrier = membarrier_query().contains_command(MembarrierCommand::GlobalExpedited);
    assert_eq!(kind(&Options::new().create_memfd("release").unwrap()), has_barrier);
}

#[test]
fn without_membarrier_a_segment_that_needs_it_is_refused() {
    let segment = Options::new().release(Release::Store).create_memfd("store").unwrap();
    let other = Options::new().release(Release::Exchange).create_memfd("exchange").unwrap();
    assert!(forked(|| {
        forbid_membarrier();
        let refused = crosslock::Segment::from_fd(segment.descriptor().unwrap()).unwrap_err();
        let text = refused.to_string();
        let opened = crosslock::Segment::from_fd(other.descriptor().unwrap()).unwrap();
        let created = Options::new().create_memfd("default").unwrap();
        matches!(refused, Error::NoBarrier { .. })
            && text.contains("create the segment with Release::Exchange")
            && !opened.context().unwrap().has_heavy_barrier()
            && !created.context().unwrap().has_heavy_barrier()
    }));
}

/// The child of a fork attaches nothing anew, so it must be registered already.
#[test]
fn a_forked_child_takes_part_in_barriers() {
    const GET_REGISTRATIONS: i32 = 1 << 9;

    // SAFETY: asks what this process has registered for.
    let registered = || unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0, 0) };
    let segment = Options::new().release(Release::Store).create_memfd("fork").unwrap();
    let expected = MembarrierCommand::GlobalExpedited as libc::c_long;
    let by_register = MembarrierCommand::RegisterGlobalExpedited as libc::c_long;
    if registered() == -1 {
        eprintln!("skipped: this kernel cannot be asked (before 6.3)");
        return;
    }
    assert_ne!(registered() & (expected | by_register), 0);
    assert!(forked(|| {
        segment.context().unwrap().heavy_barrier();
        registered() & (expected | by_register) != 0 && membarrier(MembarrierCommand::GlobalExpedited).is_ok()
    }));
}
