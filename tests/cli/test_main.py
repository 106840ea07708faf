"""What the command does before it runs: it answers without the package, and it completes lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import ROOT

import dfpg_plugin
from dfpg_cli import choices
from dfpg_cli.main import build_parser, main
from dfpg_plugin.data.faces import SPLITS
from dfpg_plugin.data.kernels import METHODS
from dfpg_plugin.reports.picture_choice import CHOICES
from dfpg_plugin.vggface.files import CHANNEL_ORDERS, INPUTS

HEAVY = {"basicsr", "cv2", "dfpg_plugin", "numpy", "torch"}
HELPS = """
import contextlib, sys
from dfpg_cli.main import build_parser, main
(commands,) = [action for action in build_parser()._actions if action.dest == "command"]
for line in (["--help"], ["--version"], *([name, "--help"] for name in commands.choices), ["prepare", "faces", "-h"]):
    with contextlib.suppress(SystemExit):
        main(line)
        raise AssertionError(line)
print("modules:", *sys.modules)
"""


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, (str(folder), str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60)


def test_help_of_every_command_imports_nothing_heavy(tmp_path: Path) -> None:
    done = run(["-c", HELPS], tmp_path)
    assert done.returncode == 0, done.stderr
    said, modules = done.stdout.split("modules: ")
    assert said.count("usage: basicsr") == 13
    assert "argparse" in modules.split()
    assert not HEAVY & set(modules.split())


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"dfpg_plugin {dfpg_plugin.__version__}\n"


def test_the_choices_are_those_of_the_package() -> None:
    assert tuple(SPLITS) == choices.SPLITS
    assert choices.KERNEL_METHODS == METHODS
    assert choices.PRIOR_INPUTS == INPUTS
    assert choices.CHANNEL_ORDERS == CHANNEL_ORDERS
    assert choices.PICTURE_CHOICES == CHOICES


def test_a_spawned_process_registers_before_it_unpickles(tmp_path: Path) -> None:
    """A worker of BasicSR's data set imports basicsr, which fails on today's torchvision without this package."""
    (tmp_path / "dfpg_plugin.py").write_text("print('registered', flush=True)\n")
    (tmp_path / "script.py").write_text(
        "import multiprocessing\n"
        "from dfpg_cli.main import main\n"
        "if __name__ == '__main__':\n"
        "    print('started', flush=True)\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=print, args=('worker',))\n"
        "    worker.start()\n"
        "    worker.join()\n"
    )
    assert run([str(tmp_path / "script.py")], tmp_path).stdout.split() == ["started", "registered", "worker"]


@pytest.mark.parametrize(
    ("line", "found"),
    [("basicsr res", {"restore"}), ("basicsr restore --det", {"--detector", "--detector-weights"}),
     ("basicsr prepare kernels --method ", set(choices.KERNEL_METHODS)), ("basicsr prepare ker", {"kernels"})],
)  # fmt: skip
def test_a_shell_completes_commands_options_and_choices(tmp_path: Path, line: str, found: set[str]) -> None:
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
    }  # fmt: skip
    done = run(["-c", "from dfpg_cli.main import main; main()"], tmp_path, **asked)
    assert {word.strip() for word in answer.read_text().splitlines()} == found, done.stderr


def test_each_command_says_what_it_does_in_a_line() -> None:
    (commands,) = [action for action in build_parser()._actions if action.dest == "command"]
    assert all(commands.choices[name].description for name in commands.choices)


def test_launchers_of_earlier_versions_still_start_the_command(tmp_path: Path) -> None:
    done = run(["-m", "dfpg_plugin.cli.main", "--version"], tmp_path)
    assert done.stdout == f"dfpg_plugin {dfpg_plugin.__version__}\n", done.stderr
