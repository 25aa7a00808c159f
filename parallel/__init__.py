"""Devices and hosts: meshes, data parallelism, divided states. Imports as ``jaxopt_core.parallel``."""

from jaxopt_core.parallel.collectives import Collective, collectives, count_collectives, traffic
from jaxopt_core.parallel.data_parallel import data_parallel, data_parallel_pmap, data_parallel_shard_map
from jaxopt_core.parallel.gradient import Gradients, gather_params, gradients
from jaxopt_core.parallel.hooks import Hook, bf16_compress, fp16_compress
from jaxopt_core.parallel.lines import LaunchError
from jaxopt_core.parallel.memory import MemoryEstimate, describe_sharding, estimate_memory
from jaxopt_core.parallel.meshes import batch_axes, batch_sharding, mesh, replicated_sharding
from jaxopt_core.parallel.padding import pad_batch
from jaxopt_core.parallel.placement import (
    PerDevice,
    assert_replicas_equal,
    bytes_per_device,
    place,
    state_shardings,
)
from jaxopt_core.parallel.powersgd import PowerSGDState, powersgd
from jaxopt_core.parallel.processes import initialize
from jaxopt_core.parallel.progress import leave, reached
from jaxopt_core.parallel.rules import Strategy, fsdp, replicate, shard, zero1, zero2
from jaxopt_core.parallel.scope import all_reduce, device_key, example_keys, shards, total
from jaxopt_core.parallel.sharded_checkpoints import Resumed, ShardedCheckpoints
from jaxopt_core.parallel.sharding import optimizer_shardings
from jaxopt_core.parallel.steps import ParallelStep
from jaxopt_core.parallel.synchronize import SynchronizedState, synchronized

__all__ = [
    "Collective",
    "Gradients",
    "Hook",
    "LaunchError",
    "MemoryEstimate",
    "ParallelStep",
    "PerDevice",
    "PowerSGDState",
    "Resumed",
    "ShardedCheckpoints",
    "Strategy",
    "SynchronizedState",
    "all_reduce",
    "assert_replicas_equal",
    "batch_axes",
    "batch_sharding",
    "bf16_compress",
    "bytes_per_device",
    "collectives",
    "count_collectives",
    "data_parallel",
    "data_parallel_pmap",
    "data_parallel_shard_map",
    "describe_sharding",
    "device_key",
    "estimate_memory",
    "example_keys",
    "fp16_compress",
    "fsdp",
    "gather_params",
    "gradients",
    "initialize",
    "leave",
    "mesh",
    "optimizer_shardings",
    "pad_batch",
    "place",
    "powersgd",
    "reached",
    "replicate",
    "replicated_sharding",
    "shard",
    "shards",
    "state_shardings",
    "synchronized",
    "total",
    "traffic",
    "zero1",
    "zero2",
]
