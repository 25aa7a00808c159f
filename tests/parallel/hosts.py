"""Two hosts on one machine: network namespaces with an address each, and a cable between them."""

import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import threading
import uuid

import pytest

ADDRESSES = ("10.231.17.1", "10.231.17.2")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


@contextlib.contextmanager
def namespaces(connect):
    """Two of them; ``connect(names)`` gives each a device of its own name. Skips where that is forbidden."""
    names = [f"jo{uuid.uuid4().hex[:6]}{end}" for end in "ab"]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            connect(names)
            for name, address in zip(names, ADDRESSES, strict=True):
                ip("link", "set", name, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
                ip("-n", name, "link", "set", name, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not permitted here: {getattr(error, 'stderr', error)}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Cable:
    """A cable that can be pulled; ``prefixes`` are what runs a command at each of its ends."""

    def __init__(self, names):
        self._name = names[0]
        self.prefixes = [["ip", "netns", "exec", name] for name in names]

    def down(self):
        ip("-n", self._name, "link", "set", self._name, "down")

    def up(self):
        ip("-n", self._name, "link", "set", self._name, "up")


@contextlib.contextmanager
def good_cable():
    def connect(names):
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])

    with namespaces(connect) as names:
        yield Cable(names)


class BadCable:
    """A cable that loses packets, each with probability ``loss``, under a seed.

    Its ends are TUN devices, between which a thread here carries the packets.
    """

    def __init__(self):
        self.loss, self.lost, self.carried = 0.0, 0, 0
        self._ends, self._random, self._stopping = [], random.Random(0), False

    def connect(self, names):
        for name in names:
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self._ends.append(end)
            fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))

    def carry(self):
        first, second = self._ends
        other = {first: second, second: first}
        while not self._stopping:
            for end in select.select(self._ends, [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # nothing there after all, or the other end is not up yet
                    packet = os.read(end, 65536)
                    if self._random.random() < self.loss:
                        self.lost += 1
                    else:
                        os.write(other[end], packet)
                        self.carried += 1

    def stop(self):
        self._stopping = True

    def close(self):
        for end in self._ends:
            os.close(end)


@contextlib.contextmanager
def bad_cable():
    cable = BadCable()
    try:
        with namespaces(cable.connect) as names:
            cable.prefixes = Cable(names).prefixes
            thread = threading.Thread(target=cable.carry, daemon=True)
            thread.start()
            try:
                yield cable
            finally:  # before its ends are closed
                cable.stop()
                thread.join()
    finally:
        cable.close()
