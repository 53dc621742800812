"""What the trainer does with the alarms, on a trainer that has nothing but what this takes."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import pytest

from verl_rsim.monitoring.alarms import AlarmConfig, AlarmMonitor, AlarmsConfig
from verl_rsim.monitoring.console import StepConsole
from verl_rsim.utils.errors import JobDied, TrainingCollapsed


class Loggers:
    """verl's Tracking, as far as it is used."""

    def __init__(self):
        self.logger, self.logged = {"console": None, "file": SimpleNamespace(fp=io.BytesIO())}, []

    def log(self, data, step):
        self.logged.append((step, data))


@pytest.fixture
def trainer():
    from verl_rsim.training.trainer import RsimTrainer

    class Fake(RsimTrainer):
        def __init__(self):
            self.global_steps, self.total_training_steps, self.timing_raw = 7, 10, {}
            self.logger, self.events = Loggers(), []
            self.checkpoints, self._earlier_metrics = SimpleNamespace(saved_step=-1), b""
            self.policies = ()
            self.rsim = SimpleNamespace(console="verl")

        def _save_checkpoint(self):
            self.events.append("save")
            self.checkpoints.saved_step = self.global_steps

        def _sync(self):
            self.events.append("sync")

    return Fake()


def configured(action: str) -> AlarmMonitor:
    return AlarmMonitor(AlarmsConfig(ppo_kl=AlarmConfig(action, 0.2, 1)))


SPIKE = {"planner/weight": 1.0, "planner/ppo_kl": 0.5}


def test_warn_says_so_once(trainer, capsys):
    trainer.alarms = configured("warn")
    for _ in range(2):
        trainer._raise_alarms(dict(SPIKE))
        trainer.on_step_end()
    assert capsys.readouterr().out.count("WARNING: step 7: alarm ppo_kl (planner)") == 1
    assert trainer.events == ["sync", "sync"]


def test_save_saves_once_before_the_servers_are_woken(trainer):
    trainer.alarms = configured("save")
    trainer._raise_alarms(dict(SPIKE))
    trainer.on_step_end()
    assert trainer.events == ["save", "sync"]
    trainer.global_steps += 1
    trainer._raise_alarms(dict(SPIKE))
    trainer.on_step_end()
    assert trainer.events == ["save", "sync", "sync"], "the alarm is still on, not new"


def test_save_does_not_repeat_what_save_freq_has_saved(trainer):
    trainer.alarms = configured("save")
    trainer._raise_alarms(dict(SPIKE))
    trainer._save_checkpoint()
    trainer.on_step_end()
    assert trainer.events == ["save", "sync"]


def test_stop_logs_the_step_and_ends_before_anything_is_saved(trainer):
    trainer.alarms = configured("warn")
    with pytest.raises(TrainingCollapsed, match=r"step 7: alarm not_finite \(reasoner\): .* is 1, above .* Resume"):
        trainer._raise_alarms({"reasoner/loss": math.nan, **SPIKE})
    assert trainer.events == []
    step, logged = trainer.logger.logged[0]
    assert (step, logged["alarm/not_finite"], logged["alarm/ppo_kl"]) == (7, 1.0, 1.0)


def test_the_summary_takes_the_place_of_verls_line(trainer):
    trainer.on_validate_begin()
    assert trainer.logger.logger["console"] is None
    trainer.rsim.console = "summary"
    trainer.on_train_begin()
    assert isinstance(trainer.logger.logger["console"], StepConsole)
    del trainer.logger.logger["console"]
    trainer.on_train_begin()
    assert set(trainer.logger.logger) == {"file"}, "who wants no console gets none"


def test_the_steps_that_a_run_resumed_from_are_put_back_once(trainer):
    trainer._earlier_metrics = b'{"step": 1}\n'
    trainer.on_validate_begin()
    trainer.on_train_begin()
    assert trainer.logger.logger["file"].fp.getvalue() == b'{"step": 1}\n'


def test_missing_episodes_are_said_and_bounded(trainer, capsys):
    trainer.rsim.max_failed_share = 0.1
    trainer.watchdog = SimpleNamespace(failures=lambda: "; 1 times no reward", check=lambda: None)
    assert trainer._check_failed(20, 20) == 0
    assert trainer._check_failed(18, 20, "validation ") == 2
    assert "2 of 20 validation episodes of step 7 failed; 1 times no reward" in capsys.readouterr().out
    with pytest.raises(JobDied, match=r"3 of 20 episodes of step 7 failed, more than rsim\.max_failed_share=0\.1"):
        trainer._check_failed(17, 20)
