"""Runs code under bubblewrap's namespaces and a seccomp filter of libseccomp: the default sandbox.

The guest sees an interpreter, the system's libraries, 64 MB of memory to write to, ``/dev/null`` and ``/dev/urandom``.
It has no network, no /proc, no home, no environment, and sees no other process. The filter refuses a second process
(threads are allowed), sockets, and the system calls through which kernels are attacked. The sandbox does not protect
from a hole in the kernel itself (a virtual machine does), and does not hide the speed of the machine.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

from verl_rsim.reward.sandbox.base import Sandbox, SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.local import (
    NOBODY_UID,
    FileDescriptors,
    LocalSandbox,
    Program,
    SandboxProcess,
    SupervisedProcess,
    readable_interpreter,
    unprivileged_prefix,
)

SYSTEM_PATHS = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/etc/ld.so.cache")
REFUSED_SYSCALLS = """
    fork vfork ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd pidfd_send_signal socket bind
    connect listen accept accept4 unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig
    fsmount fspick memfd_create userfaultfd bpf perf_event_open io_uring_setup io_uring_enter io_uring_register
    keyctl add_key request_key shmget shmat msgget semget mq_open name_to_handle_at open_by_handle_at fanotify_init
    quotactl acct swapon swapoff reboot syslog personality init_module finit_module delete_module kexec_load
    kexec_file_load settimeofday clock_settime adjtimex sethostname setdomainname vhangup lookup_dcookie move_pages
    migrate_pages mbind set_mempolicy
"""
NAMESPACES_FORBIDDEN = """
This machine or container forbids user namespaces. Allow them (sysctl kernel.unprivileged_userns_clone=1 and
kernel.apparmor_restrict_unprivileged_userns=0; docker: a seccomp profile with unshare and mount) or use another
back-end."""
CLONE_THREAD, AF_UNIX = 0x00010000, 1


def seccomp_filter() -> bytes:
    """Returns the seccomp filter as a BPF program for this machine's architecture.

    A process that makes a call of another architecture (32-bit calls on x86-64) is killed.

    Raises:
        SandboxError: libseccomp is missing, or too old to know a call that must be refused.
    """
    try:
        import pyseccomp as seccomp
    except (ImportError, RuntimeError) as error:
        raise SandboxError(f"{error}: install pyseccomp, and libseccomp (Debian: libseccomp2)") from error
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    refuse = seccomp.ERRNO(errno.EPERM)
    try:
        for call in REFUSED_SYSCALLS.split():
            rules.add_rule(refuse, call)
        # clone is needed for threads, so it is refused only without CLONE_THREAD: that would be a second process.
        rules.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))
        rules.add_rule(refuse, "socketpair", seccomp.Arg(0, seccomp.NE, AF_UNIX))  # asyncio needs the unix kind
        # clone3 takes its flags through a pointer, which a filter cannot follow. ENOSYS makes libc fall back to clone.
        rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
        with os.fdopen(os.memfd_create("filter"), "w+b") as file:
            rules.export_bpf(file)
            file.seek(0)
            return file.read()
    except OSError as error:
        raise SandboxError(f"libseccomp is too old for this filter ({error}): install 2.5 or later") from error


class Bubblewrap(LocalSandbox):
    """Runs programs under bubblewrap 0.8 or later.

    Args:
        limits: resource limits of one grading.
        python: the guest's interpreter; by default the running one if the guest's user may read it, else the system's.
    """

    def __init__(self, limits: SandboxLimits, python: str | None = None):
        super().__init__(limits)
        self._bwrap = shutil.which("bwrap") or ""
        if not self._bwrap:
            raise SandboxError("bwrap is not installed: install bubblewrap (Debian, Fedora, Arch: bubblewrap)")
        self._filter = seccomp_filter()
        self._python = python or readable_interpreter()

    def rlimits(self) -> dict[str, int]:
        """Returns the limits that a guest process sets itself, with the number of threads among them."""
        # NPROC counts all processes of a user. Only a user namespace of its own makes that the guest's alone.
        return {**super().rlimits(), "NPROC": self.limits.threads}

    def probe(self) -> Sandbox:
        """Runs one small program and returns the sandbox itself; on failure the error quotes bubblewrap's message."""
        try:
            return super().probe()
        except SandboxError as error:
            with FileDescriptors() as fds:
                program, rules = Program(fds.file("pass"), False), fds.file(self._filter)
                command = [*self._prefix(rules), *program.command(self._python)]
                done = subprocess.run(
                    command, capture_output=True, text=True, pass_fds=(program.fd, rules), timeout=60, check=False
                )
            message = done.stderr.strip() or str(error)
            if "amespace" in message or "ermission" in message:
                message += NAMESPACES_FORBIDDEN
            raise SandboxError(message) from error

    @cached_property
    def _mounts(self) -> list[str]:
        options: list[str] = []
        for path in dict.fromkeys([*SYSTEM_PATHS, self._python, *_stdlib_folder(self._python)]):
            if os.path.exists(path):
                options += _mount_options(path)
        return options

    def _prefix(self, rules: int) -> list[str]:
        # As root, privileges are dropped first: a namespace that root makes maps the guest's user back to root.
        # --die-with-parent and --unshare-pid (of --unshare-all): the death of this process, or of the first guest
        # process, ends them all. --new-session: without it the guest could type into the caller's terminal.
        return [
            *unprivileged_prefix(),
            self._bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(NOBODY_UID),
            "--gid", str(NOBODY_UID), "--cap-drop", "ALL", "--die-with-parent", "--new-session",
            "--hostname", "sandbox", "--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8",
            *self._mounts,
            *("--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"),
            "--size", str(self.limits.file_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/",
            "--seccomp", str(rules),
        ]  # fmt: skip

    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> SandboxProcess:
        """Starts bubblewrap, which starts the interpreter."""
        with FileDescriptors() as fds:
            rules = fds.file(self._filter)
            status, status_writer = fds.pipe()
            command = [*self._prefix(rules), "--json-status-fd", str(status_writer), *program.command(self._python)]
            process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=(program.fd, rules, status_writer)
            )
            return SupervisedProcess(process, os.dup(status))


def _mount_options(path: str) -> list[str]:
    return ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]


def _stdlib_folder(python: str) -> list[str]:
    """Returns the folder of the standard library of an interpreter that is not the system's."""
    prefix = Path(python).parent.parent
    return [] if prefix == Path("/usr") else [str(prefix / "lib")]
