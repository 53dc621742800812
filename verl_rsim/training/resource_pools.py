"""Reserves GPUs for two policies: each its own pool, or one pool for both."""

from __future__ import annotations

from collections.abc import Callable

from verl.single_controller.ray import ResourcePoolManager


class ReservedPools(ResourcePoolManager):
    """Reserves verl's resource pools as soon as they are created, so that two policies can be set up in parallel.

    verl reserves lazily, when the first workers start; two policies would then race for the same GPUs.

    Args:
        verl_pools: the pools as verl planned them.
        prefix: put before the pools' names, by which Ray tells them apart; for a second policy with its own GPUs.
        device: verl's device name, e.g. "cuda" or "cpu".
        on_reserved: called once all pools are reserved.
    """

    def __init__(self, verl_pools: ResourcePoolManager, prefix: str, device: str, on_reserved: Callable[[], None]):
        super().__init__(
            resource_pool_spec={prefix + name: nodes for name, nodes in verl_pools.resource_pool_spec.items()},
            mapping={role: prefix + name for role, name in verl_pools.mapping.items()},
        )
        self._device, self._on_reserved = device, on_reserved

    def create_resource_pool(self) -> None:
        """Creates the pools, waits until Ray has reserved them, and calls ``on_reserved``."""
        super().create_resource_pool()
        for pool in self.resource_pool_dict.values():
            pool.get_placement_groups(device_name=self._device)
        self._on_reserved()


class SharedPools(ResourcePoolManager):
    """Uses the resource pools of another manager.

    Args:
        owner: the manager of the pools.
        mapping: verl's roles and the names of their pools.
    """

    def __init__(self, owner: ResourcePoolManager, mapping: dict):
        super().__init__(resource_pool_spec=owner.resource_pool_spec, mapping=mapping)
        self._owner = owner

    def create_resource_pool(self) -> None:
        """Takes the owner's pools instead of creating new ones."""
        self.resource_pool_dict = self._owner.resource_pool_dict
