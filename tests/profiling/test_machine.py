"""What is measured of the machine is of the size that machines have."""

import pytest

from jaxopt_core.profiling.machine import bfloat16_gain, peak_bandwidth, peak_flops


def test_peak_flops():
    assert 1e8 < peak_flops("float32") < 1e16


def test_peak_bandwidth():
    assert 1e8 < peak_bandwidth() < 1e14


def test_bfloat16_gain():
    assert 1e-3 < bfloat16_gain(256, 256, 256) < 1e2


@pytest.mark.slow
def test_peak_of_bfloat16():
    assert 1e7 < peak_flops("bfloat16") < 1e16
