"""Carries what the episodes of a rollout share from the trainer to the agent loops."""

from __future__ import annotations

from typing import Any

from verl.workers.rollout.llm_server import LLMServerClient

from verl_rsim.config.schema import RsimConfig
from verl_rsim.core.dialogue import Dialogue


class TwoPolicyClient(LLMServerClient):
    """verl's client of the reasoner's servers, which brings the planner's client along.

    verl hands one client from the trainer to the agent loop workers; this is it, so that both clients arrive there.

    Args:
        planner_client: the client of the planner's servers.
        args, kwargs: see verl's ``LLMServerClient``.
    """

    def __init__(self, *args: Any, planner_client: LLMServerClient, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.planner_client = planner_client


class RolloutContext:
    """Holds what all episodes of an agent loop worker share.

    No dataclass: verl creates agent loops through hydra, which would turn an instance of one into a configuration.

    Args:
        planner_client, reasoner_client: clients of the two models' servers.
        dialogue: the rules of an episode.
        rsim: the validated ``rsim`` block.
    """

    def __init__(
        self, planner_client: LLMServerClient, reasoner_client: LLMServerClient, dialogue: Dialogue, rsim: RsimConfig
    ):
        self.planner_client, self.reasoner_client = planner_client, reasoner_client
        self.dialogue, self.rsim = dialogue, rsim
