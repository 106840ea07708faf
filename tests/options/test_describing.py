"""What ``basicsr options`` prints, and what the documentation and editors get from it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from basicsr.utils.registry import DATASET_REGISTRY
from kit import ROOT

from dfpg_cli.main import main
from dfpg_plugin.evaluation.set_metrics import SET_METRICS
from dfpg_plugin.options import schema
from dfpg_plugin.options.describing import describe, json_schema
from dfpg_plugin.options.reading import read_option_file
from dfpg_plugin.options.section import Section, inner_section

SHIPPED = sorted((ROOT / "options").rglob("*.yml"))


def all_sections(section: type[Section] = schema.Options) -> Iterator[type[Section]]:
    yield section
    kinds = [field.annotation for field in section.model_fields.values()] + [kind for kind, _ in section.FORMS.values()]
    for inner in filter(None, map(inner_section, kinds)):
        yield from all_sections(inner)


def test_every_key_has_a_sentence() -> None:
    own = [kind.Options for _, kind in DATASET_REGISTRY if hasattr(kind, "Options")]
    for section in (*all_sections(), *own, *SET_METRICS.values()):
        assert section.__doc__ != Section.__doc__
        for key, field in section.model_fields.items():
            assert re.fullmatch(r"[^a-z].*[.]", str(field.description)), (
                f"{section.__name__}: {key}: {field.description}"
            )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_the_keys_of_the_shipped_files_are_explained(path: Path) -> None:
    opt = read_option_file(str(path))
    sections = {"train": schema.Train, "val": schema.Val, "logger": schema.Logger, "path": schema.PathSection}
    found = [key for name, section in sections.items() for key in (opt.get(name) or {}) if section.kind_of(key) is None]
    assert found == []
    assert [key for key in opt if schema.Options.kind_of(key) is None] == []
    for name, options in opt["datasets"].items():
        known = {*schema.DataSet.model_fields, *DATASET_REGISTRY.get(options["type"]).Options.model_fields}
        assert set(options) <= known, name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_editors_take_the_shipped_files(path: Path) -> None:
    jsonschema.validate(read_option_file(str(path)), json.loads(json_schema()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("train", "total_iter"), "many"),
        (("train", "optim_g", "lr"), -1),
        (("datasets", "train", "batch_size_per_gpu"), 0),
        (("path", "strict_load_g"), "yes"),
        (("val", "metrics", "psnr", "better"), "up"),
    ],
)
def test_editors_see_mistakes(key: tuple, value: object) -> None:
    opt = read_option_file(str(ROOT / "options" / "train_dfpg_orl.yml"))
    section = opt
    for name in key[:-1]:
        section = section[name]
    section[key[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(opt, json.loads(json_schema()))


def test_the_command_prints_type_default_and_meaning(capsys: pytest.CaptureFixture) -> None:
    assert main(["options"]) == 0
    out = capsys.readouterr().out
    assert "\nlogger - The log, the curves and the checkpoints of a training.\n" in out
    assert "  print_freq: a whole number from 1 (100)\n      Iterations between two lines of the log.\n" in out
    assert "  total_iter: a whole number from 1, needed\n" in out
    assert "\ndatasets:* with type: FaceBlurDataset - " in out
    assert "\nval:set_metrics:* with type: detection_rate - " in out
    assert main(["options", "--json-schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["train"]


def test_the_page_of_the_documentation_is_what_the_command_prints(capsys: pytest.CaptureFixture) -> None:
    assert main(["options", "--markdown"]) == 0
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == capsys.readouterr().out


def test_sections_come_in_the_order_of_a_file() -> None:
    paths = [section.path for section in describe({})]
    assert paths[0] == ""
    order = ["datasets:*", "path", "train", "val", "val:metrics:*", "logger", "dist_params"]
    assert [path for path in paths if path in order] == order
