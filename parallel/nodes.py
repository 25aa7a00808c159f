"""Launchers on several machines: node 0 says when all start and stop, the others listen."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from typing import Any, NamedTuple, Protocol

from jaxopt_core.parallel.attempts import Attempt, Finish, Outcome, Referee, free_port
from jaxopt_core.parallel.lines import LaunchError, Lines, connect, listen, split_address

__all__ = ["Client", "Judge", "Local", "Server"]

BEAT = 1.0  # seconds between signs of life
_NONSENSE = KeyError, TypeError, ValueError, AttributeError  # what messages of a stranger raise
_REMEDY = (
    "give another one in --coordinator, or end what holds it; if that is node 0, correct --node-rank here"
)


class Judge(Protocol):
    """Who tells a launcher what to do: itself (:class:`Local`), or node 0 (:class:`Client`)."""

    def next_attempt(self) -> Attempt | Finish:
        """Waits for the next attempt, or for the end."""
        ...

    def told_to_stop(self) -> str | None:
        """Why the attempt that runs is to be stopped, or None; called many times a second."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """How the attempt ended here."""
        ...


class Local:
    """The judge of a launcher that is alone."""

    def __init__(self, nproc: int, referee: Referee) -> None:
        self.nproc, self.referee = nproc, referee
        self._next: float | Finish = 0.0

    def next_attempt(self) -> Attempt | Finish:
        """After the referee's wait."""
        if isinstance(self._next, Finish):
            return self._next
        time.sleep(self._next)
        return Attempt(self.referee.restarts, f"127.0.0.1:{free_port('127.0.0.1')}", 0, self.nproc)

    def told_to_stop(self) -> str | None:
        """Nobody does."""
        return None

    def ended(self, outcome: Outcome) -> None:
        """Asks the referee."""
        self._next = self.referee.after(outcome)


class Client:
    """A launcher's line to node 0, made again when it breaks.

    Args:
      address: where node 0 listens.
      facts: what must be equal on all nodes.
      node: this launcher's number.
      timeout: seconds to go on trying.
      silence: seconds without a sign of life after which a node counts as lost.
    """

    def __init__(
        self, address: str, facts: dict[str, Any], node: int, timeout: float, silence: float
    ) -> None:
        self.address, self.node, self.timeout, self.silence = address, node, timeout, silence
        self._join = {"join": node, "facts": facts, "id": f"{socket.gethostname()}/{time.time_ns()}"}
        self._line: Lines | None = None
        self._beat, self._stop, self._attempt = 0.0, "", -1

    def next_attempt(self) -> Attempt | Finish:
        """Waits for node 0's word, for as long as node 0 gives signs of life."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                if self._line is None:
                    left = max(deadline - time.monotonic(), 0.1)
                    self._line = connect(self.address, f"node {self.node}", left)
                    self._line.send(self._join)
                for message in self._exchange(0.2):
                    if "finish" in message:
                        self._drop()
                        return Finish(*message["finish"])
                    if "start" in message:
                        attempt = Attempt(*message["start"])
                        self._attempt, self._stop = attempt.number, ""
                        return attempt
            except LaunchError as error:
                return Finish(1, str(error))
            except OSError:
                self._drop()
                time.sleep(0.2)
                if time.monotonic() > deadline:
                    return Finish(1, f"node {self.node}: node 0 at {self.address} went away: see its log")

    def told_to_stop(self) -> str | None:
        """Node 0's reason, or that it is lost."""
        try:
            for message in self._exchange(0.0):
                if message.get("stop") == self._attempt:
                    self._stop = message["why"]
        except OSError as error:
            self._drop()
            self._stop = f"node 0 at {self.address} is lost ({error})"
        return self._stop or None

    def ended(self, outcome: Outcome) -> None:
        """Tells node 0."""
        try:
            if self._line is not None:
                self._line.send({"ended": self._attempt, "outcome": outcome._asdict()})
        except OSError:
            self._drop()

    def _exchange(self, wait: float) -> list[dict[str, Any]]:
        if self._line is None:
            raise ConnectionResetError("not connected")
        now = time.monotonic()
        if now - self._beat > BEAT:
            self._beat = now
            self._line.send({"beat": self.node})
        messages = list(self._line.receive(wait))
        if time.monotonic() - self._line.heard > self.silence:
            raise ConnectionResetError(f"silent for {self.silence:g} s")
        return messages

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class _LeftError(Exception):
    def __init__(self, finish: Finish) -> None:
        super().__init__(finish.message)
        self.finish = finish


class _Member(NamedTuple):
    """A node that is there."""

    line: Lines
    id: str
    host: str


class Server(threading.Thread):
    """Node 0's other half: gathers the nodes, starts and stops them together.

    Args:
      address: of the machine and the port, as all nodes know it.
      facts: node 0's; others must have the same. ``facts["nnodes"]`` and ``facts["nproc"]`` are counts.
      referee: decides about restarts.
      timeout: seconds to wait for nodes that are missing.
      silence: seconds without a sign of life after which a node counts as lost.

    Raises:
      LaunchError: the port is in use.
    """

    def __init__(
        self, address: str, facts: dict[str, Any], referee: Referee, timeout: float, silence: float
    ) -> None:
        super().__init__(daemon=True)
        self.host, port = split_address(address)
        self.facts, self.referee, self.timeout, self.silence = facts, referee, timeout, silence
        self._socket = listen(port, "node 0", _REMEDY)
        self._members: dict[int, _Member] = {}
        self._running: set[int] = set()
        self._outcomes: list[Outcome] = []
        self._refused = ""
        self._beat = 0.0
        self._left: Finish | None = None

    def leave(self, finish: Finish) -> None:
        """Ends the wait for nodes or for the next attempt, from another thread; all nodes are told."""
        self._left = finish

    def run(self) -> None:
        """Serves attempts until there is no further one."""
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(self._socket, selectors.EVENT_READ)
            try:
                finish = self._serve()
            except _LeftError as left:
                finish = left.finish
            self._broadcast({"finish": finish})
            deadline = time.monotonic() + 2.0
            while self._members and time.monotonic() < deadline:  # until they have hung up
                self._pump()
        self._socket.close()

    def _serve(self) -> Finish:
        while True:
            if (missing := self._gather()) is not None:
                return missing
            port = free_port()
            self._running, self._outcomes = set(self._members), []
            nproc, world = self.facts["nproc"], self.facts["nproc"] * self.facts["nnodes"]
            for node, member in list(self._members.items()):
                attempt = Attempt(self.referee.restarts, f"{self.host}:{port}", node * nproc, world)
                self._send(node, member, {"start": attempt})
            outcome = self._watch()
            verdict = self.referee.after(outcome)
            if isinstance(verdict, Finish):
                return verdict
            end = time.monotonic() + verdict
            while time.monotonic() < end:
                self._turn()

    def _gather(self) -> Finish | None:
        nnodes, deadline = self.facts["nnodes"], time.monotonic() + self.timeout
        while len(self._members) < nnodes:
            if self._refused:
                return Finish(2, self._refused)
            if time.monotonic() > deadline:
                missing = ", ".join(str(node) for node in range(nnodes) if node not in self._members)
                return Finish(
                    1,
                    f"node {missing} of {nnodes} did not come within {self.timeout:g} s: start the same "
                    f"command there with its --node-rank, and check that it reaches {self.host}",
                )
            self._turn()
        return None

    def _watch(self) -> Outcome:
        told = False
        while self._running:
            self._turn()
            bad = [each for each in self._outcomes if each.kind in ("failed", "interrupted")]
            if bad and not told:
                told = True
                self._broadcast({"stop": self.referee.restarts, "why": bad[0].reason})
        # Who was asked to leave may have brought others down, which is no reason to start again.
        order = ("interrupted", "preempted", "failed", "stopped", "done")
        worst = min(self._outcomes, key=lambda each: order.index(each.kind))
        return worst._replace(steps=max(each.steps for each in self._outcomes))

    def _turn(self) -> None:
        if self._left is not None:
            raise _LeftError(self._left)
        self._pump()

    def _pump(self) -> None:
        """Handles what came, and notices who is silent."""
        for key, _ in self._selector.select(0.05):
            if key.fileobj is self._socket:
                connection, where = self._socket.accept()
                self._selector.register(Lines(connection), selectors.EVENT_READ, where[0])
            elif isinstance(key.fileobj, Lines):
                self._hear(key.fileobj, str(key.data))
        now = time.monotonic()
        if now - self._beat > BEAT:
            self._beat = now
            self._broadcast({"beat": 0})
        for node, member in list(self._members.items()):
            if now - member.line.heard > self.silence:
                self._lose(node, f"was silent for {self.silence:g} s")

    def _hear(self, line: Lines, host: str) -> None:
        node = next((node for node, member in self._members.items() if member.line is line), None)
        try:
            for message in line.receive(0.0):
                if node is None:
                    node = self._admit(line, host, message)
                elif "ended" in message:
                    self._note(node, Outcome(**message["outcome"]))
        except (OSError, *_NONSENSE) as error:
            if node is None:
                self._forget(line)
            else:
                self._lose(node, f"hung up ({error})")

    def _admit(self, line: Lines, host: str, message: dict[str, Any]) -> int | None:
        node, facts = int(message["join"]), message["facts"]
        problem = ""
        different = [name for name in self.facts if facts.get(name) != self.facts[name]]
        if different:
            name = different[0]
            problem = (
                f"node {node} ({host}) has {name} {json.dumps(facts.get(name))}, node 0 has "
                f"{json.dumps(self.facts[name])}: start all nodes with the same command"
            )
            self._refused = problem
        elif not 0 <= node < self.facts["nnodes"]:
            self._refused = problem = (
                f"node {node} ({host}) is none of 0 to {self.facts['nnodes'] - 1}: correct its --node-rank"
            )
        elif node in self._members and self._members[node].id != message["id"]:
            problem = (
                f"node {node} is there already, at {self._members[node].host}: correct --node-rank at {host}"
            )
        if problem:
            line.send({"finish": Finish(2, problem)})
            return None
        if node in self._members:
            self._lose(node, "came back over a new connection")
        self._members[node] = _Member(line, str(message["id"]), host)
        return node

    def _note(self, node: int, outcome: Outcome) -> None:
        if node in self._running:
            self._running.discard(node)
            self._outcomes.append(outcome)

    def _lose(self, node: int, why: str) -> None:
        member = self._members.pop(node)
        self._forget(member.line)
        self._note(node, Outcome("failed", f"node {node} ({member.host}) is lost: it {why}"))

    def _forget(self, line: Lines) -> None:
        self._selector.unregister(line)
        line.close()

    def _send(self, node: int, member: _Member, message: dict[str, Any]) -> None:
        try:
            member.line.send(message)
        except OSError as error:
            if node in self._members:
                self._lose(node, f"takes no messages ({error})")

    def _broadcast(self, message: dict[str, Any]) -> None:
        for node, member in list(self._members.items()):
            self._send(node, member, message)
