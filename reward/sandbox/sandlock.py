"""The sandbox for where bubblewrap cannot be had: sandlock, Landlock and seccomp from PyPI alone (Linux 6.12 or later).

Weaker than bubblewrap: the host's process numbers are seen, a netlink socket can be opened, threads are limited by
memory alone, and there is no place to write, not even a private one. The other attacks of the tests on files,
network, signals and processes fail here too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

from verl_rsim.reward.sandbox.base import SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.local import (
    Descriptors,
    LocalSandbox,
    Process,
    Program,
    Supervised,
    become_nobody,
    readable_interpreter,
)

# A supervisor of its own, since sandlock's processes get the standard streams of the process that starts them and no
# other descriptor: it copies the program into a file. As the first process inside it is its own group's leader.
SUPERVISE = """
import json, os, sys, tempfile
site, policy, program, status, *command = sys.argv[1:]
sys.path.insert(0, site)
import sandlock
with tempfile.NamedTemporaryFile() as file, open(int(status), "w") as tell:
    with open(int(program), "rb") as source:
        file.write(source.read())
    file.flush()
    policy = json.loads(policy)
    policy["fs_readable"].append(file.name)
    process = sandlock.Sandbox(**policy).popen([part.replace("PROGRAM", repr(file.name)) for part in command])
    print(json.dumps({"child-pid": process.pid}), file=tell, flush=True)
    result = process.wait()
    code = result.exit_code if result.exit_code >= 0 else 128 + max(result.signal, 0)
    print(json.dumps({"exit-code": code}), file=tell, flush=True)
"""


class Sandlock(LocalSandbox):
    """Programs under sandlock."""

    def __init__(self, limits: SandboxLimits):
        super().__init__(limits)
        found = importlib.util.find_spec("sandlock")
        if found is None or found.origin is None:
            raise SandboxError("sandlock is not installed: pip install sandlock (Linux 6.12 or later)")
        self._site = str(Path(found.origin).parent.parent)
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

    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> Process:
        """Start the supervisor, which starts the interpreter."""
        with Descriptors() as own:
            status, tell = own.pipe()
            supervisor = [*become_nobody(), self._python, "-I", "-S", "-B", "-c", SUPERVISE]
            arguments = [self._site, self._policy, str(program.fd), str(tell)]
            command = [*supervisor, *arguments, *program.command(self._python, "PROGRAM")]
            fds = (program.fd, tell)
            process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=fds, env={})
            return Supervised(process, os.dup(status))
