import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from scannerjob.worker.single_flight_names import Naming, plain


@dataclass
class Item:
    pk: int
    tags: tuple[str, ...] = ()


def process(item_id: int, mode: str = "fast", *, user: str = "nobody") -> None: ...


def with_rest(first: int, *rest: int, **options: str) -> None: ...


class Service:
    shop = "north"

    def method(self, item_id: int) -> None: ...

    @classmethod
    def of_class(cls, item_id: int) -> None: ...


def named(template: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    return Naming(template, function).name(args, kwargs)


@pytest.mark.parametrize(
    ("template", "args", "kwargs", "name"),
    [
        ("p({0})", (5,), {}, "p(5)"),
        ("p({0})", (), {"item_id": 5}, "p(5)"),
        ("p({item_id})", (5,), {}, "p(5)"),
        ("p({item_id})", ("5",), {}, "p(5)"),
        ("p({}, {})", (5, "slow"), {}, "p(5, slow)"),
        ("p({0}, {mode}, {user})", (5,), {}, "p(5, fast, nobody)"),
        ("p({1})", (5,), {"mode": "slow"}, "p(slow)"),
        ("p({item_id:05d})", (5,), {}, "p(00005)"),
        ("p({0.pk})", (Item(7),), {}, "p(7)"),
        ("p({item_id.tags[0]})", (Item(7, ("a",)),), {}, "p(a)"),
        ("p({item_id[id]})", ({"id": 3},), {}, "p(3)"),
        ("p({0!r})", ("a",), {}, "p('a')"),
        ("p({0})", (UUID(int=1),), {}, "p(00000000-0000-0000-0000-000000000001)"),
        ("p({0:%Y})", (date(2026, 1, 2),), {}, "p(2026)"),
        ("p({0})", ("a set at 0xcafe",), {}, "p(a set at 0xcafe)"),
        ("all", (5,), {}, "all"),
        ("{{p}}", (5,), {}, "{p}"),
    ],
)
def test_a_name_is_made_of_arguments(
    template: str, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> None:
    assert named(template, process, *args, **kwargs) == name


def test_arguments_without_a_parameter_of_their_own_have_names_and_positions() -> None:
    assert named("{0} {2} {color}", with_rest, 1, 2, 3, color="red") == "1 3 red"


def test_the_receiver_of_a_method_is_none_of_its_arguments() -> None:
    service = Service()
    assert named("{0} {item_id}", Service.method, service, 5) == "5 5"
    assert named("{0}", service.method, 5) == "5"
    assert named("{0}", Service.of_class.__func__, Service, 5) == "5"  # type: ignore[attr-defined]  # as a decorator below @classmethod sees it


def test_a_decorated_function_is_called_by_its_own_parameters() -> None:
    @functools.wraps(process)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert named("{item_id}", wrapper, 5) == "5"


@pytest.mark.parametrize("template", ["p({2})", "p({item})", "p({}, {}, {})", "p({items[0]})"])
def test_a_placeholder_that_is_no_parameter_is_refused_before_any_call(template: str) -> None:
    with pytest.raises(ValueError, match=r"process.*expected one of its parameters: item_id, mode"):
        Naming(template, process)


def test_what_the_receiver_has_may_be_in_a_name() -> None:
    assert named("{self.shop} {0}", Service.method, Service(), 5) == "north 5"
    with pytest.raises(ValueError, match="another one in each process"):
        named("{self}", Service.method, Service(), 5)


@pytest.mark.parametrize("template", ["p({0)", "p(0})", "p({"])
def test_what_is_no_format_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="no format"):
        Naming(template, process)


@pytest.mark.parametrize("value", [object(), [object()], process, {"a", "b"}, Service()])
def test_what_reads_differently_in_each_process_makes_no_name(value: object) -> None:
    for template in ("p({0})", "p({0!r})", "p({item_id})"):
        with pytest.raises(ValueError, match="another one in each process"):
            named(template, process, value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{0.nope}", "no attribute 'nope'"),
        ("{0[1]}", "subscriptable"),
        ("{0:%Q%}", "Invalid format"),
    ],
)
def test_a_placeholder_that_fits_no_value_names_function_and_template(
    template: str, words: str
) -> None:
    with pytest.raises(ValueError, match=f"for process cannot be made: .*{words}"):
        named(template, process, 5)


def test_a_call_that_the_function_would_not_take_is_refused_as_it_would() -> None:
    with pytest.raises(TypeError, match=r"process\(\) missing a required argument: 'item_id'"):
        named("all", process)


def test_the_parameters_must_be_known() -> None:
    with pytest.raises(TypeError, match=r"parameters of .*not known"):
        Naming("{0}", type)


def test_a_name_without_arguments_has_no_placeholders() -> None:
    assert plain("reindex {{all}}") == "reindex {all}"
    with pytest.raises(ValueError, match="with block, which has no arguments"):
        plain("reindex {0}")
    with pytest.raises(ValueError, match="with block, which has no arguments"):
        plain("reindex {item}")
