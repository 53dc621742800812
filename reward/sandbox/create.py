"""Creates a sandbox by the name of its back-end, and checks that it can run a program on this machine."""

from __future__ import annotations

from verl_rsim.reward.sandbox.base import Sandbox, SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.bubblewrap import Bubblewrap
from verl_rsim.reward.sandbox.fusion import FusionSandbox
from verl_rsim.reward.sandbox.local import UnsafeLocal
from verl_rsim.reward.sandbox.sandlock import Sandlock
from verl_rsim.utils.errors import ConfigError

BACKENDS = ("auto", "bubblewrap", "sandlock", "fusion", "unsafe_local")


def create_sandbox(backend: str = "auto", limits: SandboxLimits | None = None, url: str | None = None) -> Sandbox:
    """Creates the sandbox of that name and runs one program in it.

    Args:
        backend: one of ``BACKENDS``.
        limits: resource limits of one grading; the defaults if None.
        url: URL of the service, for ``fusion``.

    Raises:
        ConfigError: there is no such back-end, or fusion has no URL.
        SandboxError: the back-end does not work here; the message says why and what to install.
    """
    limits = limits or SandboxLimits()
    if backend not in BACKENDS:
        raise ConfigError("sandbox.backend", backend, f"write one of {', '.join(BACKENDS)}")
    if (backend == "fusion") != (url is not None):
        raise ConfigError("sandbox.url", url, "give the service's URL, ending in /run_code, with backend=fusion only")
    if url is not None:
        return FusionSandbox(limits, url).probe()
    if backend == "unsafe_local":
        return UnsafeLocal(limits).probe()
    if backend != "auto":
        return (Bubblewrap if backend == "bubblewrap" else Sandlock)(limits).probe()
    # "auto" never falls back to UnsafeLocal: model-written code must not run unprotected because a package is missing.
    reasons = []
    for kind in (Bubblewrap, Sandlock):
        try:
            return kind(limits).probe()
        except SandboxError as error:
            reasons.append(f"- {kind.__name__.lower()}: {error}")
    raise SandboxError("no sandbox works here, and code is not run without one.\n" + "\n".join(reasons))
