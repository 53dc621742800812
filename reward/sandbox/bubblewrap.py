"""The default sandbox: bubblewrap's namespaces and a seccomp filter of libseccomp.

Inside there is an interpreter, the system's libraries, 64 MB of memory to write to, ``/dev/null`` and nothing else: no
network, no /proc, no home, no environment, no other process. The filter refuses a second process (threads are fine),
sockets, and the calls through which kernels are attacked. It does not protect from a hole in the kernel itself, and
does not hide how fast the machine is; a virtual machine does the one, nothing here the other.

Run as root it first becomes ``nobody``, for a namespace made by root maps back to root.
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
    NOBODY,
    Descriptors,
    LocalSandbox,
    Process,
    Program,
    Supervised,
    become_nobody,
    readable_interpreter,
)

SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/etc/ld.so.cache")
REFUSED = """
    fork vfork ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd pidfd_send_signal socket bind
    connect listen accept accept4 unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig
    fsmount fspick memfd_create userfaultfd bpf perf_event_open io_uring_setup io_uring_enter io_uring_register
    keyctl add_key request_key shmget shmat msgget semget mq_open name_to_handle_at open_by_handle_at fanotify_init
    quotactl acct swapon swapoff reboot syslog personality init_module finit_module delete_module kexec_load
    kexec_file_load settimeofday clock_settime adjtimex sethostname setdomainname vhangup lookup_dcookie move_pages
    migrate_pages mbind set_mempolicy
"""
FORBIDDEN = """
This machine or container forbids user namespaces. Allow them (sysctl kernel.unprivileged_userns_clone=1 and
kernel.apparmor_restrict_unprivileged_userns=0; docker: a seccomp profile with unshare and mount) or use another
back-end."""
CLONE_THREAD, AF_UNIX = 0x00010000, 1


def seccomp_filter() -> bytes:
    """The filter as the kernel reads it, for this machine's architecture; calls of any other are killed.

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
        for call in REFUSED.split():
            rules.add_rule(refuse, call)
        rules.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))
        rules.add_rule(refuse, "socketpair", seccomp.Arg(0, seccomp.NE, AF_UNIX))  # asyncio needs the unix kind
        rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags are out of a filter's sight; libc falls back
        with os.fdopen(os.memfd_create("filter"), "w+b") as file:
            rules.export_bpf(file)
            file.seek(0)
            return file.read()
    except OSError as error:
        raise SandboxError(f"libseccomp is too old for this filter ({error}): install 2.5 or later") from error


class Bubblewrap(LocalSandbox):
    """Programs under bubblewrap 0.8 or later.

    Args:
        limits: what one grading may use.
        python: the interpreter inside; by default this one's, if the user inside may read it, else the system's.
    """

    def __init__(self, limits: SandboxLimits, python: str | None = None):
        super().__init__(limits)
        self._bwrap = shutil.which("bwrap") or ""
        if not self._bwrap:
            raise SandboxError("bwrap is not installed: install bubblewrap (Debian, Fedora, Arch: bubblewrap)")
        self._filter = seccomp_filter()
        self._python = python or readable_interpreter()

    def inside(self) -> dict[str, int]:
        """Threads are counted in the namespace, so that a limit can be set."""
        return {**super().inside(), "NPROC": self.limits.threads}

    def probed(self) -> Sandbox:
        """Itself, if it can run a program; else the error says what bubblewrap said."""
        try:
            return super().probed()
        except SandboxError as error:
            with Descriptors() as own:
                program, rules = Program(own.file("pass"), False), own.file(self._filter)
                command = [*self._prefix(rules), *program.command(self._python)]
                done = subprocess.run(
                    command, capture_output=True, text=True, pass_fds=(program.fd, rules), timeout=60, check=False
                )
            said = done.stderr.strip() or str(error)
            forbidden = "amespace" in said or "ermission" in said
            raise SandboxError(said + FORBIDDEN * forbidden) from error

    @cached_property
    def _mounts(self) -> list[str]:
        binds = dict.fromkeys([*SYSTEM, self._python, *_library(self._python)])
        return [part for path in binds if os.path.exists(path) for part in _mount(path)]

    def _prefix(self, rules: int) -> list[str]:
        return [
            *become_nobody(),
            self._bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(NOBODY),
            "--gid", str(NOBODY), "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--hostname", "sandbox",
            "--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8",
            *self._mounts,
            *("--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"),
            "--size", str(self.limits.file_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/",
            "--seccomp", str(rules),
        ]  # fmt: skip

    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> Process:
        """Start bubblewrap, which starts the interpreter."""
        with Descriptors() as own:
            rules = own.file(self._filter)
            status, tell = own.pipe()
            command = [*self._prefix(rules), "--json-status-fd", str(tell), *program.command(self._python)]
            process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=(program.fd, rules, tell)
            )
            return Supervised(process, os.dup(status))


def _mount(path: str) -> list[str]:
    return ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]


def _library(python: str) -> list[str]:
    """Where an interpreter that is not the system's keeps its modules."""
    prefix = Path(python).parent.parent
    return [] if prefix == Path("/usr") else [str(prefix / "lib")]
