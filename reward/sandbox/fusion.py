"""Runs code in SandboxFusion, the service that verl's own code reward uses.

The service runs one program to its end and returns what it printed, so tests and solution cannot talk to each other
while they run. Their exchange is replayed instead:

1. The tests run with the replies known so far and stop at the first call without one. They also write which calls they
   would make next if that call failed (speculative calls), since most tests make the same calls whatever the replies.
2. The solution runs from the start with all calls so far, the speculative ones too, and replies to each.
3. A reply is kept if the next run of the tests makes the same call at the same place.

Most tests take three or four requests; tests in which each call depends on the reply before take two a call. Isolation
is the service's task. Memory is limited by the service as well as by the guest program.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

import httpx

from verl_rsim.reward.sandbox.base import (
    GRACE_SECONDS,
    ConnectedResult,
    ProgramResult,
    Sandbox,
    SandboxError,
    SandboxLimits,
    guest_source,
)
from verl_rsim.reward.sandbox.guest_program import MESSAGE_BYTES

MAX_ATTEMPTS = 3
MAX_SPECULATIVE_CALLS = 1000
"""Speculative calls in one request."""
SERVICE_SECONDS = 10.0
"""Seconds that a request may take beside the run itself."""


class FusionSandbox(Sandbox):
    """Runs programs in a SandboxFusion service.

    Args:
        limits: resource limits of one grading.
        url: URL of the endpoint, e.g. ``http://localhost:8080/run_code``.
    """

    def __init__(self, limits: SandboxLimits, url: str):
        super().__init__(limits)
        self._client = httpx.Client()
        self._url = url

    def run(self, call: str, stdin: str, seconds: float) -> ProgramResult:
        """Runs a program until it ends, or has it killed after ``seconds``."""
        started = time.monotonic()
        done = self._request(call, stdin, seconds)
        used, limit = time.monotonic() - started, self.limits.output_bytes
        return ProgramResult(done.output[:limit], done.code, done.timed_out, len(done.output) > limit, used)

    def run_connected(self, tests: str, solution: str, seconds: float) -> ConnectedResult:
        """Replays the tests until they make no call without a reply.

        A reply once given stays, even if a solution that draws at random would reply otherwise in the next run.

        Raises:
            SandboxError: the service failed, or the tests do not make the same calls each time.
        """
        deadline, speculative = time.monotonic() + seconds, MAX_SPECULATIVE_CALLS
        calls: list[bytes] = []
        replies: list[bytes] = []
        settled = 0  # calls that every further run of the tests must repeat, since their replies are known
        while True:
            run = self._run_tests(tests, replies, speculative, seconds)
            previous_calls, calls = calls, _messages(run.output)
            unchanged = _common_prefix(previous_calls, calls)
            if unchanged < settled and not run.timed_out:
                raise SandboxError("the tests ask something else each time they run, and a service must replay them")
            valid = min(unchanged, len(replies))
            if valid == len(calls) or run.timed_out:
                return ConnectedResult(run.last_line, run.timed_out)
            # The call after the valid replies is real: everything before it was answered. Those behind are speculative.
            settled, replies = valid + 1, replies[:valid]
            request = calls[: settled + speculative]
            answered = self._run_solution(solution, request, deadline - time.monotonic())
            new_replies = _messages(answered.output) if answered else []
            if answered and len(new_replies) <= valid and len(request) > settled:
                speculative = 0  # a call that the tests would never make may have ended the solution: go one by one
            elif answered is None or answered.timed_out or len(new_replies) <= valid:
                return ConnectedResult(run.last_line, answered is None or answered.timed_out)
            replies += new_replies[valid : len(request)]

    def _run_tests(self, tests: str, replies: list[bytes], speculative: int, seconds: float) -> _RunResult:
        call = f"SolutionProxy.speculative_calls = {speculative}\n{tests}"
        return self._request(call, b"".join(replies).decode(), GRACE_SECONDS + seconds)

    def _run_solution(self, solution: str, calls: list[bytes], seconds: float) -> _RunResult | None:
        """Runs the solution with these calls; returns None if no time is left for it."""
        return self._request(solution, b"".join(calls).decode(), seconds) if seconds > 0 else None

    def _request(self, call: str, stdin: str, seconds: float) -> _RunResult:
        body = {
            "language": "python",
            "code": f"{guest_source()}\n{call}\n",
            "stdin": stdin,
            "compile_timeout": seconds,
            "run_timeout": seconds,
            "memory_limit_MB": self.limits.memory_bytes >> 20,
            "files": {},
            "fetch_files": [],
        }
        for attempt in range(MAX_ATTEMPTS):
            try:
                response = self._client.post(self._url, json=body, timeout=seconds + SERVICE_SECONDS)
                # An overloaded service answers 504. Only that is tried again, as by verl's client.
                if response.status_code == httpx.codes.GATEWAY_TIMEOUT and attempt + 1 < MAX_ATTEMPTS:
                    time.sleep(1 + attempt)
                    continue
                return _run_result(response.raise_for_status().json())
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                raise SandboxError(f"{self._url} did not run the program: {type(error).__name__}: {error}") from error
        raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class _RunResult:
    output: bytes
    errors: bytes
    code: int
    timed_out: bool

    @property
    def last_line(self) -> bytes:
        """The last line of stderr: the tests' report, after warnings of the interpreter."""
        return self.errors.splitlines(keepends=True)[-1] if self.errors else b""


def _run_result(answer: dict) -> _RunResult:
    result = answer["run_result"]
    if answer["status"] == "SandboxError" or result is None:
        raise ValueError(f"the service reports {answer['status']}: {answer.get('message')}")
    timed_out = result["status"] == "TimeLimitExceeded"
    # A program that was killed may have no return code: 1 stands for any error. Signal N is 128 + N, as in a shell.
    code = result["return_code"] if result.get("return_code") is not None else 1
    output, errors = ((result.get(name) or "").encode("utf-8", "replace") for name in ("stdout", "stderr"))
    return _RunResult(output, errors, code if code >= 0 else 128 - code, timed_out)


def _common_prefix(one: list[bytes], other: list[bytes]) -> int:
    """Returns the number of messages before the first in which two lists differ."""
    length = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        length += 1
    return length


def _messages(data: bytes) -> list[bytes]:
    """Returns the complete messages in a process's output; a last one that was cut off is left out."""
    messages: list[bytes] = []
    stream = io.BytesIO(data)
    while True:
        head = stream.readline(16)
        if not head.strip().isdigit():
            return messages
        size = int(head)
        body = stream.read(size) if size <= MESSAGE_BYTES else b""
        if size > MESSAGE_BYTES or len(body) < size:
            return messages
        messages.append(head + body)
