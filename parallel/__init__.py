"""Devices and hosts: where parameters and optimizer state live. Imports as ``jaxopt_core.parallel``."""

from jaxopt_core.parallel.sharding import optimizer_shardings

__all__ = ["optimizer_shardings"]
