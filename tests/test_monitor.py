"""The sampler: it sees the work and never holds it up."""

from __future__ import annotations

import threading

import pytest

from vaultvec.monitor import GpuReading, ResourceMonitor, blocking_check


def test_memory_that_the_work_takes_is_seen() -> None:
    with ResourceMonitor(0.01) as monitor:
        block = bytearray(64 * 1024 * 1024)
        block[::4096] = b"x" * len(block[::4096])
    assert monitor.usage.peak_rss_mb > monitor.usage.start_rss_mb + 32
    assert monitor.usage.growth_mb > 32
    assert monitor.usage.least_free_mb > 0
    assert 0 <= monitor.usage.cpu_share <= 1


def test_the_thread_ends_with_the_work_even_when_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), ResourceMonitor(0.01):
        raise ZeroDivisionError
    assert not [row for row in threading.enumerate() if row.name == "monitor" and not row.daemon]


def test_usage_can_be_read_meanwhile_and_stands_still_afterwards() -> None:
    with ResourceMonitor(3600) as monitor:
        assert monitor.usage.samples == 1
    assert monitor.usage == monitor.usage
    assert monitor.usage.samples == 2


def test_a_gpu_is_read_from_the_sampling_thread_only() -> None:
    asked = threading.Event()
    readers: set[str] = set()

    def gpu() -> GpuReading:
        readers.add(threading.current_thread().name)
        asked.set()
        return GpuReading(0.5, 100.0)

    with ResourceMonitor(0.01, gpu) as monitor:
        assert asked.wait(10)
    assert readers == {"monitor"}
    assert monitor.usage.gpu_share == 0.5
    assert monitor.usage.gpu_peak_mb == 100.0


def test_a_gpu_that_hangs_does_not_hold_up_the_work() -> None:
    release = threading.Event()

    def gpu() -> GpuReading:
        release.wait(60)
        raise OSError("gone")

    with ResourceMonitor(0.01, gpu) as monitor:
        pass
    release.set()
    assert monitor.usage.gpu_share is None


def test_the_blocking_check_blocks() -> None:
    assert blocking_check(0.05) >= 0.05
