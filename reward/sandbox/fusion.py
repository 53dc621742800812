"""SandboxFusion, the service that verl's own code reward speaks to, as a sandbox.

The service runs one program to its end and returns what it printed, so a conversation is replayed: the tests run
with the answers known so far, and the question they stop at is put to the solution, which is run anew and given all
the questions so far. The tests also write what they would ask next if that call failed. Most ask it whatever the
answer, so these guesses are answered too, and an answer is kept if the next replay asks that question in that place.
Three or four requests for most tests, two a call where each question hangs on the answer before.
The isolation is the service's affair. Memory is limited by it as well as from inside.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

import httpx

from verl_rsim.reward.sandbox.base import (
    GRACE_SECONDS,
    Conversation,
    ProgramResult,
    Sandbox,
    SandboxError,
    SandboxLimits,
    inside_source,
)
from verl_rsim.reward.sandbox.guest_program import MESSAGE_BYTES

ATTEMPTS = 3
AHEAD = 1000
"""Guesses in one request."""
SERVICE_SECONDS = 10.0
"""What a request may take beside the run itself."""


class FusionSandbox(Sandbox):
    """A SandboxFusion service.

    Args:
        limits: what one grading may use.
        url: of the endpoint, e.g. ``http://localhost:8080/run_code``.
    """

    def __init__(self, limits: SandboxLimits, url: str):
        super().__init__(limits)
        self._client = httpx.Client()
        self._url = url

    def run(self, call: str, stdin: str, seconds: float) -> ProgramResult:
        """Run a program to its end, or for so long."""
        done = self._request(call, stdin, seconds)
        limit = self.limits.output_bytes
        return ProgramResult(done.output[:limit], done.code, done.timed_out, len(done.output) > limit)

    def converse(self, tests: str, solution: str, seconds: float) -> Conversation:
        """Replay the tests until they ask nothing that is not answered.

        An answer once given stays, whatever a solution that draws at random says when it is asked again.

        Raises:
            SandboxError: the service failed, or the tests do not ask the same each time.
        """
        deadline, ahead = time.monotonic() + seconds, AHEAD
        asked, answers, sure = [], [], 0  # type: tuple[list[bytes], list[bytes], int]
        while True:
            told = self._request(
                f"Solution.ahead = {ahead}\n{tests}", b"".join(answers).decode(), GRACE_SECONDS + seconds
            )
            report = told.errors.splitlines(keepends=True)[-1] if told.errors else b""
            before, asked = asked, _messages(told.output)
            same = _common(before, asked)
            if same < sure and not told.timed_out:
                raise SandboxError("the tests ask something else each time they run, and a service must replay them")
            right = min(same, len(answers))
            if right == len(asked) or told.timed_out:
                return Conversation(report, told.timed_out)
            sure, answers = right + 1, answers[:right]
            left = deadline - time.monotonic()
            questions = asked[: sure + ahead]
            answered = self._request(solution, b"".join(questions).decode(), left) if left > 0 else None
            heard = _messages(answered.output) if answered else []
            if answered and len(heard) <= right and len(questions) > sure:
                ahead = 0  # maybe it was a guess that ended it
            elif answered is None or answered.timed_out or len(heard) <= right:
                return Conversation(report, answered is None or answered.timed_out)
            answers += heard[right : len(questions)]

    def _request(self, call: str, stdin: str, seconds: float) -> _Done:
        body = {
            "language": "python",
            "code": f"{inside_source()}\n{call}\n",
            "stdin": stdin,
            "compile_timeout": seconds,
            "run_timeout": seconds,
            "memory_limit_MB": self.limits.memory_bytes >> 20,
            "files": {},
            "fetch_files": [],
        }
        for attempt in range(ATTEMPTS):
            try:
                response = self._client.post(self._url, json=body, timeout=seconds + SERVICE_SECONDS)
                if response.status_code == httpx.codes.GATEWAY_TIMEOUT and attempt + 1 < ATTEMPTS:
                    time.sleep(1 + attempt)  # it is overloaded, as verl's client knows too
                    continue
                return _done(response.raise_for_status().json())
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                raise SandboxError(f"{self._url} did not run the program: {type(error).__name__}: {error}") from error
        raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class _Done:
    output: bytes
    errors: bytes
    code: int
    timed_out: bool


def _done(answer: dict) -> _Done:
    result = answer["run_result"]
    if answer["status"] == "SandboxError" or result is None:
        raise ValueError(f"it says {answer['status']}: {answer.get('message')}")
    timed_out = result["status"] == "TimeLimitExceeded"
    code = result["return_code"] if result.get("return_code") is not None else 1
    output, errors = ((result.get(name) or "").encode("utf-8", "replace") for name in ("stdout", "stderr"))
    return _Done(output, errors, code if code >= 0 else 128 - code, timed_out)


def _common(one: list[bytes], other: list[bytes]) -> int:
    """How many messages two lists have in common before the first that differs."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (mine, its) in enumerate(pairs) if mine != its), min(len(one), len(other)))


def _messages(data: bytes) -> list[bytes]:
    """The whole messages in what a side wrote."""
    messages, stream = [], io.BytesIO(data)
    while (head := stream.readline(16)).strip().isdigit():
        size = int(head)
        if size > MESSAGE_BYTES or len(body := stream.read(size)) < size:
            break
        messages.append(head + body)
    return messages
