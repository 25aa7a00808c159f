"""Ranks that cannot come together say so in time; where JAX itself aborts or crashes."""

import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxopt_core.parallel import LaunchError
from jaxopt_core.parallel.attempts import free_port
from jaxopt_core.parallel.meeting import meet


def gather(*ranks, timeout=30.0):
    """What each of ``(rank, count, agree_on)`` gets: None or the message of its error."""
    address = f"127.0.0.1:{free_port('127.0.0.1')}"

    def one(rank, count, agree_on):
        try:
            return meet(address, rank, count, agree_on, timeout)
        except LaunchError as error:
            return str(error)

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(lambda each: one(*each), ranks))


def test_all_that_agree_go_on():
    assert gather((0, 3, {"lr": 0.1}), (1, 3, {"lr": 0.1}), (2, 3, {"lr": 0.1})) == [None] * 3


def test_what_json_cannot_hold_is_compared_as_text():
    assert gather((0, 2, {"out": Path("a")}), (1, 2, {"out": Path("a")})) == [None] * 2
    assert 'rank 1 runs with "b", rank 0 with "a"' in gather((0, 2, Path("a")), (1, 2, Path("b")))[0]


def test_one_rank_alone_is_told_of_a_port_in_use():
    with (
        socket.create_server(("", 0)) as held,
        pytest.raises(LaunchError, match=r"rank 0 of 1: port .* cannot"),
    ):
        meet(f"127.0.0.1:{held.getsockname()[1]}", 0, 1, None, 5.0)


def test_other_arguments_are_named_on_both_sides():
    mine, other = gather((0, 2, ["--lr", "0.1"]), (1, 2, ["--lr", "0.2"]))
    what = 'rank 1 runs with ["--lr", "0.2"], rank 0 with ["--lr", "0.1"]: start all with the same arguments'
    assert mine == f"rank 0 of 2: {what}"
    assert other == f"rank 1 of 2: {what}"


def test_another_number_of_ranks_is_named_on_both_sides():
    mine, other = gather((0, 2, None), (1, 3, None))
    assert "rank 1 was started as one of 3, rank 0 as one of 2" in mine
    assert "rank 1 was started as one of 3, rank 0 as one of 2" in other


def test_a_rank_that_came_twice_is_named():
    mine = gather((0, 3, None), (1, 3, None), (1, 3, None))[0]
    assert "rank 1 came twice" in mine


def test_missing_ranks_are_named_on_all_that_are_there():
    mine, other = gather((0, 4, None), (2, 4, None), timeout=1.0)
    assert mine == "rank 0 of 4: rank 1, 3 of 4 did not come within 1 s: see the log there"
    assert other == "rank 2 of 4: rank 1, 3 of 4 did not come within 1 s: see the log there"


def test_a_coordinator_that_is_not_there_is_named():
    before = time.monotonic()
    (message,) = gather((1, 2, None), timeout=0.5)
    assert time.monotonic() - before < 10
    assert "rank 1 of 2: nobody answers at 127.0.0.1:" in message
    assert "check that the process there has started" in message


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(LaunchError, match=f"rank 0 of 2: port {port} on this machine cannot be used"):
            meet(f"127.0.0.1:{port}", 0, 2, None, 5.0)


def test_strangers_on_the_port_are_ignored():
    port = free_port("127.0.0.1")
    with ThreadPoolExecutor(2) as pool:
        host = pool.submit(meet, f"127.0.0.1:{port}", 0, 2, None, 30.0)
        while True:
            try:
                stranger = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.01)
        with stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert pool.submit(meet, f"127.0.0.1:{port}", 1, 2, None, 30.0).result() is None
            assert host.result() is None


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ('raise ArithmeticError("a deliberate mistake")', 1, "ArithmeticError: a deliberate mistake"),
        ("sys.exit(3)", 3, ""),
        ('sys.exit("a last word")', 1, "a last word"),
    ],
)
def test_a_mistake_ends_a_rank_though_others_wait(tmp_path, line, status, message):
    # By itself JAX waits for the others at exit, for minutes.
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import sys, threading, time
            from jaxopt_core import parallel
            assert parallel.initialize(sys.argv[1], 2, int(sys.argv[2]), timeout=100) == 2
            if sys.argv[2] == "1":
                threading.Thread(target=time.sleep, args=[600]).start()  # as Orbax's, that waits for others
                {line}
            time.sleep(600)
        """)
    )
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    ranks = [
        subprocess.Popen([sys.executable, str(script), address, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        _, printed = ranks[1].communicate(timeout=240)
        assert ranks[1].returncode == status
        assert message in printed
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
