"""Each option of each command arrives, as it was given, where the work is done. What it does there is tested there."""

import argparse
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dfpg_cli.main import build_parser, main

RESTORER = "dfpg_plugin.restoration.restorer.DFPGRestorer"
OUTPUTS = "dfpg_plugin.restoration.inputs.plan_outputs"
KERNELS = "dfpg_plugin.preparation.kernels.prepare_kernels"
PAIRS = "dfpg_plugin.preparation.pairs.prepare_pairs"
ORL = "dfpg_plugin.preparation.faces.prepare_faces"
LFW = "dfpg_plugin.preparation.lfw.prepare_lfw"
PHOTOS = "dfpg_plugin.preparation.photos.prepare_photos"
IMAGES = "dfpg_plugin.preparation.check.check_images"
PAIRED = "dfpg_plugin.preparation.check.check_pairs"
LMDB = "dfpg_plugin.preparation.lmdb.write_lmdb"
VGGFACE = "dfpg_plugin.preparation.vggface.convert_vggface"
STUDY = "dfpg_plugin.reports.study.run_study"
REPORT = "dfpg_plugin.reports.report.build_report"
PUBLISH = "dfpg_plugin.reports.publish.publish"
SERVE = "dfpg_plugin.demo.page.serve"
DESCRIBED = "dfpg_plugin.restoration.network.load_described"
OPTIONS = "dfpg_cli.run_options.read_options"
EVALUATE = "dfpg_plugin.evaluation.evaluate.evaluate"

OF_RUNS = [
    ("--opt b.yml", OPTIONS, "args.opt", "b.yml"), ("--launcher slurm", OPTIONS, "args.launcher", "slurm"),
    ("--debug", OPTIONS, "args.debug", True), ("--local_rank 3", OPTIONS, "args.local_rank", 3),
    ("--force_yml a=1 b:c=2", OPTIONS, "args.force_yml", ("a=1", "b:c=2")),
]  # fmt: skip
OF_NETWORKS = [
    ("--weights w", RESTORER, "weights", "w"), ("--opt o.yml", RESTORER, "option_file", "o.yml"),
    ("--device cuda:1", RESTORER, "settings.device", "cuda:1"),
    ("--batch-size 3", RESTORER, "settings.batch_size", 3), ("--amp float16", RESTORER, "settings.amp", "float16"),
]  # fmt: skip
TABLE: dict[str, list[tuple[str, str, str, object]]] = {  # (option, what gets it, under what name, value)
    "train -opt a.yml": [*OF_RUNS, ("--auto_resume", OPTIONS, "args.auto_resume", True)],
    "test -opt a.yml": [
        *OF_RUNS, ("--images blurred", OPTIONS, "needs_network", False),
        ("--images blurred", EVALUATE, "images", "blurred"), ("--workers 0", EVALUATE, "workers", 0),
    ],
    "report m": [
        ("--out o", PUBLISH, "folder", Path("o")), ("--title T", REPORT, "title", "T"),
        ("--resamples 9", REPORT, "resamples", 9), ("--seed 4", REPORT, "seed", 4),
        ("--seed 4", PUBLISH, "choice.seed", 4),
        ("--pictures worst", PUBLISH, "choice.kind", "worst"), ("--num-pictures 2", PUBLISH, "choice.count", 2),
        ("--picture-metric k", PUBLISH, "choice.metric", "k"),
    ],
    "study -opt a.yml --test t.yml -o out": [
        ("--opt b.yml c.yml", STUDY, "files", ["b.yml", "c.yml"]), ("--test u.yml", STUDY, "test", "u.yml"),
        ("--seeds 5 3", STUDY, "seeds", [5, 3]), ("--jobs 4", STUDY, "jobs", 4),
        ("--out o", STUDY, "logs", Path("o/logs")), ("--out o", PUBLISH, "folder", Path("o")),
        ("--title T", REPORT, "title", "T"),
    ],
    "prepare faces -o out --lfw l": [
        ("--out o", LFW, "target", Path("o")), ("--lfw m", LFW, "source", Path("m")),
        ("--format webp", LFW, "file_format.kind", "webp"), ("--format jpg --quality 7", LFW, "file_format.quality", 7),
    ],
    "prepare faces -o out --photos p": [
        ("--photos q", PHOTOS, "folder", Path("q")), ("--format jpg", PHOTOS, "file_format.kind", "jpg"),
        ("--detector facexlib", PHOTOS, "cut_faces.detector", "facexlib"),
        ("--detector facexlib --detector-weights w", PHOTOS, "cut_faces.detector_weights", "w"),
        ("--min-side 99", PHOTOS, "cut_faces.min_side", 99), ("--min-score 0.7", PHOTOS, "cut_faces.min_score", 0.7),
    ],
    "prepare faces -o out --split val": [("--split test", ORL, "split", "test")],
    "prepare kernels -o out": [
        ("--out o", KERNELS, "folder", Path("o")), ("--method boracchi-foi", KERNELS, "method", "boracchi-foi"),
        ("--sizes 5 3", KERNELS, "sizes", [5, 3]), ("--count 7", KERNELS, "count", 7), ("--seed 4", KERNELS, "seed", 4),
        ("--workers 2", KERNELS, "workers", 2),
    ],
    "prepare pairs -o out --faces f --kernels k": [
        ("--out o", PAIRS, "target", Path("o")), ("--faces g", PAIRS, "faces", Path("g")),
        ("--kernels l", PAIRS, "kernels", Path("l")), ("--sizes 5 3", PAIRS, "settings.sizes", (5, 3)),
        ("--per-size 2", PAIRS, "settings.kernels_per_size", 2), ("--first-id 11", PAIRS, "settings.first_id", 11),
        ("--kernel-range 2 4", PAIRS, "settings.kernel_range", (2, 4)), ("--limit 6", PAIRS, "settings.limit", 6),
        ("--cut 9", PAIRS, "settings.cut", 9), ("--crop 8", PAIRS, "settings.crop", 8),
        ("--suffix _x", PAIRS, "settings.suffix", "_x"), ("--seed 4", PAIRS, "settings.seed", 4),
    ],
    "prepare lmdb s -o t": [
        ("--out u", LMDB, "target", Path("u")),
        ("--compress-level 6", LMDB, "compress_level", 6),
    ],
    "prepare check f": [("--min-side 9", IMAGES, "min_side", 9), ("--workers 2", IMAGES, "workers", 2)],
    "prepare check f --gt g": [
        ("--gt h", PAIRED, "sharp", Path("h")),
        ("--min-side 9", PAIRED, "min_side", 9),
        ("--workers 2", PAIRED, "workers", 2),
    ],
    "prepare vggface s -o t": [
        ("--out u", VGGFACE, "target", Path("u")), ("--layers pool5 relu1_2", VGGFACE, "layers", ["pool5", "relu1_2"]),
        ("--input rgb255", VGGFACE, "input", "rgb255"), ("--channel-order bgr", VGGFACE, "channel_order", "bgr"),
    ],
    "restore a.png": [
        *OF_NETWORKS, ("--out o", OUTPUTS, "folder", Path("o")), ("--ext webp", OUTPUTS, "suffix", ".webp"),
        ("--side-by-side", OUTPUTS, "side_by_side", True), ("--overwrite", OUTPUTS, "overwrite", True),
        ("--skip-existing", OUTPUTS, "skip_existing", True), ("--mode aligned", RESTORER, "settings.mode", "aligned"),
        ("--detector dlib", RESTORER, "settings.detector", "dlib"),
        ("--detector facexlib --detector-weights w", RESTORER, "settings.detector_weights", "w"),
        ("--box 1,2,3,4 --box 5,6,7,8", RESTORER, "settings.boxes", ((1, 2, 3, 4), (5, 6, 7, 8))),
        ("--threshold 0.3", RESTORER, "settings.threshold", 0.3), ("--passes 1", RESTORER, "settings.passes", 1),
        ("--strength 0.4", RESTORER, "settings.strength", 0.4), ("--face-size 64", RESTORER, "settings.face_size", 64),
        ("--no-identity", RESTORER, "settings.recogniser", None),
    ],
    "export out.onnx": [("--weights w", DESCRIBED, "weights", "w"), ("--opt o.yml", DESCRIBED, "option_file", "o.yml")],
    "demo": [*OF_NETWORKS, ("--host 0.0.0.0", SERVE, "host", "0.0.0.0"), ("--port 99", SERVE, "port", 99)],
}  # fmt: skip
ELSEWHERE = {  # options whose effect is tested as a user sees it
    "train": {"--stock", "--dry-run"}, "test": {"--auto_resume"}, "report": {"--compare"},  # a test refuses the second
    "export": {"--out", "--grey", "--half", "--opset", "--discriminator", "--overwrite"},
    "list": {"--plugins"}, "options": {"--json-schema", "--markdown"},
}  # fmt: skip
ROWS = [(line, *row) for line, rows in TABLE.items() for row in rows]


class ArrivedError(Exception):
    """Carries what a function was given."""


def locate(target: str) -> tuple[object, str]:
    module, _, name = target.rpartition(".")
    return importlib.import_module(module), name


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], dict]:
    """Run a command up to the call of a function; return what the function would be given, by name."""
    monkeypatch.chdir(tmp_path)
    for name, answer in {
        OPTIONS: None, STUDY: {}, REPORT: None, "dfpg_plugin.reports.publish.check_target": None,
        "dfpg_plugin.reports.methods.read_methods": [SimpleNamespace(label="m")], OUTPUTS: [],
        "dfpg_plugin.reports.study.results_folder": Path(), "dfpg_plugin.restoration.inputs.find_inputs": [],
    }.items():  # fmt: skip
        monkeypatch.setattr(*locate(name), lambda *_, answer=answer, **__: answer)

    def run(line: str, target: str) -> dict:
        module, name = locate(target)
        signature = inspect.signature(ORIGINALS[target])

        def arrive(*args: object, **kwargs: object) -> None:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            raise ArrivedError(given.arguments)

        with monkeypatch.context() as patch:
            if target == SERVE:
                patch.setattr(*locate(RESTORER), lambda *_: None)
            patch.setattr(module, name, arrive)
            with pytest.raises(ArrivedError) as caught:
                main(line.split())
        return caught.value.args[0]

    return run


ORIGINALS = {target: getattr(*locate(target)) for _, _, target, _, _ in ROWS}


def look_up(arguments: dict, path: str) -> object:
    first, *rest = path.split(".")
    value = arguments[first]
    for name in rest:
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(("line", "option", "target", "path", "value"), ROWS)
def test_an_option_arrives_as_it_was_given(
    arrived: Callable, line: str, option: str, target: str, path: str, value: object
) -> None:
    assert look_up(arrived(f"{line} {option}", target), path) == value
    assert look_up(arrived(line, target), path) != value


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of all commands."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [leaf for action in below for child in action.choices.values() for leaf in leaves(child)] or [parser]


def long_names(parser: argparse.ArgumentParser) -> set[str]:
    names = {next(n for n in a.option_strings if n.startswith("--")) for a in parser._actions if a.option_strings}
    return names - {"--help", "--traceback"}


def test_no_option_is_left_out() -> None:
    for parser in leaves(build_parser()):
        command = parser.prog.removeprefix("basicsr ")
        options = [option for line, option, *_ in ROWS if line.startswith(command)]
        shown = {word for option in options for word in option.split() if word.startswith("--")}
        assert shown | ELSEWHERE.get(command, set()) == long_names(parser), command
