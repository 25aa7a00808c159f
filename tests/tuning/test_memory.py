"""How much memory there is, by what Linux says."""

import jax
import pytest

from jaxopt_core.tuning import memory

MIB = 1 << 20


def group(root, path, limit, used, cached):
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")


def machine(root, available=1000):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable:   {available * 1024} kB\n")
    return root


def test_what_is_available_counts_and_not_what_is_free(tmp_path):
    assert memory.free_memory(machine(tmp_path)) == 1000 * MIB


def test_a_container_may_leave_less(tmp_path):
    root = machine(tmp_path)
    (root / "proc/self/cgroup").write_text("0::/jobs/one\n")
    group(root, "jobs", 600 * MIB, 100 * MIB, 0)
    group(root, "jobs/one", 500 * MIB, 300 * MIB, 50 * MIB)
    assert memory.free_memory(root) == 250 * MIB
    group(root, "jobs/one", "max", 300 * MIB, 50 * MIB)
    assert memory.free_memory(root) == 500 * MIB


def test_other_systems_have_a_half_of_all_or_a_guess(tmp_path, monkeypatch):
    assert memory.free_memory(tmp_path) > MIB
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.free_memory(tmp_path) == 4 << 30


def test_devices_share_what_there_is(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 80 * MIB)
    assert memory.default_memory(jax.devices()[1]) == pytest.approx(0.8 * 80 * MIB / jax.local_device_count())
