"""Options of set metrics act: whose detector with which files, and the seeds of the pairs and of the folds."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from results_folders import VERIFICATION, method, record, write_run

from dfpg_plugin.evaluation import set_metrics, summary, worker
from dfpg_plugin.evaluation.records import read_run
from dfpg_plugin.evaluation.set_metrics import Partners, VerificationOptions
from dfpg_plugin.metrics.verification import verify
from dfpg_plugin.reports.report import build_report

SCALES = {("dlib", None): 1.0, ("facexlib", None): 0.5, ("facexlib", "folder"): 3.0}  # of the embeddings
BLIND = ("facexlib", None)


@pytest.fixture(autouse=True)
def _recognisers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognisers whose embedding is the mean of a picture times a factor of their own; one of them finds no face."""

    def load(name: str, weights: str | None) -> SimpleNamespace:
        def embed(image: np.ndarray, *_: object) -> np.ndarray:
            return SCALES[name, weights] * image.mean(keepdims=True).ravel()

        found = [] if (name, weights) == BLIND else [np.zeros((5, 2))]
        return SimpleNamespace(
            find=lambda image: found, embed=embed, embed_only_face=embed, name=f"{name} {weights}", weights_sha256=""
        )

    for module in (set_metrics, worker):
        monkeypatch.setattr(module, "load_recogniser", load)


def write_photographs(folder: Path, people: int = 3, pictures: int = 2) -> None:
    folder.mkdir()
    for person in range(people):
        for picture in range(pictures):
            level = 20 + 40 * person + 3 * picture
            cv2.imwrite(str(folder / f"s{37 + person}_{picture}.png"), np.full((9, 7, 3), level, np.uint8))


def test_each_metric_asks_the_recogniser_and_the_files_that_its_options_name(small_set: Callable) -> None:
    asked = {f"{name} {weights}": {"recogniser": name, "weights": weights} for name, weights in SCALES}
    verification = {"type": "verification_accuracy", "photographs": "photographs", "identity": r"^(s\d+)"}
    section = {f"find {key}": {"type": "detection_rate", **options} for key, options in asked.items()}
    section |= {f"verify {key}": {**verification, **options} for key, options in asked.items()}
    files = small_set(people=1, sizes=(5,), metrics={}, set_metrics=section)
    write_photographs(files.folder / "photographs")
    run = read_run(files.run(images="blurred"))
    (image,) = run.sets["Small"]
    own = cv2.imread(image.lq_path).mean()
    for (name, weights), scale in SCALES.items():
        key = f"{name} {weights}"
        sees = (name, weights) != BLIND
        assert run.manifest["metrics"][f"find {key}"]["uses"]["recogniser"] == key
        assert image.values[f"find {key}"] == sees
        for photograph, distance, _, _ in image.pairs[f"verify {key}"]:
            other = cv2.imread(str(files.folder / "photographs" / photograph)).mean()
            assert distance == (pytest.approx((scale * (own - other)) ** 2) if sees else None)
        assert len(image.pairs[f"verify {key}"]) == 2


def test_the_seed_draws_the_partners(tmp_path: Path) -> None:
    write_photographs(tmp_path / "p", people=4, pictures=5)
    names = sorted(path.name for path in (tmp_path / "p").iterdir())

    def drawn(seed: int) -> list:
        partners = Partners(VerificationOptions(identity=r"^(s\d+)", seed=seed), tmp_path / "p", names, [], {})
        return [partners.partners_of(f"{name}_blurred", name) for name in names]

    assert drawn(3) == drawn(3)
    assert len({str(drawn(seed)) for seed in range(4)}) == 4


@pytest.mark.parametrize("options", [{}, {"seed": 1}, {"seed": 2}, {"legacy_order": True}])
def test_the_folds_of_log_and_report_are_those_of_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    rng = np.random.default_rng(0)
    distances = np.concatenate([rng.normal(0.9, 0.4, 33), rng.normal(1.3, 0.4, 33)]).clip(0)
    is_same = [True] * 33 + [False] * 33
    order = rng.permutation(66)  # the pairs of a list in its order, though the pictures have another
    pairs = [{"v": [("p", float(distances[i]), is_same[i], int(i))]} for i in order]
    records = [record(n, f"face{n:02d}", pairs=found) for n, found in enumerate(pairs)]
    section = VerificationOptions(pairs="list.txt", **options)
    metric = {**VERIFICATION, "settings": section.model_dump()}
    folder = write_run(tmp_path / "m", {"S": records}, {"v": metric})
    expected = verify(distances, is_same, **options).accuracy
    ways = [{}, {"seed": 1}, {"seed": 2}, {"legacy_order": True}]
    assert len({verify(distances, is_same, **way).accuracy for way in ways}) == len(ways)

    report = build_report([method("m", folder)], "T", 10, 0)
    assert report.sets[0].cells["v"]["m"].mean == pytest.approx(expected)
    said: list[str] = []
    monkeypatch.setattr(summary, "get_root_logger", lambda: SimpleNamespace(info=said.append))
    plan = SimpleNamespace(sets=[SimpleNamespace(name="S")], set_metrics={"v": section})
    summary.summarise(folder, plan)
    assert said == [f"Validation S\n\t # v: {expected:.4f} (66 pairs)"]
