"""Who may import whom, read from the source."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "dfpg_plugin"
LEAVES = {"checks", "compiling", "files", "weight_names"}
ALLOWED = {  # room -> rooms that it may import; within itself it always may
    "checks": set(),
    "files": {"checks"},
    "weight_names": {"checks"},
    "compiling": set(),
    "compat": set(),
    "archs": LEAVES,
    "losses": LEAVES,
    "data": LEAVES,
    "models": LEAVES,
    "metrics": {*LEAVES, "archs"},
    "preparation": {*LEAVES, "archs", "data", "__init__"},
    "training": {*LEAVES, "compat", "data", "models"},
    "evaluation": {*LEAVES, "archs", "data", "metrics", "models", "training", "__init__"},
    "restoration": {*LEAVES, "archs", "data", "metrics", "models", "training", "__init__"},
    "demo": {*LEAVES, "data", "restoration"},
    "cli": {
        *(
            *LEAVES,
            "compat",
            "archs",
            "data",
            "metrics",
            "models",
            "preparation",
            "training",
            "evaluation",
            "restoration",
            "demo",
            "__init__",
        ),
    },
    "__init__": {"compat", "archs", "losses", "data", "metrics", "models"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "dfpg_plugin":
                name = parts[1] if len(parts) > 1 else "__init__"
                rooms.add(name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__")
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    room = room_of(path)
    assert imported_rooms(path) <= ALLOWED[room] | {room}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_compat_touches_sys_modules_and_other_packages_names(path: Path) -> None:
    if path.name == "compat.py":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {a.asname or a.name.split(".")[0] for n in imports for a in n.names}
    assert "modules" not in {a.name for n in imports if getattr(n, "module", "") == "sys" for a in n.names}
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.modules")
        assert not (isinstance(node, ast.Name) and node.id == "setattr")
        assigns = isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        targets = getattr(node, "targets", [getattr(node, "target", None)]) if assigns else []
        for target in targets:
            root = (
                ast.unparse(target).removeprefix("torch.backends.").split(".")[0]
            )  # torch's switches are meant to be set
            assert not (isinstance(target, ast.Attribute) and root in imported - {"sys"}), ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 260
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 60, node.name


def test_the_generators_forward_fits_on_a_screen() -> None:
    tree = ast.parse((PACKAGE / "archs" / "dfpgnet_arch.py").read_text())
    (net,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "DFPGNet"]
    (forward,) = [n for n in net.body if isinstance(n, ast.FunctionDef) and n.name == "forward"]
    assert forward.end_lineno - forward.lineno <= 25
