"""Who may import whom, read from the source."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from kit import ROOT

PACKAGE = ROOT / "dfpg_plugin"
COMMAND = ROOT / "dfpg_cli"
LEAVES = {"checks", "compiling", "files", "seeding", "weight_names", "__version__"}
# from the ground up: a room may import what stands above it and is named with it
ALLOWED = {
    "checks": set(),
    "compiling": set(),
    "compat": set(),
    "files": {"checks"},
    "seeding": set(),
    "weight_names": {"checks"},
    "losses": LEAVES,
    "options": LEAVES,
    "data": {*LEAVES, "options"},
    "media": {*LEAVES, "data"},
    "vggface": LEAVES,
    "archs": {*LEAVES, "vggface"},
    "speed": {*LEAVES, "archs", "options"},
    "metrics": {*LEAVES, "archs", "speed", "vggface"},
    "models": {*LEAVES, "options", "speed"},
    "runs": {*LEAVES, "models", "options"},
    "training": {*LEAVES, "compat", "data", "models", "options", "runs"},
    "evaluation": {*LEAVES, "data", "metrics", "models", "options", "runs", "speed"},
    "reports": {*LEAVES, "data", "evaluation", "metrics", "models", "options"},
    "preparation": {*LEAVES, "data", "vggface"},
    "restoration": {*LEAVES, "archs", "data", "media", "metrics", "models", "options", "speed"},
    "demo": {*LEAVES, "data", "media", "restoration"},
    "__init__": {"compat", "archs", "losses", "data", "metrics", "models", "restoration"},
}
ALLOWED["cli"] = {*ALLOWED, "__version__"} - {"losses"}
MOST = 0.12  # of the package's lines, in a room
FILES = sorted([*PACKAGE.rglob("*.py"), *COMMAND.rglob("*.py")])


def room_of(path: Path) -> str:
    return "cli" if COMMAND in path.parents else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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
            if parts[0] == COMMAND.name:
                rooms.add("cli")
            if parts[0] == PACKAGE.name:
                name = parts[1] if len(parts) > 1 else "__init__"
                is_room = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() or name == "__version__"
                rooms.add(name if is_room else "__init__")
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    room = room_of(path)
    assert imported_rooms(path) <= ALLOWED[room] | {room}


def test_the_arrows_make_no_circle() -> None:
    left = dict(ALLOWED)
    while ground := [room for room, below in left.items() if not below & set(left)]:
        for room in ground:
            del left[room]
    assert not left


def test_no_room_holds_more_than_its_share() -> None:
    lines = Counter()
    for path in FILES:
        lines[room_of(path)] += len(path.read_text(encoding="utf-8").splitlines())
    assert not {room: count for room, count in lines.items() if count > MOST * lines.total()}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
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
