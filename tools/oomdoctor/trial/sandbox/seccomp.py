"""The system calls that a run may not make, whatever library makes them. A filter of this process, for good.

Built to fail closed where it can: another architecture's calls kill the process, and calls newer than this file do not
exist for it.
"""

from __future__ import annotations

import ctypes
import errno

from oomdoctor.trial.sandbox import bpf, kernel
from oomdoctor.trial.sandbox.bpf import ALLOW, ERRNO, KILL, Instruction
from oomdoctor.trial.sandbox.syscalls import AUDIT_ARCH, NEWEST, number

SET_MODE_FILTER = 1
FLAG_TSYNC = 1
X32 = 0x40000000
CLONE_THREAD = 0x00010000
ACCESS_MODES, TRUNCATES = 0o3, 0o1000

REFUSED, MISSING, PRETENDED = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS, ERRNO
NOT_A_TERMINAL = ERRNO | errno.ENOTTY

NETWORK = ("socket", "connect", "bind", "listen", "accept", "accept4", "sendmsg", "sendmmsg")
PROCESSES = ("execve", "execveat", "fork", "vfork")
ALWAYS = (
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_open", "pidfd_getfd",
    "pidfd_send_signal", "tkill", "kcmp", "setpriority", "ioprio_set", "sched_setscheduler", "sched_setattr",
    "sched_setparam", "migrate_pages", "move_pages", "mount", "umount2", "pivot_root", "chroot", "unshare", "setns",
    "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "keyctl", "add_key",
    "request_key", "bpf", "perf_event_open", "userfaultfd", "init_module", "finit_module", "delete_module",
    "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "quotactl", "quotactl_fd", "acct", "settimeofday",
    "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "name_to_handle_at",
    "open_by_handle_at", "iopl", "ioperm", "modify_ldt", "personality", "fanotify_init", "syslog", "vhangup",
    "shmget", "shmat", "msgget", "semget", "mq_open", "setsid", "setpgid", "lsm_set_self_attr",
)  # fmt: skip
ABSENT = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3")
"""Answered as by a kernel that does not have them: libraries then use what they used before."""
ATTRIBUTES = (
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat", "setxattr", "lsetxattr",
    "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "utime", "utimes", "futimesat", "utimensat",
)  # fmt: skip
"""Landlock does not cover these. They seem to succeed, so that copying a file into the scratch folder works."""

TERMINAL_QUESTIONS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""ioctls that only ask, or that concern the descriptor itself: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIO(N)CLEX."""
OWNER_COMMANDS = (8, 10, 15)
"""fcntl F_SETOWN, F_SETSIG, F_SETOWN_EX: with these a pipe sends signals to any process of the user."""
PDEATHSIG = 1


class SockFprog(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def program(
    arch: str, pid: int, *, network: bool = False, processes: bool = False, old_landlock: bool = False
) -> list[Instruction]:
    """The filter for a process ``pid``. ``network`` and ``processes`` leave these allowed.

    ``old_landlock``: the kernel's Landlock (before ABI 3) does not see truncation, so it is refused here.
    """
    out = [bpf.load(bpf.ARCH), Instruction(bpf.EQUAL, 1, 0, AUDIT_ARCH[arch]), bpf.leave(KILL), bpf.load(bpf.NUMBER)]
    if arch == "x86_64":
        out += [Instruction(bpf.AT_LEAST, 0, 1, X32), bpf.leave(KILL)]
    out += [Instruction(bpf.ABOVE, 0, 1, NEWEST), bpf.leave(MISSING)]

    def rule(names: tuple[str, ...] | str, *body: Instruction) -> None:
        for name in (names,) if isinstance(names, str) else names:
            n = number(name, arch)
            if n is not None:
                out.extend(bpf.when(n, list(body)))

    rule(ALWAYS, bpf.leave(REFUSED))
    rule(ATTRIBUTES, bpf.leave(PRETENDED))
    if not network:
        rule(NETWORK, bpf.leave(REFUSED))
        # A pair of connected sockets may talk; an address would reach a socket of somebody else.
        rule("sendto", *_only_if(4, 0), *_only_if(4, 0, high=True), bpf.leave(ALLOW))
    if not processes:
        rule(PROCESSES, bpf.leave(REFUSED))
        rule(
            "clone", bpf.load(bpf.argument(0)), bpf.mask(CLONE_THREAD), *_equal_or_leave(CLONE_THREAD), bpf.leave(ALLOW)
        )
    rule(ABSENT, bpf.leave(MISSING))
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        rule(name, *_only_if(0, pid), bpf.leave(ALLOW))
    rule("sched_setaffinity", *_only_if(0, 0), bpf.leave(ALLOW))
    rule("prlimit64", bpf.load(bpf.argument(0)), *_equal_to_any((0, pid)), bpf.leave(REFUSED), bpf.leave(ALLOW))
    rule("prctl", bpf.load(bpf.argument(0)), bpf.unless_equal(PDEATHSIG, 1), bpf.leave(REFUSED), bpf.leave(ALLOW))
    rule(
        "ioctl",
        bpf.load(bpf.argument(1)), *_equal_to_any(TERMINAL_QUESTIONS), bpf.leave(NOT_A_TERMINAL), bpf.leave(ALLOW),
    )  # fmt: skip
    rule(
        "fcntl",
        bpf.load(bpf.argument(1)), *_equal_to_any(OWNER_COMMANDS), bpf.leave(ALLOW), bpf.leave(REFUSED),
    )  # fmt: skip
    if old_landlock:
        rule("truncate", bpf.leave(REFUSED))
        rule("openat2", bpf.leave(MISSING))
        rule("open", *_no_truncation(1))
        rule("openat", *_no_truncation(2))
    out.append(bpf.leave(ALLOW))
    return out


def _only_if(index: int, value: int, high: bool = False) -> list[Instruction]:
    return [bpf.load(bpf.argument(index, high)), *_equal_or_leave(value)]


def _equal_or_leave(value: int) -> list[Instruction]:
    return [Instruction(bpf.EQUAL, 1, 0, value), bpf.leave(REFUSED)]


def _equal_to_any(values: tuple[int, ...]) -> list[Instruction]:
    """Jumps over the instruction after these when the loaded word is one of ``values``."""
    return [Instruction(bpf.EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]


def _no_truncation(index: int) -> list[Instruction]:
    """Opening for reading must not empty the file."""
    return [
        bpf.load(bpf.argument(index)),
        bpf.mask(ACCESS_MODES | TRUNCATES),
        bpf.unless_equal(TRUNCATES, 1),
        bpf.leave(REFUSED),
        bpf.leave(ALLOW),
    ]


def install(filter_program: list[Instruction], arch: str) -> None:
    """Put the filter on all threads of this process. Raises OSError where the kernel refuses."""
    code = bpf.assemble(filter_program)
    buffer = ctypes.create_string_buffer(code, len(code))
    prog = SockFprog(len(filter_program), ctypes.addressof(buffer))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    call = number("seccomp", arch)
    assert call is not None
    result = kernel.syscall(call, SET_MODE_FILTER, FLAG_TSYNC, ctypes.addressof(prog))
    if result != 0:
        raise OSError(errno.ESRCH, f"thread {result} cannot take the filter")


def available() -> bool:
    """Whether the kernel has filters; asked without side effects."""
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail") as file:
            return "errno" in file.read().split()
    except OSError:
        try:
            with open("/proc/self/status") as status:
                return any(line.startswith("Seccomp:") for line in status)
        except OSError:
            return False
