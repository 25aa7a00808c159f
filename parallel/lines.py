"""Messages between launchers, and between ranks before JAX connects them: lines of JSON over TCP."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["LaunchError", "Lines", "connect", "listen", "split_address"]

LONGEST = 1 << 20  # bytes of a message: whoever sends more is not one of us


class LaunchError(RuntimeError):
    """Processes could not be started or brought together; the message names the rank and the remedy."""


class Lines:
    """A connection that sends and receives dicts."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket, self.heard = sock, time.monotonic()
        self._buffer = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """For ``selectors``."""
        return self.socket.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message.

        Raises:
          OSError: the other side is gone, or takes nothing for ten seconds.
        """
        self.socket.settimeout(10)
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> Iterator[dict[str, Any]]:
        """The messages that are there, waiting up to ``timeout`` seconds for the first bytes.

        Raises:
          OSError: the other side is gone, or does not speak this language.
        """
        self.socket.settimeout(max(timeout, 1e-3))
        try:
            received = self.socket.recv(1 << 16)
        except TimeoutError:
            return
        if not received:
            raise ConnectionResetError("the other side closed the connection")
        self.heard = time.monotonic()
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        if len(self._buffer) > LONGEST:
            raise ConnectionError("received a line without an end")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                raise ConnectionError("received something that is no JSON") from None
            if not isinstance(message, dict):
                raise ConnectionError("received JSON that is no message")
            yield message

    def receive_one(self, timeout: float) -> dict[str, Any] | None:
        """The next message, or None if none comes in time."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            for message in self.receive(left):
                return message
        return None

    def close(self) -> None:
        """Ends the connection."""
        self.socket.close()


def split_address(address: str, what: str = "--coordinator") -> tuple[str, int]:
    """Host and port of ``host:port``.

    Example:
      >>> split_address("10.0.0.1:1234"), split_address("[fe80::1]:1234")
      (('10.0.0.1', 1234), ('fe80::1', 1234))
      >>> split_address("10.0.0.1")
      Traceback (most recent call last):
      ...
      jaxopt_core.parallel.lines.LaunchError: --coordinator: expected HOST:PORT, found '10.0.0.1'
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise LaunchError(f"{what}: expected HOST:PORT, found {address!r}")
    return host.strip("[]"), int(port)


def listen(port: int, who: str, remedy: str) -> socket.socket:
    """A socket that listens on all interfaces.

    Raises:
      LaunchError: the port is in use.
    """
    try:
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise LaunchError(
            f"{who}: port {port} on this machine cannot be used ({error.strerror}): {remedy}"
        ) from None


def connect(address: str, who: str, timeout: float) -> Lines:
    """Connects, trying again until it works.

    Raises:
      LaunchError: nobody answered within ``timeout`` seconds.
    """
    host, port = split_address(address)
    deadline, reason = time.monotonic() + timeout, "no time was left"
    while (left := deadline - time.monotonic()) > 0:
        try:
            return Lines(socket.create_connection((host, port), timeout=min(left, 5.0)))
        except UnicodeError:
            raise LaunchError(f"{who}: {host!r} is no name of a machine: correct the address") from None
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(0.1, left))
    raise LaunchError(
        f"{who}: nobody answers at {address} within {timeout:g} s ({reason}): check that the process there "
        f"has started, that the address is right, and that no firewall is between"
    )
