"""The errors a user of this package can meet. Each message names the key, the value and the fix."""


class RsimError(Exception):
    """Base of all errors raised by verl-rsim."""


class ConfigError(RsimError, ValueError):
    """A setting is missing, unknown or out of range.

    Args:
        key: dotted path of the setting, as the user writes it on the command line.
        value: what was found there.
        fix: what to write instead, in the imperative.
    """

    def __init__(self, key: str, value: object, fix: str):
        self.key, self.value, self.fix = key, value, fix
        super().__init__(f"{key}={value!r}: {fix}")


class DataError(RsimError, ValueError):
    """A dataset, a model folder or a download cannot be used as it is."""


class JobDied(RsimError, RuntimeError):
    """A process of the running job is gone, or a phase outlived its time limit; the job cannot go on."""


class SaveError(RsimError, OSError):
    """A checkpoint could not be written; the ones before it are as they were."""


class TrainingCollapsed(RsimError, RuntimeError):
    """An alarm of ``rsim.alarms`` whose action is ``stop`` went off."""


class EngineError(RsimError, RuntimeError):
    """A model's engine cannot be started or reached, answers what it must not, or failed while it was used."""


class EngineBusy(EngineError):
    """A model's engine turns requests away for now."""


class EngineTimeout(EngineError):
    """A model's engine did not answer in time."""
