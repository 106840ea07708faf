"""Read and write a prepared folder's ``manifest.json``. An interrupted run continues from this file."""

import json
from pathlib import Path

from dfpg_plugin.checks import UserError, make_folder
from dfpg_plugin.files import read_json, whole_file

MANIFEST = "manifest.json"
MANIFEST_SECONDS = 30  # between two writes of the manifest, which is too large to write after each picture


def open_target(target: Path, settings: dict, key: str) -> dict[str, dict]:
    """Make the target or read its manifest; return the entries under the key ``key``, such as ``photographs``.

    Raises UserError for a target that is a file, has entries of other settings, or was not made by this command.
    """
    if target.is_file():
        raise UserError(f"{target}: is a file. Name a folder.")
    make_folder("target", target)
    path = target / MANIFEST
    if not path.exists():
        if any(target.iterdir()):
            raise UserError(f"{target}: is not empty, and this command did not make it. Name another folder.")
        write_manifest(target, settings, key, {})
        return {}
    manifest = read_json(path)
    changed = [name for name, value in settings.items() if manifest.get(name) != value]
    if changed and manifest.get(key):
        raise UserError(f"{target}: was made with other settings ({', '.join(changed)}). Name another folder.")
    return manifest.get(key, {})


def write_manifest(target: Path, settings: dict, key: str, entries: dict[str, dict]) -> None:
    """Write the settings, and the entries under the key ``key``."""
    with whole_file(target / MANIFEST) as file:
        file.write(json.dumps({**settings, key: entries}, indent=1).encode())
