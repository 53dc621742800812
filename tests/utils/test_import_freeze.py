"""Imported modules leave the garbage collector's sight, and the collector works on."""

import gc
import subprocess
import sys
import types
import weakref

import pytest

from verl_rsim.utils import import_freeze
from verl_rsim.utils.import_freeze import freeze_imports


class _Cycle:
    def __init__(self):
        self.itself = self


@pytest.fixture
def freezing(monkeypatch):
    """Freezes imports during a test."""
    monkeypatch.setattr(import_freeze, "QUIET_COLLECTIONS", 3)
    callbacks = list(gc.callbacks)
    freeze_imports()
    yield
    gc.callbacks[:] = callbacks
    gc.unfreeze()


def _import_something(monkeypatch):
    name = f"_imported_{len(sys.modules)}"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


def test_modules_are_frozen_once_they_are_imported(freezing, monkeypatch):
    gc.collect()
    gc.unfreeze()
    gc.collect()
    assert gc.get_freeze_count() == 0  # nothing new was imported
    _import_something(monkeypatch)
    gc.collect()
    assert gc.get_freeze_count() > 1000


def test_the_collector_goes_on_collecting(freezing):
    gc.collect()
    garbage = _Cycle()
    trace = weakref.ref(garbage)
    del garbage
    gc.collect()
    assert gc.isenabled()
    assert trace() is None


def test_freezing_ends_when_nothing_is_imported_any_more(freezing):
    for _ in range(5):
        gc.collect()
    assert not [callback for callback in gc.callbacks if isinstance(callback, import_freeze._ImportFreeze)]


def test_a_second_call_changes_nothing(freezing):
    freeze_imports()
    assert len([callback for callback in gc.callbacks if isinstance(callback, import_freeze._ImportFreeze)]) == 1


def test_the_hook_of_rays_processes_is_light_to_import():
    code = "import sys, verl_rsim.utils.import_freeze; print(*{'torch', 'ray', 'verl', 'omegaconf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
