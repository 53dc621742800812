"""Runs code under bubblewrap's namespaces and a seccomp filter of libseccomp: the default sandbox.

The guest sees an interpreter, the system's libraries, 64 MB of memory to write to, ``/dev/null`` and ``/dev/urandom``.
It has no network, no /proc, no home, no environment, and sees no other process. The filter refuses a second process
(threads are allowed), sockets, and the system calls through which kernels are attacked. The sandbox does not protect
from a hole in the kernel itself (a virtual machine does), and does not hide the speed of the machine.

The cases of a program that reads stdin share one sandbox, whose first process forks for each of them; how they are kept
apart is described in :mod:`verl_rsim.reward.sandbox.guest_cases`.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Generator, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from verl_rsim.reward.sandbox.base import ProgramResult, Sandbox, SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.case_server import CaseServer
from verl_rsim.reward.sandbox.descriptors import FileDescriptors
from verl_rsim.reward.sandbox.guest_cases import PID_PLACEHOLDER
from verl_rsim.reward.sandbox.local import (
    NOBODY_UID,
    LocalSandbox,
    Program,
    SandboxProcess,
    SupervisedProcess,
    readable_interpreter,
    unprivileged_prefix,
)

SYSTEM_PATHS = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/etc/ld.so.cache")
FORK_SYSCALLS = "fork vfork"
REFUSED_SYSCALLS = """
    ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd pidfd_send_signal socket bind
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
PR_SET_PDEATHSIG, PR_SCHED_CORE = 1, 62
F_SETOWN, F_SETSIG, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP = 8, 10, 15, 0x8901, 0x8902
# Calls that reach another process of the same user, by the position of the argument that names it and the one value
# allowed there. A case could otherwise stop the process that starts the next cases, or leave a mark on it.
OWN_PROCESS_CALLS = (
    *((call, 0, PID_PLACEHOLDER) for call in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")),
    *((call, 0, 0) for call in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam")),
    ("sched_setattr", 0, 0),
    ("setpriority", 0, 0),
    ("setpriority", 1, 0),
)


def seccomp_filter(may_fork: bool = False, own_process_only: bool = False) -> bytes:
    """Returns the seccomp filter as a BPF program for this machine's architecture.

    A process that makes a call of another architecture (32-bit calls on x86-64) is killed.

    Args:
        may_fork: allow a second process, for the process that starts the cases of a program and runs no foreign code.
        own_process_only: refuse to signal, limit or schedule other processes, for the cases of a program. The program
            contains ``PID_PLACEHOLDER`` for the id of the process that will install it.

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
        if not may_fork:
            for call in FORK_SYSCALLS.split():
                rules.add_rule(refuse, call)
            # clone is needed for threads, so it is refused only without CLONE_THREAD: that would be a second process.
            rules.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))
        if own_process_only:
            _refuse_other_processes(seccomp, rules, refuse)
        # The guest's first process must stay bound to the death of the one that grades.
        rules.add_rule(refuse, "prctl", seccomp.Arg(0, seccomp.EQ, PR_SET_PDEATHSIG))
        rules.add_rule(refuse, "socketpair", seccomp.Arg(0, seccomp.NE, AF_UNIX))  # asyncio needs the unix kind
        # clone3 takes its flags through a pointer, which a filter cannot follow. ENOSYS makes libc fall back to clone.
        rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
        with os.fdopen(os.memfd_create("filter"), "w+b") as file:
            rules.export_bpf(file)
            file.seek(0)
            return file.read()
    except OSError as error:
        raise SandboxError(f"libseccomp is too old for this filter ({error}): install 2.5 or later") from error


def _refuse_other_processes(seccomp: ModuleType, rules: Any, refuse: int) -> None:
    """Adds the rules that refuse calls which reach another process."""
    for call, position, allowed in OWN_PROCESS_CALLS:
        rules.add_rule(refuse, call, seccomp.Arg(position, seccomp.NE, allowed))
    for call in ("tkill", "ioprio_set"):
        rules.add_rule(refuse, call)
    # A descriptor's owner gets signals when it becomes ready, and may be any process.
    for command in (F_SETOWN, F_SETSIG, F_SETOWN_EX):
        rules.add_rule(refuse, "fcntl", seccomp.Arg(1, seccomp.EQ, command))
    for request in (FIOSETOWN, SIOCSPGRP):
        rules.add_rule(refuse, "ioctl", seccomp.Arg(1, seccomp.EQ, request))
    rules.add_rule(refuse, "prctl", seccomp.Arg(0, seccomp.EQ, PR_SCHED_CORE))


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
        self._forking_filter, self._case_filter = seccomp_filter(may_fork=True), seccomp_filter(own_process_only=True)
        self._python = python or readable_interpreter()

    def rlimits(self) -> dict[str, int]:
        """Returns the limits that a guest process sets itself, with the number of threads among them."""
        # NPROC counts all processes of a user. Only a user namespace of its own makes that the guest's alone.
        return {**super().rlimits(), "NPROC": self.limits.threads}

    def probe(self) -> Sandbox:
        """Runs one small program and returns the sandbox itself; on failure the error quotes bubblewrap's message."""
        try:
            super().probe()
            self._probe_case_filter()
            return self
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

    def _probe_case_filter(self) -> None:
        """Raises SandboxError if a case can start a process or signal the one that starts the cases."""
        program = (
            "import os\nfor call in (os.fork, lambda: os.kill(1, 0), lambda: os.setpriority(0, 1, 1)):\n"
            "    try: print(call())\n    except PermissionError: print('refused')"
        )
        (done,) = self.run_cases(program, (), [""])
        if done.output != b"refused\n" * 3:
            raise SandboxError(f"the filter of a program's cases does not hold: {done}")

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
        # --as-pid-1: bubblewrap's own first process would outlive the one that started it by a moment, and remain as a
        # zombie of whatever process reaps orphans here, which in containers often reaps none.
        return [
            *unprivileged_prefix(),
            self._bwrap, "--unshare-all", "--unshare-user", "--as-pid-1", "--disable-userns", "--uid", str(NOBODY_UID),
            "--gid", str(NOBODY_UID), "--cap-drop", "ALL", "--die-with-parent", "--new-session",
            "--hostname", "sandbox", "--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8",
            *self._mounts,
            *("--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"),
            "--size", str(self.limits.file_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/",
            "--seccomp", str(rules),
        ]  # fmt: skip

    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> SandboxProcess:
        """Starts bubblewrap, which starts the interpreter."""
        return self._start(self._filter, program, stdin, stdout, stderr)

    def _start(self, rules: bytes, program: Program, stdin: int, stdout: int, stderr: int) -> SandboxProcess:
        with FileDescriptors() as fds:
            rules_fd = fds.file(rules)
            status, status_writer = fds.pipe()
            command = [*self._prefix(rules_fd), "--json-status-fd", str(status_writer), *program.command(self._python)]
            process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=(program.fd, rules_fd, status_writer)
            )
            return SupervisedProcess(process, os.dup(status))

    def run_cases(
        self, source: str, imports: Sequence[str], inputs: Sequence[str]
    ) -> Generator[ProgramResult, None, None]:
        """Runs a program once for each input, in one sandbox as long as the cases leave it as they found it."""
        call = f"serve_cases({source!a}, {list(imports)!a}, {self._case_limits()}, {self._case_filter!a})"
        left, server = self.limits.program_seconds, None
        try:
            for stdin in inputs:
                if server is None or not server.usable:
                    server = CaseServer(partial(self._start_server, call), self.limits)
                result = server.run(stdin, min(left, self.limits.wall_seconds))
                left -= result.seconds
                yield result
        finally:
            if server is not None:
                server.close()

    def _case_limits(self) -> dict[str, int]:
        limits = self.rlimits()
        return {**limits, "NPROC": limits["NPROC"] + 1}  # the process that starts the cases counts as well

    def _start_server(self, call: str, stdin: int) -> SandboxProcess:
        with FileDescriptors() as fds:
            null = fds.null()
            return self._start(self._forking_filter, self._program(fds, call), stdin, null, null)


def _mount_options(path: str) -> list[str]:
    return ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]


def _stdlib_folder(python: str) -> list[str]:
    """Returns the folder of the standard library of an interpreter that is not the system's."""
    prefix = Path(python).parent.parent
    return [] if prefix == Path("/usr") else [str(prefix / "lib")]
