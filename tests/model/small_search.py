"""Visits every state of the small model, once."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.model.small import Broken, Model, State, begin, steps
from tests.model.small_states import identity, tidied


@dataclass(frozen=True)
class Explored:
    """How many states were reached, and `waiting` of them not visited yet.

    `depth`: the most steps to one of them, by the way on which it was found.
    """

    states: int
    transitions: int
    depth: int
    waiting: int

    @property
    def ended(self) -> bool:
        """Whether there are no others."""
        return self.waiting == 0

    def __str__(self) -> str:
        end = "and no others" if self.ended else "and there are more"
        return (
            f"{self.states:,} states, {end}; "
            f"{self.transitions:,} transitions; at most {self.depth} steps deep"
        )


Spent = tuple[int, int]
Told = Callable[[Explored], object]


def explore(model: Model, limit: int | None = None, tell: Told = lambda so_far: None) -> Explored:
    """Visit every state, up to `limit` of them; `tell` is told now and then how far it is.

    Those in which least has gone wrong and least time has passed come first, and of those the
    nearest. A state that is reached again with no more left to go wrong than before is not visited
    again: all that may follow has been, or will be. Raises Broken with the way to the first state
    that breaks a promise.
    """
    return Search(model, limit, tell).run()


class Search:
    """One exploration; `seen` has the states by their identities, and with how much spent each."""

    def __init__(
        self, model: Model, limit: int | None = None, tell: Told = lambda so_far: None
    ) -> None:
        self._model, self._limit, self._tell = model, limit, tell
        spent = itertools.product(range(model.faults + 1), range(model.waits + 1))
        self._todo: dict[Spent, deque[tuple[State, int, int]]] = {
            each: deque() for each in sorted(spent, key=sum)
        }
        self._bit = {each: 1 << n for n, each in enumerate(self._todo)}
        self._no_more = {
            each: sum(bit for less, bit in self._bit.items() if _is_within(less, each))
            for each in self._todo
        }
        self.seen: dict[int, int] = {}
        self._came_from: dict[int, tuple[int, str]] = {}
        self._states = self._transitions = self._depth = 0

    def run(self) -> Explored:
        """Visit the states; see `explore`."""
        first = tidied(self._model, begin(self._model))
        self._add(first, identity(first), 0)
        for todo in self._todo.values():
            while todo:
                if self._limit is not None and self._states >= self._limit:
                    return self._explored()
                self._visit(*todo.popleft())
        return self._explored()

    def _visit(self, state: State, here: int, depth: int) -> None:
        try:
            for name, step in steps(self._model, state):
                self._transitions += 1
                after = tidied(self._model, step)
                there = identity(after)
                if self._add(after, there, depth + 1):
                    self._came_from[_with_spent(there, after)] = (_with_spent(here, state), name)
        except Broken as broken:
            raise Broken("\n".join([str(broken), *self._way(_with_spent(here, state))])) from None

    def _add(self, state: State, number: int, depth: int) -> bool:
        spent = (state.faults, state.waits)
        before = self.seen.get(number, 0)
        if before & self._no_more[spent]:
            return False
        self.seen[number] = before | self._bit[spent]
        self._todo[spent].append((state, number, depth))
        self._states += 1
        self._depth = max(self._depth, depth)
        if self._states % 10_000 == 0:
            self._tell(self._explored())
        return True

    def _explored(self) -> Explored:
        waiting = sum(map(len, self._todo.values()))
        return Explored(self._states, self._transitions, self._depth, waiting)

    def _way(self, here: int) -> list[str]:
        names: list[str] = []
        while here in self._came_from:
            here, name = self._came_from[here]
            names.append(name)
        return [f"{n + 1:3} {name}" for n, name in enumerate(reversed(names))]


def _is_within(less: Spent, more: Spent) -> bool:
    return less[0] <= more[0] and less[1] <= more[1]


def _with_spent(number: int, state: State) -> int:
    return (number << 16) + (state.faults << 8) + state.waits
