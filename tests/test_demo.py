"""The README's first training, cut short: it learns, and its discriminator lives."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import DEMO_YAML, ROOT

NUM_ITER = 200  # the third layer starts to rise after about 100


@pytest.mark.slow
def test_the_demo_learns_from_its_first_iterations_on(basicsr: Callable, tmp_path: Path) -> None:
    forced = [f"train:total_iter={NUM_ITER}", f"val:val_freq={NUM_ITER}", "logger:print_freq=1"]
    done = basicsr("train", "-opt", DEMO_YAML, "--force_yml", *forced)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [dict(re.findall(r"(\w+): (\S+)", line)) for line in done.stderr.splitlines() if "l_g_pix:" in line]
    assert len(rows) == NUM_ITER

    def mean(key: str, part: list) -> float:
        return sum(float(row[key]) for row in part) / len(part)

    assert mean("l_g_pix", rows[-10:]) < 0.5 * mean("l_g_pix", rows[:5])
    assert mean("l_g_prior", rows[-10:]) < mean("l_g_prior", rows[:5])
    for key in ("cos_p1", "cos_p2", "cos_p3"):
        assert mean(key, rows[-10:]) > mean(key, rows[:1]) + 0.1, key
    for key in ("l_d_real", "l_d_fake"):
        assert min(float(row[key]) for row in rows[-10:]) > 0.01, key
    assert (tmp_path / "experiments" / "train_dfpg_orl" / "comparison_ORL-val.png").is_file()


def test_the_readme_names_the_demo_and_the_test_command_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\nbasicsr train -opt {DEMO_YAML.relative_to(ROOT)} " in readme
    _, after = readme.split("<!-- test command -->\n```bash\n")
    assert 'pytest -n 2 -m "not harness"' in after.split("\n```")[0]
