"""What a report says: means, ranks, tests, and everything that is missing by name."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from results_folders import D_VGG, DETECTION, METRICS, PSNR, VERIFICATION, drawn, method, record, write_run

from dfpg_plugin.checks import UserError
from dfpg_plugin.evaluation.records import Record
from dfpg_plugin.metrics.verification import verify
from dfpg_plugin.reports.methods import read_methods
from dfpg_plugin.reports.paired_values import TestSet
from dfpg_plugin.reports.report import Report, as_dict, build_report
from dfpg_plugin.reports.tables import missing_lines


def report_of(*methods: object) -> Report:
    return build_report(methods, "Title", resamples=500, seed=0)


def test_means_sizes_ranks_and_tests(tmp_path: Path) -> None:
    good, bad = drawn(0, faces=12, shift=1.0), drawn(0, faces=12)
    a, b = write_run(tmp_path / "good", {"S": good}), write_run(tmp_path / "bad", {"S": bad})
    report = report_of(method("good", a), method("bad", b))
    (found,) = report.sets
    assert (len(found.images), found.faces) == (24, 12)
    cells = found.cells["psnr"]
    for label, records in (("good", good), ("bad", bad)):
        assert cells[label].mean == pytest.approx(np.mean([r.values["psnr"] for r in records]))
        assert cells[label].low < cells[label].mean < cells[label].high
        small = [r.values["psnr"] for r in records if r.size == 5]
        assert found.sizes[5]["psnr"][label].mean == pytest.approx(np.mean(small))
    assert (cells["good"].rank, cells["bad"].rank) == (1, 2)
    (test,) = found.tests["psnr"]
    assert (test.best, test.other, test.images, test.faces) == ("good", "bad", 24, 12)
    assert (test.difference, test.low, test.high) == pytest.approx((1, 1, 1))  # 1 dB on every image
    assert test.p == pytest.approx(2 / 2**12)
    assert {cell.rank for cell in found.cells["d_vgg"].values()} == {1}  # equal
    assert found.tests["d_vgg"][0].p == 1
    assert report.missing == ()


def test_lower_is_better_for_distances(tmp_path: Path) -> None:
    near = write_run(tmp_path / "near", {"S": [record(0, "a", values={"psnr": 1.0, "d_vgg": 2.0})]})
    far = write_run(tmp_path / "far", {"S": [record(0, "a", values={"psnr": 1.0, "d_vgg": 3.0})]})
    cells = report_of(method("far", far), method("near", near)).sets[0].cells["d_vgg"]
    assert (cells["near"].rank, cells["far"].rank) == (1, 2)


def test_references_take_no_rank(tmp_path: Path) -> None:
    folders = {
        images: write_run(tmp_path / images, {"S": drawn(0, shift=shift)}, images=images)
        for images, shift in (("sharp", 9.0), ("blurred", -3.0))
    }
    net = write_run(tmp_path / "net", {"S": drawn(0)})
    other = write_run(tmp_path / "other", {"S": drawn(0, shift=-1.0)})
    methods = [method("sharp", folders["sharp"]), method("blurred", folders["blurred"])]
    report = report_of(*methods, method("net", net), method("other", other))
    assert {k: cell.rank for k, cell in report.sets[0].cells["psnr"].items()} == {
        "sharp": None, "blurred": None, "net": 1, "other": 2,
    }  # fmt: skip
    assert [(test.best, test.other) for test in report.sets[0].tests["psnr"]] == [("net", "other")]


def test_missing_images_are_named_and_never_averaged_away(tmp_path: Path) -> None:
    """Three of twelve images are missing, each in its way; the better mean takes no rank."""
    good = drawn(0, shift=5.0)
    good[1] = Record(1, good[1].name, good[1].gt, 9, good[1].pixels, problem="missing")
    good[2] = Record(2, good[2].name, good[2].gt, 5, good[2].pixels, problem="60x64 px instead of 92x112 px")
    good[3] = record(3, good[3].name, values={"psnr": None, "d_vgg": 1.0})
    lacking = write_run(tmp_path / "lacking", {"S": good[:-1]})  # and one that is not there at all
    whole = write_run(tmp_path / "whole", {"S": drawn(0)})
    report = report_of(method("lacking", lacking), method("whole", whole))
    cells = report.sets[0].cells["psnr"]
    assert (cells["lacking"].count, cells["lacking"].expected, cells["lacking"].is_complete) == (8, 12, False)
    assert (cells["lacking"].rank, cells["whole"].rank) == (None, None)  # one method alone needs no mark
    named = {(m.metric, m.reason): m.images for m in report.missing if m.method == "lacking"}
    assert named == {
        ("psnr", "missing"): ("face0_k9",),
        ("psnr", "60x64 px instead of 92x112 px"): ("face1_k5",),
        ("psnr", "no value"): ("face1_k9",),
        ("psnr", "not in the results"): ("face5_k9",),
        ("d_vgg", "missing"): ("face0_k9",),
        ("d_vgg", "60x64 px instead of 92x112 px"): ("face1_k5",),
        ("d_vgg", "not in the results"): ("face5_k9",),
    }
    assert [m for m in report.missing if m.method != "lacking"] == []


def test_comparisons_leave_out_what_one_lacks(tmp_path: Path) -> None:
    lacking = write_run(tmp_path / "lacking", {"S": drawn(0, shift=-2.0)[:-3]})
    best, second = write_run(tmp_path / "best", {"S": drawn(0)}), write_run(tmp_path / "second", {"S": drawn(0)})
    report = report_of(method("lacking", lacking), method("best", best), method("second", second))
    tests = {test.other: test for test in report.sets[0].tests["psnr"]}
    assert (tests["lacking"].images, tests["lacking"].faces) == (9, 5)
    assert tests["lacking"].difference == pytest.approx(2)


def test_a_method_without_a_metric_or_a_set(tmp_path: Path) -> None:
    records = {"S": drawn(0), "T": drawn(1)}
    whole = write_run(tmp_path / "whole", records)
    part = write_run(tmp_path / "part", {"S": drawn(0)}, {"psnr": PSNR})
    report = report_of(method("whole", whole), method("part", part))
    assert math.isnan(report.sets[0].cells["d_vgg"]["part"].mean)
    missing = {(m.method, m.set, m.metric, m.reason) for m in report.missing}
    assert missing == {
        ("part", "S", "d_vgg", "metric not measured"),
        ("part", "T", None, "not measured on this set"),
    }
    assert report.sets[1].cells["psnr"]["whole"].rank is None  # nothing to compare with


def test_what_nobody_has_is_listed_once(tmp_path: Path) -> None:
    records = drawn(0)
    records[0] = record(0, records[0].name, values={"psnr": None, "d_vgg": 1.0})
    runs = [method(name, write_run(tmp_path / name, {"S": records})) for name in ("a", "b")]
    report = report_of(*runs)
    assert report.sets[0].cells["psnr"]["a"].is_complete
    assert [(m.method, m.metric, m.images) for m in report.missing] == [(None, "psnr", ("face0_k5",))]


def test_several_runs_of_a_method(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{i}", {"S": drawn(0, shift=float(i))}) for i in range(3)]
    cell = report_of(method("m", *runs)).sets[0].cells["psnr"]["m"]
    first = np.mean([r.values["psnr"] for r in drawn(0)])
    assert cell.run_means == pytest.approx((first, first + 1, first + 2))
    assert cell.mean == pytest.approx(first + 1)


def test_an_image_that_one_run_lacks_does_not_count(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", {"S": drawn(0)})
    part = write_run(tmp_path / "part", {"S": drawn(0)[1:]})
    cell = report_of(method("m", whole, part), method("n", whole)).sets[0].cells["psnr"]["m"]
    assert (cell.count, cell.expected, cell.is_complete) == (11, 12, False)
    assert cell.mean == pytest.approx(np.mean([r.values["psnr"] for r in drawn(0)[1:]]))
    assert cell.run_means == pytest.approx([cell.mean] * 2)  # of the images that count


def test_the_seed_alone_draws_intervals_and_tests(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folders = []
    for name in ("a", "b"):
        records = [record(i, f"face{i}_k5", values={"psnr": float(rng.normal(27, 2))}) for i in range(20)]
        folders.append(write_run(tmp_path / name, {"S": records}, {"psnr": PSNR}))
    numbers = []
    for seed in (0, 3, 0):
        report = build_report([method(f.name, f) for f in folders], "T", 50, seed)
        cell, (test,) = report.sets[0].cells["psnr"]["a"], report.sets[0].tests["psnr"]
        numbers.append((cell.low, cell.high, test.low, test.high, test.p))
        assert report.seed == as_dict(report)["statistics"]["seed"] == seed
    assert numbers[0] == numbers[2]
    assert all(one != other for one, other in zip(*numbers[:2], strict=True))


@pytest.mark.parametrize("seed", [0, 3])
def test_a_verification_is_that_of_its_settings_seed(tmp_path: Path, seed: int) -> None:
    records = verification_records(0)
    metric = {**VERIFICATION, "settings": {"legacy_order": False, "seed": seed}}
    folder = write_run(tmp_path / "m", {"S": records}, {"v": metric})
    pairs = [pair for r in records for pair in r.pairs["v"]]
    by_seed = [verify([d for _, d, _, _ in pairs], [same for _, _, same, _ in pairs], seed=s).accuracy for s in (0, 3)]
    assert by_seed[0] != by_seed[1]
    assert report_of(method("m", folder)).sets[0].cells["v"]["m"].mean == by_seed[seed != 0]


def test_p_values_are_adjusted_for_all_pairs_of_methods(tmp_path: Path) -> None:
    shifts = {"best": 2.0, "second": 1.0, "third": 0.0}
    runs = [method(k, write_run(tmp_path / k, {"S": drawn(0, faces=12, shift=v)})) for k, v in shifts.items()]
    tests = report_of(*runs).sets[0].tests["psnr"]
    assert [test.other for test in tests] == ["second", "third"]
    assert [test.p for test in tests] == pytest.approx([3 * 2 / 2**12] * 2)  # of three pairs


def test_p_belongs_to_the_difference_that_is_shown_where_faces_have_different_numbers_of_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    gaps = {f"face{f}_k{2 * i + 5}": float(rng.normal(0.4, 1)) for f in range(7) for i in range(1 + f % 5)}
    levels = {name: float(rng.normal(27, 2)) for name in gaps}
    runs = {
        "best": [record(i, n, values={"psnr": levels[n] + gap}) for i, (n, gap) in enumerate(gaps.items())],
        "other": [record(i, n, values={"psnr": levels[n]}) for i, n in enumerate(gaps)],
    }
    folders = {k: write_run(tmp_path / k, {"S": records}, {"psnr": PSNR}) for k, records in runs.items()}
    (test,) = report_of(*(method(k, folder) for k, folder in folders.items())).sets[0].tests["psnr"]
    assert (test.best, test.images, test.faces) == ("best", 18, 7)
    assert test.difference == pytest.approx(np.mean(list(gaps.values())))
    of_face = [sum(gap for name, gap in gaps.items() if name.startswith(f"face{f}_")) for f in range(7)]
    means = [np.dot(signs, of_face) / 18 for signs in itertools.product((1, -1), repeat=7)]  # a face's signs together
    assert test.p == pytest.approx(np.mean(np.abs(means) >= test.difference - 1e-9))


def verification_records(seed: int) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [
        record(i, f"face{i // 2}_k{5 + 2 * (i % 2)}", values={"detection": float(rng.random() < 0.8)},
               pairs={"v": [("p", float(rng.normal(0.2, 0.1)), True, 2 * i),
                            ("q", float(rng.normal(0.5, 0.1)), False, 2 * i + 1)]})
        for i in range(30)
    ]  # fmt: skip


def test_verification_and_detection(tmp_path: Path) -> None:
    records = verification_records(0)
    records[4] = record(
        4, records[4].name, values={"detection": 0.0}, pairs={"v": [("p", None, True, 8), ("q", None, False, 9)]}
    )
    folder = write_run(tmp_path / "m", {"S": records}, {"detection": DETECTION, "v": VERIFICATION})
    report = report_of(method("m", folder), method("n", folder))
    cell = report.sets[0].cells["v"]["m"]
    pairs = [pair for r in records if r is not records[4] for pair in r.pairs["v"]]
    expected = verify([d for _, d, _, _ in pairs], [same for _, _, same, _ in pairs], seed=0)
    assert cell.mean == pytest.approx(expected.accuracy)
    assert 0 < cell.low < cell.mean < cell.high <= 1
    assert (cell.count, cell.is_complete) == (29, True)
    assert report.sets[0].cells["detection"]["m"].mean == np.mean([r.values["detection"] for r in records])
    assert [m.images for m in report.missing if m.method is None] == [(records[4].name,)]


def test_a_verification_of_several_runs_is_that_of_the_images_which_count_in_all(tmp_path: Path) -> None:
    unfound = [("p", None, True, 8), ("q", None, False, 9)]
    runs, right = [], []
    for seed, missing in ((0, range(5)), (1, range(3, 9))):
        records = verification_records(seed)
        for i in missing:
            records[i] = record(i, records[i].name, values={}, pairs={"v": unfound})
        runs.append(write_run(tmp_path / str(seed), {"S": records}, {"v": VERIFICATION}))
        alone = report_of(method("m", runs[-1])).sets[0].cells["v"]["m"]
        assert alone.run_means == (alone.mean,)
    cell = report_of(method("m", *runs)).sets[0].cells["v"]["m"]
    assert cell.count == 21
    assert cell.mean == pytest.approx(np.mean(cell.run_means))
    assert cell.low < cell.mean < cell.high
    values = [TestSet("S", read_methods([str(run)]), {"v": VERIFICATION}) for run in runs]
    for test_set in values:
        of_run = test_set.values(test_set.methods[0], "v")
        right.append(dict(zip(test_set.names, zip(of_run.sums, of_run.counts, strict=True), strict=True)))
    both = [name for name in right[0] if right[0][name][1] and right[1][name][1]]
    shares = [sum(r[name][0] for name in both) / sum(r[name][1] for name in both) for r in right]
    assert cell.run_means == pytest.approx(shares)


@pytest.mark.parametrize(
    ("settings", "reason", "line_reason"),
    [
        ({"identity": "x"}, "no other photograph shows the person", ": no other photograph shows the person"),
        ({"pairs": "pairs.txt"}, "no method has a value", ""),
    ],
)
def test_an_image_without_pairs_is_listed_and_does_not_count(
    tmp_path: Path, settings: dict, reason: str, line_reason: str
) -> None:
    records = verification_records(0)
    records[4] = record(4, records[4].name, values={"detection": 1.0}, pairs={"v": []})
    metric = {**VERIFICATION, "settings": {**VERIFICATION["settings"], **settings}}
    report = report_of(method("m", write_run(tmp_path / "m", {"S": records}, {"v": metric})))
    assert [(m.method, m.images, m.reason) for m in report.missing] == [(None, (records[4].name,), reason)]
    (line,) = missing_lines(report)
    assert line == f"No method, S, v{line_reason} (1): {records[4].name}"
    cell = report.sets[0].cells["v"]["m"]
    assert (cell.count, cell.is_complete) == (29, True)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({}, "found in it, or in its photographs"), ({"unfound": "no_match"}, "is found in any of its photographs")],
)
def test_why_a_verification_has_no_pair_depends_on_what_counts(tmp_path: Path, settings: dict, reason: str) -> None:
    pairs = [[("p", 0.2, True, 0), ("q", 0.9, False, 1)]] * 11 + [[("p", None, True, 0), ("q", None, False, 1)]]
    records = [record(i, f"face{i:02d}", pairs={"v": found}) for i, found in enumerate(pairs)]
    metric = {**VERIFICATION, "settings": {"legacy_order": False, "seed": 0, **settings}}
    whole = [record(i, f"face{i:02d}", pairs={"v": pairs[0]}) for i in range(12)]
    runs = {"m": records, "whole": whole}
    report = report_of(*(method(k, write_run(tmp_path / k, {"S": v}, {"v": metric})) for k, v in runs.items()))
    (missing,) = report.missing
    assert missing.images == ("face11",)
    assert reason in missing.reason


def test_legacy_folds_are_cut_in_the_order_of_the_list(tmp_path: Path) -> None:
    """All pairs of one person first, whatever the images are called: then a fold holds one kind alone."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(0.4, 0.15, 30).clip(0), rng.normal(0.5, 0.15, 30).clip(0)
    records = [
        record(i, f"face{i:02d}", pairs={"v": [("p", float(one[i]), True, i), ("q", float(two[i]), False, 30 + i)]})
        for i in reversed(range(30))
    ]
    legacy = {**VERIFICATION, "settings": {"legacy_order": True, "seed": 0}}
    folder = write_run(tmp_path / "m", {"S": records}, {"v": legacy})
    expected = verify([*one, *two], [True] * 30 + [False] * 30, legacy_order=True).accuracy
    assert report_of(method("m", folder)).sets[0].cells["v"]["m"].mean == pytest.approx(expected)
    mixed = verify([d for pair in zip(one, two, strict=True) for d in pair], [True, False] * 30, legacy_order=True)
    assert mixed.accuracy != pytest.approx(expected)


def test_what_no_method_was_measured_on_is_missing_from_each(tmp_path: Path) -> None:
    """A picture that is nowhere in the results of anybody is not averaged away."""
    records = drawn(0)
    records[0] = Record(0, records[0].name, records[0].gt, 5, records[0].pixels, problem="missing")
    runs = [method(name, write_run(tmp_path / name, {"S": records})) for name in ("a", "b")]
    report = report_of(*runs)
    cell = report.sets[0].cells["psnr"]["a"]
    assert (cell.count, cell.expected, cell.is_complete, cell.rank) == (11, 12, False, None)
    named = {(m.method, m.metric, m.images, m.reason) for m in report.missing}
    assert named == {(m, k, ("face0_k5",), "missing") for m in ("a", "b") for k in ("psnr", "d_vgg")}


def test_faces_without_ground_truth_belong_together_by_name(tmp_path: Path) -> None:
    names = [f"f{face}_ker{ker:02d}_blur_k13" for face in range(3) for ker in range(1, 5)]
    records = [record(i, n, gt="", values={"psnr": 20.0 + i // 4, "d_vgg": 1.0}) for i, n in enumerate(names)]
    report = report_of(method("m", write_run(tmp_path / "m", {"S": records})))
    assert report.sets[0].faces == 3


def test_infinite_values_are_said_to_allow_no_test(tmp_path: Path) -> None:
    records = drawn(0)
    records[0] = record(0, records[0].name, values={"psnr": math.inf, "d_vgg": 1.0})
    infinite = method("a", write_run(tmp_path / "a", {"S": records}))
    report = report_of(infinite, method("b", write_run(tmp_path / "b", {"S": drawn(0)})))
    assert report.sets[0].tests["psnr"] == ()
    (missing,) = report.missing
    assert (missing.method, missing.images) == ("a", ("face0_k5",))
    assert "no test is possible" in missing.reason


def test_too_few_pairs_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "m", {"S": verification_records(0)[:4]}, {"v": VERIFICATION})
    report = report_of(method("m", folder))
    assert "v" not in report.sets[0].cells
    assert any("too few for 10 folds" in m.reason for m in report.missing)


def test_numbers_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    a = method("a", write_run(tmp_path / "a", {"S": drawn(0)}))
    other = {**METRICS, "psnr": {**PSNR, "settings": {"crop_border": 4}}}
    with pytest.raises(UserError, match=r"psnr was measured in two ways \(settings:crop_border: 0 / 4\)"):
        report_of(a, method("b", write_run(tmp_path / "b", {"S": drawn(0)}, other)))
    other = {**METRICS, "d_vgg": {**D_VGG, "uses": {"weights_sha256": "cd"}}}
    with pytest.raises(UserError, match=r"d_vgg was measured in two ways \(uses:weights_sha256: ab / cd\)"):
        report_of(a, method("c", write_run(tmp_path / "c", {"S": drawn(0)}, other)))
    moved = {**METRICS, "d_vgg": {**D_VGG, "settings": {"weights": "elsewhere.pth", "layer": "pool5"}}}
    report_of(a, method("d", write_run(tmp_path / "d", {"S": drawn(0)}, moved)))
    records = drawn(0)
    records[2] = record(2, records[2].name, pixels="other", values=records[2].values)
    with pytest.raises(UserError, match=r"S: the runs were measured on different pictures .* \(1\): face1_k5"):
        report_of(a, method("e", write_run(tmp_path / "e", {"S": records})))


def test_infinite_psnr_and_strict_json(tmp_path: Path) -> None:
    records = [record(i, f"f{i}", values={"psnr": math.inf, "d_vgg": None}) for i in range(3)]
    report = report_of(*(method(k, write_run(tmp_path / k, {"S": records})) for k in "ab"))
    assert report.sets[0].cells["psnr"]["a"].mean == math.inf
    assert report.sets[0].tests["psnr"] == ()
    content = json.loads(json.dumps(as_dict(report), allow_nan=False))
    assert content["sets"]["S"]["cells"]["psnr"]["a"]["mean"] == "inf"
    assert content["sets"]["S"]["images"] == {"f0": "f0", "f1": "f1", "f2": "f2"}
    assert content["methods"]["a"][0]["method"]["weights"]["sha256"] == "0" * 64


def test_runs_by_name_folder_and_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results" / "one", {"S": drawn(0)})
    write_run(tmp_path / "two", {"S": drawn(0)})
    methods = read_methods(["one", "two", "both=one,two"])
    assert [(m.label, len(m.runs)) for m in methods] == [("one", 1), ("two", 1), ("both", 2)]
    with pytest.raises(UserError, match="three is no results folder, nor a run in results/"):
        read_methods(["three"])
    with pytest.raises(UserError, match="two methods are called 'one'"):
        read_methods(["one", "one=two"])


def test_an_image_whose_pairs_are_left_out_in_part_is_named(tmp_path: Path) -> None:
    records = verification_records(0)
    half = [("p", None, True, 0), ("q", 0.5, False, 1)]
    records[4] = record(4, records[4].name, values={"detection": 1.0}, pairs={"v": half})
    metrics = {"detection": DETECTION, "v": VERIFICATION}
    whole = write_run(tmp_path / "whole", {"S": verification_records(0)}, metrics)
    found = report_of(method("whole", whole), method("m", write_run(tmp_path / "m", {"S": records}, metrics)))
    assert [(m.method, m.metric, m.images) for m in found.missing] == [("m", "v", (records[4].name,))]
    assert "some of its pairs are left out" in found.missing[0].reason


def test_a_label_that_mixes_is_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"S": drawn(0)})
    blurred = write_run(tmp_path / "blurred", {"S": drawn(0)}, images="blurred")
    with pytest.raises(UserError, match="a run of 'm' is named twice"):
        read_methods([f"m={one},{one}/"])
    with pytest.raises(UserError, match="'m' would average blurred pictures with other runs"):
        read_methods([f"m={one},{blurred}"])


def test_a_folder_with_an_equals_sign_or_a_comma_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "7", {"S": drawn(0)})  # what the part after the sign would mean
    write_run(tmp_path / "seed=7", {"S": drawn(1)})
    write_run(tmp_path / "a,b", {"S": drawn(1)})
    methods = read_methods(["seed=7", "a,b"])
    assert [(m.label, m.runs[0].folder.name) for m in methods] == [("seed=7", "seed=7"), ("a,b", "a,b")]
