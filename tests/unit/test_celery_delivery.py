"""What is known of messages on their way, at whatever moment one asks."""

import pytest

from scannerjob.model.facts import Fact
from scannerjob.targets.celery.delivery import Delivery, TooLateError
from tests.support.celery_target import soon


def test_nothing_was_sent_of_what_was_never_handed_over() -> None:
    delivery = Delivery(["a"], soon())

    assert delivery.close()["a"].fact is Fact.NOT_SENT


def test_what_was_handed_over_and_not_answered_is_uncertain() -> None:
    delivery = Delivery(["a", "b", "c"], soon())
    delivery.hand_over(["a", "b"])
    delivery.answer("a", Fact.ACCEPTED)
    delivery.fail("the connection broke")

    known = delivery.close()

    assert known["a"].fact is Fact.ACCEPTED
    assert (known["b"].fact, known["b"].reason) == (Fact.UNCERTAIN, "the connection broke")
    assert (known["c"].fact, known["c"].reason) == (Fact.NOT_SENT, "the connection broke")


def test_nothing_is_handed_over_after_the_deadline() -> None:
    delivery = Delivery(["a"], soon(-1))

    with pytest.raises(TooLateError):
        delivery.hand_over(["a"])

    assert delivery.close()["a"].fact is Fact.NOT_SENT


def test_nothing_is_handed_over_once_it_was_closed() -> None:
    delivery = Delivery(["a"], soon())
    known = delivery.close()

    with pytest.raises(TooLateError):
        delivery.hand_over(["a"])

    assert known["a"].fact is Fact.NOT_SENT
