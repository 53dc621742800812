"""Runs code under sandlock, for machines without bubblewrap: Landlock and seccomp from PyPI alone.

It needs Linux 6.12 or later. It is weaker than bubblewrap: the guest sees the host's process ids, can open a netlink
socket, has its threads limited by memory alone, and has no place to write at all. The other attacks of the tests on
files, network, signals and processes fail here too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

from verl_rsim.reward.sandbox.base import SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.descriptors import FileDescriptors
from verl_rsim.reward.sandbox.local import (
    LocalSandbox,
    Program,
    SandboxProcess,
    SupervisedProcess,
    readable_interpreter,
    unprivileged_prefix,
)

# A supervisor process of ours starts sandlock, because a guest of sandlock inherits the standard streams of the process
# that starts it and no other descriptor. For the same reason it copies the program into a file. It writes the same
# status lines as bubblewrap. The guest leads its own process group, and max_processes=1 keeps it alone there.
SUPERVISOR_SCRIPT = """
import json, os, sys, tempfile
site, policy, program, status, *command = sys.argv[1:]
sys.path.insert(0, site)
import sandlock
with tempfile.NamedTemporaryFile() as file, open(int(status), "w") as status_lines:
    with open(int(program), "rb") as source:
        file.write(source.read())
    file.flush()
    policy = json.loads(policy)
    policy["fs_readable"].append(file.name)
    process = sandlock.Sandbox(**policy).popen([part.replace("PROGRAM", repr(file.name)) for part in command])
    print(json.dumps({"child-pid": process.pid}), file=status_lines, flush=True)
    result = process.wait()
    code = result.exit_code if result.exit_code >= 0 else 128 + max(result.signal, 0)
    print(json.dumps({"exit-code": code}), file=status_lines, flush=True)
"""


class Sandlock(LocalSandbox):
    """Runs programs under sandlock."""

    def __init__(self, limits: SandboxLimits):
        super().__init__(limits)
        spec = importlib.util.find_spec("sandlock")
        if spec is None or spec.origin is None:
            raise SandboxError("sandlock is not installed: pip install sandlock (Linux 6.12 or later)")
        self._site = str(Path(spec.origin).parent.parent)
        self._python = readable_interpreter()
        readable = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom"]
        readable += [self._python, str(Path(self._python).parent.parent / "lib")]
        policy = {
            "fs_readable": [path for path in dict.fromkeys(readable) if os.path.exists(path)],
            "fs_writable": ["/dev/null"],
            "max_processes": 1,
            "extra_deny_syscalls": ["memfd_create"],
            "clean_env": True,
            "no_coredump": True,
            "cwd": "/usr/lib",
        }
        self._policy = json.dumps(policy)

    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> SandboxProcess:
        """Starts the supervisor, which starts the interpreter."""
        with FileDescriptors() as fds:
            status, status_writer = fds.pipe()
            supervisor = [*unprivileged_prefix(), self._python, "-I", "-S", "-B", "-c", SUPERVISOR_SCRIPT]
            arguments = [self._site, self._policy, str(program.fd), str(status_writer)]
            command = [*supervisor, *arguments, *program.command(self._python, "PROGRAM")]
            inherited = (program.fd, status_writer)
            process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=inherited, env={})
            return SupervisedProcess(process, os.dup(status))
