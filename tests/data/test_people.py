"""The split by person: computed with another program than the package."""

import pytest

from dfpg_plugin.data.people import split_of


@pytest.mark.parametrize(
    ("person", "first_byte", "split"),
    [  # printf George_W_Bush | sha1sum
        ("George_W_Bush", 0xED, "train"),
        ("Tony_Blair", 0x18, "train"),
        ("AJ_Lamas", 0xB5, "test"),
        ("Aidan_Quinn", 0xDD, "test"),
        ("Adolfo_Aguilar_Zinser", 0x00, "val"),
        ("Abid_Hamid_Mahmud_Al-Tikriti", 0x8C, "val"),
    ],
)
def test_the_first_byte_of_the_sha1_decides(person: str, first_byte: int, split: str) -> None:
    remainder = {"val": {0}, "test": {1}, "train": set(range(2, 20))}[split]
    assert first_byte % 20 in remainder
    assert split_of(person) == split


def test_about_a_twentieth_of_people_is_for_each_of_validation_and_test() -> None:
    splits = [split_of(f"person {n}") for n in range(4000)]
    assert splits.count("val") == pytest.approx(13 / 256 * 4000, rel=0.2)  # 0, 20, ..., 240
    assert splits.count("test") == pytest.approx(13 / 256 * 4000, rel=0.2)
