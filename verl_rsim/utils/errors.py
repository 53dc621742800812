"""Defines the errors that users of this package can meet. Each message names the key, the value and the fix."""


class RsimError(Exception):
    """Base class of all errors raised by verl-rsim."""


class ConfigError(RsimError, ValueError):
    """Raised when a setting is missing, unknown or out of range.

    Args:
        key: dotted path of the setting, as the user writes it on the command line.
        value: the value that was read.
        fix: what to write instead, in the imperative.
    """

    def __init__(self, key: str, value: object, fix: str):
        self.key, self.value, self.fix = key, value, fix
        super().__init__(f"{key}={value!r}: {fix}")


class DataError(RsimError, ValueError):
    """Raised when a dataset, a model folder or a download cannot be used as it is."""


class JobDied(RsimError, RuntimeError):
    """Raised when a process of the running job is gone, or a phase exceeds its timeout; the job cannot go on."""


class SaveError(RsimError, OSError):
    """Raised when a checkpoint cannot be written; earlier checkpoints are unchanged."""


class TrainingCollapsed(RsimError, RuntimeError):
    """Raised when an alarm of ``rsim.alarms`` with the action ``stop`` goes off."""


class EngineError(RsimError, RuntimeError):
    """Raised when a model's engine cannot be started or reached, breaks its contract, or fails during use."""


class EngineBusy(EngineError):
    """Raised when a model's engine rejects requests because it is overloaded."""


class EngineTimeout(EngineError):
    """Raised when a model's engine does not answer within its timeout."""


class JobWarning(UserWarning):
    """Warns of a setting or of data with which a job can run, but perhaps not as its user expects."""
