"""Compiler options for what must be compiled as users have it, whatever conftest.py sets for the others."""

__all__ = ["AS_USERS"]

AS_USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
