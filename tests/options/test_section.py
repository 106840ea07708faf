"""A section of options: what its keys take, in which words a mistake is said, what stays as it is."""

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import ValidationError

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.section import (
    MOST_SEED,
    Expected,
    From0,
    From1,
    Key,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    Text,
    Texts,
    Whole,
    YesOrNo,
    mistakes_in,
    whole_numbers,
)


class Inner(Section):
    """An inner section."""

    rate: Positive = Key(..., "A rate.")
    times: From1 = Key(1, "A count.")


class Outer(Section):
    """A section with a key of each type."""

    FORMS: ClassVar = {"of_*": (Inner, "Inner sections of any name."), "*_weight": (Number, "Weights.")}

    name: Text | None = Key(None, "A name.")
    names: Texts = Key([], "Names.")
    flag: YesOrNo = Key(False, "A flag.")
    count: From1 = Key(3, "A count.")
    start: From0 = Key(0, "A start.")
    shift: Whole = Key(-1, "A shift.")
    seed: Seed = Key(0, "A seed.")
    share: Share = Key(0.5, "A share.")
    way: Annotated[Literal["up", "down"], Expected("up or down")] = Key("up", "A way.")
    inner: Inner | None = Key(None, "A section.")
    by_name: dict[str, Inner] = Key({}, "Sections by names.")
    ours: From1 = Key(1, "A key of one class and its subclasses.", ("Base",))
    theirs: From1 = Key(1, "A key that only sources tell of.", ())


def mistakes(values: object, *above: str) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return list(mistakes_in(caught.value, *above))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": 3}, "name: expected text, got 3."),
        ({"names": "a"}, "names: expected a list of names, got 'a'."),
        ({"names": ["a", 1]}, "names: expected a list of names, got ['a', 1]."),
        ({"flag": 1}, "flag: expected true or false, got 1."),
        ({"count": 0}, "count: expected a whole number from 1, got 0."),
        ({"count": 2.5}, "count: expected a whole number from 1, got 2.5."),
        ({"count": True}, "count: expected a whole number from 1, got True."),
        ({"count": "3"}, "count: expected a whole number from 1, got '3'."),
        ({"start": -1}, "start: expected a whole number from 0, got -1."),
        ({"shift": 1.5}, "shift: expected a whole number, got 1.5."),
        ({"seed": MOST_SEED + 1}, f"seed: expected a whole number from 0 to {MOST_SEED}, got {MOST_SEED + 1}."),
        ({"share": 1.1}, "share: expected a number from 0 to 1, got 1.1."),
        ({"share": "1e-4"}, "share: expected a number from 0 to 1, got '1e-4'."),
        ({"way": "left"}, "way: expected up or down, got 'left'."),
        ({"inner": {}}, "inner:rate: is missing."),
        ({"inner": 3}, "inner: expected options as `key: value`, got 3."),
        ({"inner": {"rate": 0}}, "inner:rate: expected a number above 0, got 0."),
        ({"by_name": {"a": {"rate": "x"}}}, "by_name:a:rate: expected a number above 0, got 'x'."),
        ({"by_name": 3}, "by_name: expected options as `key: value`, got 3."),
        ({"of_x": {"rate": -1}}, "of_x:rate: expected a number above 0, got -1."),
        ({"pixel_weight": "x"}, "pixel_weight: expected a number, got 'x'."),
        ("x", "expected options as `key: value`, got 'x'."),
    ],
)
def test_a_mistake_is_said_with_its_key_and_what_is_expected(values: object, expected: str) -> None:
    assert mistakes(values) == [expected]


def test_all_mistakes_are_said_at_once_below_the_keys_of_the_section() -> None:
    found = mistakes({"count": 0, "of_x": {"rate": -1}, "inner": {"rate": 0}}, "a", "b")
    assert [line.split(": ")[0] for line in found] == ["a:b:count", "a:b:inner:rate", "a:b:of_x:rate"]


def test_what_has_no_value_has_its_default() -> None:
    assert Outer.model_validate({"count": None, "inner": None, "way": None}) == Outer()
    assert (Outer().count, Outer().way, Outer().inner, Outer().names) == (3, "up", None, [])


def test_whole_numbers_may_be_written_like_fractions() -> None:
    section = Outer.model_validate({"count": 2.0, "shift": -1e1, "share": 1})
    assert [(type(value), value) for value in (section.count, section.shift)] == [(int, 2), (int, -10)]
    assert (type(section.share), section.share) == (float, 1.0)


def test_the_whole_numbers_of_a_file_are_found_where_a_key_counts() -> None:
    values = {
        "count": 2.0, "share": 1.0, "name": 3.0, "other": 4.0, "start": 2.5, "shift": 3,
        "inner": {"rate": 5.0, "times": 6.0}, "by_name": {"times": {"rate": 1.0, "times": 7.0}, "b": 3},
        "of_x": {"rate": 2.0, "times": 8.0},
    }  # fmt: skip
    found = {path: number for path, _, _, number in whole_numbers(Outer, values, "top:")}
    assert found == {"top:count": 2, "top:inner:times": 6, "top:by_name:times:times": 7, "top:of_x:times": 8}


def test_nobody_writes_into_a_section() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().count = 4


def test_keys_of_forms_are_typed_and_other_keys_stay() -> None:
    section = Outer.model_validate({"of_x": {"rate": 1}, "whatever": [1]})
    assert section.of_x == Inner(rate=1)
    assert section.whatever == [1]


def test_reading_says_the_first_mistake_and_refuses_other_keys_where_only_these_may_stand() -> None:
    with pytest.raises(UserError, match=r"^where: count: expected a whole number from 1, got 0"):
        Outer.read("where", {"count": 0, "share": 3})
    with pytest.raises(UserError, match=r"^where: unknown key 'cuont'\. Did you mean count"):
        Outer.read("where", {"cuont": 1}, only_these=True)
    assert Outer.read("where", {"cuont": 1}).cuont == 1
    assert Outer.read("where", None) == Outer()


def test_a_key_is_known_to_its_classes_and_their_subclasses() -> None:
    class Base:
        pass

    class Sub(Base):
        pass

    everybodys = set(Outer.model_fields) - {"ours", "theirs"}
    assert Outer.known_to(None) == Outer.known_to(int) == everybodys
    assert Outer.known_to(Base) == Outer.known_to(Sub) == {*everybodys, "ours"}
