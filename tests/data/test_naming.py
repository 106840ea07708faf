"""The published names: read, built and paired, against pairs written by hand."""

import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.naming import blurred_name, list_some, pair_by_name, parse_blurred_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("00001_ker11_blur_k13.png", ("00001", 11, 13, "")),
        ("1_ker01_blur_k27.png", ("1", 1, 27, "")),
        ("deep/1_ker01_blur_k27_random.png", ("1", 1, 27, "_random")),
        ("Helen_1_2_KER30_Blur_K15.PNG", ("Helen_1_2", 30, 15, "")),
        ("a_ker01_blur_k13_ker02_blur_k15.jpg", ("a_ker01_blur_k13", 2, 15, "")),
        ("x.y_ker100_blur_k13.png", ("x.y", 100, 13, "")),
        ("1_ker1_blur_k13.png", None),  # kernel ids have two digits or more
        ("_ker01_blur_k13.png", None),
        ("1_ker01_blur_k.png", None),
        ("1.png", None),
        ("1ker01_blur_k13.png", None),
    ],
)
def test_what_a_published_name_says(name: str, expected: tuple | None) -> None:
    assert parse_blurred_name(name) == expected


def test_the_published_name_is_built() -> None:
    assert blurred_name("00001", 11, 13) == "00001_ker11_blur_k13.png"
    assert blurred_name("a_b", 1, 27, "_random") == "a_b_ker01_blur_k27_random.png"
    assert blurred_name("1", 101, 15) == "1_ker101_blur_k15.png"


@pytest.mark.parametrize(
    ("blurred", "sharp"),
    [
        # blurred file -> its ground truth; what is in `sharp` beyond the values is the trap
        ({"1_ker01_blur_k13.png": "1.png", "10_ker01_blur_k13.png": "10.png", "1_ker02_blur_k13.png": "1.png"}, []),
        ({"a_b_ker01_blur_k13.png": "a_b.png", "a_ker01_blur_k13.png": "a.png", "b_ker30_blur_k27.png": "b.png"}, []),
        ({"a_ker01_blur_k13_ker02_blur_k15.png": "a_ker01_blur_k13.png", "a_ker02_blur_k15.png": "a.png"}, []),
        ({"1_ker01_blur_k13_random.png": "1.png"}, []),
        ({"1_ker01_blur_k13_random.png": "1_random.png"}, []),
        ({"1_ker01_blur_k13_random.png": "1_random.png", "1_ker01_blur_k13.png": "1.png"}, []),
        ({"1_random_ker01_blur_k13.png": "1_random.png", "1_ker01_blur_k13.png": "1.png"}, []),
        ({"1.png": "1.png", "10.png": "10.png"}, []),
        ({"1_ker01_blur_k13.png": "1_ker01_blur_k13.png", "1_ker02_blur_k13.png": "1.png"}, []),  # equal stems first
        ({"Face_KER01_BLUR_K13.PNG": "face.jpg"}, []),
        ({"face_ker01_blur_k13.png": "FACE.PNG"}, []),
        ({"face_ker01_blur_k13_Random.png": "face_random.png"}, []),
        ({"face_ker01_blur_k13.png": "face.png", "FACE_ker01_blur_k13.png": "FACE.png"}, []),
        ({"x/1_ker01_blur_k13.png": "y/z/1.png", "w/2_ker01_blur_k13.png": "2.png"}, []),
    ],
)
def test_pairs(blurred: dict[str, str], sharp: list[str]) -> None:
    names = sorted({*blurred.values(), *sharp}, reverse=True)
    assert pair_by_name(list(reversed(blurred)), names) == sorted(blurred.items())


def test_all_that_is_missing_is_listed() -> None:
    blurred = ["1_ker01_blur_k13.png", "10_ker01_blur_k13.png", "3_ker01_blur_k13.png"]
    with pytest.raises(UserError) as error:
        pair_by_name(blurred, ["10.png", "100.png", "0.png"])
    assert str(error.value) == (
        "blurred files without ground truth (2): 1_ker01_blur_k13.png, 3_ker01_blur_k13.png; "
        "ground truths without a blurred file (2): 0.png, 100.png. "
        "Restore what is missing, or remove or rename these."
    )


def test_of_many_missing_files_twenty_are_listed() -> None:
    blurred = [f"{i:02d}_ker01_blur_k13.png" for i in range(31)]
    with pytest.raises(UserError) as error:
        pair_by_name([*blurred, "x.png"], ["x.png", *(f"gt{i:02d}.png" for i in range(22))])
    text = str(error.value)
    assert text.startswith("blurred files without ground truth (31): 00_ker01_blur_k13.png, 01_")
    assert "19_ker01_blur_k13.png and 11 more; ground truths without a blurred file (22): gt00.png, " in text
    assert "gt19.png and 2 more. " in text
    assert "\n" not in text


@pytest.mark.parametrize(("suffix", "number"), [("2", 1), ("_ker02_blur_k5", 1), ("", -3)])
def test_names_that_would_not_be_read_back_are_refused(suffix: str, number: int) -> None:
    with pytest.raises(UserError, match="would be taken apart in another way"):
        blurred_name("a", number, 5, suffix)


def test_twenty_names_are_all_of_twenty() -> None:
    assert list_some([str(i) for i in range(20)]).endswith("18, 19")


def test_letter_case_that_leaves_two_ground_truths_is_an_error() -> None:
    with pytest.raises(UserError) as error:
        pair_by_name(["ab_ker01_blur_k13.png"], ["Ab.png", "aB.png"])
    assert "blurred files with several ground truths (1): ab_ker01_blur_k13.png (Ab.png or aB.png)" in str(error.value)
    assert "without" not in str(error.value)


@pytest.mark.parametrize("twin", ["1.jpg", "sub/1.png"])
def test_two_ground_truths_of_the_same_stem_are_an_error(twin: str) -> None:
    with pytest.raises(UserError, match=rf"^1.png and {twin} would be the ground truth of the same blurred files"):
        pair_by_name(["1_ker01_blur_k13.png"], ["1.png", twin])
