"""Runs inside a sandbox: serves the cases of one program that reads stdin, each in a process of its own.

The text of this file follows that of :mod:`verl_rsim.reward.sandbox.guest_program`. Starting a sandbox with its
interpreter takes some 20 ms, so one sandbox serves all cases: this process never runs foreign code and forks for each
case. It alone may fork, by these rules:

- The seccomp filter of the sandbox allows fork here. Before a child touches the program it installs the strict filter,
  which no process can remove and which refuses a second process, and says so to this process. A child without the
  filter runs nothing, which is an error of the sandbox and no verdict.
- A child has the stdin and stdout of its case, a stderr of its own and no further descriptor. Descriptors that two
  cases share would carry state from one to the next (an offset, a flag).
- The strict filter also refuses to signal, limit or schedule another process: a case could otherwise leave such a mark
  on this process, which later cases inherit.
- If a case has changed the one folder that it may write to, the sandbox is not used again.
- The expected outputs never enter the sandbox, and the input of a case enters it with the case.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import sys

from verl_rsim.reward.sandbox.guest_program import new_main, run_main, set_rlimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

PID_PLACEHOLDER = 0x7EAD0001
"""Process id in the strict filter, replaced by that of the child: libseccomp runs outside, where it is not known."""
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


def serve_cases(source: str, imports: list[str], limits: dict[str, int], strict_filter: bytes) -> NoReturn:
    """Runs the program once for each message on the socket that is this process's stdin.

    A message is one byte with two descriptors: the stdin and the stdout of a case. The answer is a line with the exit
    code (128 + N for signal N) and 1 if the sandbox can serve another case. The first answer, before any message, says
    that the sandbox is ready.
    """
    import _ctypes  # noqa: F401  in the parent, so that no child has to load it
    import _socket  # not socket, which takes longer to import than the interpreter takes to start

    control = _socket.socket(fileno=os.dup(0))
    globals()["file"].close()  # this program's own text, opened by the command line: children must not share it
    main = new_main(imports)
    gc.freeze()  # the objects so far are no garbage: without this each child would visit, and so copy, all of them
    unchanged = _folder_state()
    control.send(b"ready")
    while True:
        message, ancillary, _, _ = control.recvmsg(1, _socket.CMSG_SPACE(8))
        if not message:
            os._exit(0)
        fds = ancillary[0][2]
        stdin, stdout = (int.from_bytes(fds[i : i + 4], sys.byteorder) for i in (0, 4))
        filtered, filtered_writer = os.pipe()
        child = os.fork()
        if child == 0:
            control.detach()
            _isolate(stdin, stdout, filtered_writer, strict_filter)
            set_rlimits(limits)
            _run_case(main, source)
        for fd in (stdin, stdout, filtered_writer):
            os.close(fd)
        is_filtered = os.read(filtered, 1)  # not an exit code, which the program could forge
        os.close(filtered)
        _, status = os.waitpid(child, 0)
        if not is_filtered:
            control.send(b"unfiltered\n")
            os._exit(1)
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        control.send(b"%d %d\n" % (code, _folder_state() == unchanged))


def _isolate(stdin: int, stdout: int, filtered: int, strict_filter: bytes) -> None:
    """Turns a child into the process of one case: its own streams, session and filter, and nothing else."""
    os.setsid()
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.dup2(filtered, 3)
    os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    # New objects: those of the parent remember that its stdin was a socket, which cannot seek.
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout)
    own_pid = os.getpid().to_bytes(4, sys.byteorder)
    if _install_filter(strict_filter.replace(PID_PLACEHOLDER.to_bytes(4, sys.byteorder), own_pid)):
        os.write(3, b"1")
        os.close(3)
    else:
        os._exit(1)


def _install_filter(program: bytes) -> bool:
    """Installs a seccomp filter for good; returns True on success."""
    # _ctypes rather than ctypes, which takes longer to import than the interpreter takes to start. It passes an integer
    # as a C int, so the pointer in struct sock_fprog {unsigned short length; struct sock_filter *filter;} is written
    # into bytes, which are passed by address. The content of a bytes object begins after its header.
    import _ctypes

    address = id(program) + bytes.__basicsize__ - 1
    length = len(program) // 8
    fprog = length.to_bytes(2, sys.byteorder) + bytes(6) + address.to_bytes(8, sys.byteorder)
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    return _ctypes.call_function(prctl, (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0)) == 0


def _run_case(main: ModuleType, source: str) -> NoReturn:
    """Runs the program and ends the process as an interpreter does at the end of a program.

    The interpreter's own end takes five times as long as the fork, since it frees every object of the start. Here only
    what the program made is ended: its threads, its ``atexit`` functions, and its unwritten output.
    """
    code: object = 0
    try:
        run_main(main, source)
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001  model-written code raises anything
        code = 1
    if code is None:
        code = 0
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        main.__dict__.clear()  # files that the program left open write the rest of their content
        gc.collect()
        for stream in (sys.stdout, sys.__stdout__):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
    except BaseException:  # noqa: BLE001
        code = code or 120  # as the interpreter does if it cannot write the rest of the output
    os._exit(code & 0xFF if isinstance(code, int) else 1)


def _folder_state() -> tuple:
    """Returns what tells whether the writable folder was touched; its ctime cannot be set back."""
    state = os.stat(".")
    return os.listdir("."), state.st_mode, state.st_nlink, state.st_mtime_ns, state.st_ctime_ns
