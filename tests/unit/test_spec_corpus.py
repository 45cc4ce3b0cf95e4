import pytest

from scannerjob.model.spec import SpecError, parse_spec
from tests.corpus.cases import BAD, GOOD, Case


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_a_good_spec_is_accepted(case: Case) -> None:
    parse_spec(case.spec)


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_spec_is_refused_by_the_name_of_its_field(case: Case) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(case.spec)
    assert case.expected, "the case does not say what to expect"
    assert case.expected in str(error.value)
    assert "hunter2" not in str(error.value)
    assert not any(word in str(error.value) for word in ("should", "pattern", "^")), "not in words"
