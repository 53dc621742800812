"""Lets processes talk to a rollout server on a CPU without importing vLLM."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any


def light_actor_class(server: type) -> type:
    """Returns an actor class with the methods of ``server`` that imports and creates one in its own process alone.

    Ray 2.60 loads an actor's class in each process that gets a handle of the actor. The class of verl's servers imports
    vLLM and verl, which the load balancer does not need. Ray sends this class by value; it knows ``server`` by name.
    """
    namespace: dict[str, Any] = {"__init__": _constructor(server), "__getattr__": _forward_attribute}
    for name, method in inspect.getmembers(server, inspect.isfunction):
        if not name.startswith("__"):
            namespace[name] = _forwarder(name, method)
    return type(server.__name__, (), {**namespace, "__module__": server.__module__})


def _constructor(server: type) -> Callable:
    """Returns the ``__init__`` that creates the server."""
    module, name = server.__module__, server.__name__

    def __init__(self, *args, **kwargs):
        self._server = getattr(importlib.import_module(module), name)(*args, **kwargs)

    __init__.__signature__ = _signature(server.__init__)  # type: ignore[attr-defined,misc]  # read by inspect
    return __init__


def _forwarder(name: str, method: Callable) -> Callable:
    """Returns a method that passes its call on to the server."""

    def call(self, *args, **kwargs):
        return getattr(self._server, name)(*args, **kwargs)

    async def await_call(self, *args, **kwargs):
        return await getattr(self._server, name)(*args, **kwargs)

    forwarder = await_call if inspect.iscoroutinefunction(method) else call
    forwarder.__name__ = name
    forwarder.__signature__ = _signature(method)  # type: ignore[attr-defined]  # read by inspect
    return forwarder


def _forward_attribute(self, name: str) -> Any:
    """Returns an attribute of the server; a function that is sent to the actor may ask for any."""
    if name == "_server":  # not created yet
        raise AttributeError(name)
    return getattr(self._server, name)


def _signature(method: Callable) -> inspect.Signature:
    """Returns a signature by which Ray checks calls; without annotations, whose types would have to be imported."""
    parameters = inspect.signature(method).parameters.values()
    return inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters])
