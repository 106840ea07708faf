"""Write small results folders, as `basicsr test` does, for the tests of reports."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfpg_plugin.evaluation.records import MANIFEST, Record, append_chunk, read_run, set_file
from dfpg_plugin.reports.methods import Method

PSNR = {"type": "calculate_psnr", "better": "higher", "of": "image", "settings": {"crop_border": 0}, "uses": {}}
D_VGG = {
    "type": "calculate_vggface_distance", "better": "lower", "of": "image",
    "settings": {"weights": "a.pth", "layer": "pool5"}, "uses": {"weights_sha256": "ab"},
}  # fmt: skip
DETECTION = {
    "type": "detection_rate", "better": "higher", "of": "set", "settings": {"recogniser": "dlib"},
    "uses": {"recogniser": "dlib 20: HOG, ResNet"},
}  # fmt: skip
VERIFICATION = {
    "type": "verification_accuracy", "better": "higher", "of": "set", "settings": {"legacy_order": False, "seed": 0},
    "uses": {"recogniser": "dlib 20: HOG, ResNet"},
}  # fmt: skip
METRICS = {"psnr": PSNR, "d_vgg": D_VGG}


def record(index: int, name: str, **others: object) -> Record:
    """Return a record with the published name's sharp face and size."""
    gt, _, size = name.partition("_k")
    facts = {"gt": f"{gt}.png", "size": int(size) if size.isdecimal() else None, "pixels": name, **others}
    return Record(index=index, name=name, **facts)


def write_run(
    folder: Path,
    sets: Mapping[str, Sequence[Record]],
    metrics: Mapping[str, dict] = METRICS,
    images: str = "restored",
    **others: object,
) -> Path:
    """Write a finished evaluation."""
    folder.mkdir(parents=True)
    weights = {"file": "net.pth", "sha256": "0" * 64, "param_key": "params"} if images == "restored" else None
    method = {"images": images, "model_type": "SRModel", "network_g": None, "parameters": 1_500_000, "weights": weights}
    manifest = {
        "format": 1, "name": folder.name, "command": f"basicsr test -opt {folder.name}.yml", "started": "then",
        "finished": "now", "software": {"torch": "2", "dlib-bin": None}, "commit": "abc", "batch_size": 16,
        "machine": {"device": "CPU", "workers": 2}, "method": method, "metrics": dict(metrics),
        "sets": {name: {"count": len(records), "options": {"dataroot": name}} for name, records in sets.items()},
        **others,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    for name, records in sets.items():
        append_chunk(set_file(folder, name), 0, records)
    return folder


def drawn(seed: int, faces: int = 6, sizes: Sequence[int] = (5, 9), shift: float = 0.0) -> list[Record]:
    """Return records with random values: the same faces and noise for a seed, ``shift`` on every PSNR."""
    rng = np.random.default_rng(seed)
    names = [f"face{f}_k{s}" for f in range(faces) for s in sizes]
    levels = np.repeat(rng.normal(27, 2, faces), len(sizes)) + rng.normal(0, 0.5, len(names)) + shift
    distances = rng.gamma(2, 5, len(names))
    return [
        record(i, name, values={"psnr": float(levels[i]), "d_vgg": float(distances[i])}) for i, name in enumerate(names)
    ]


def method(label: str, *folders: Path) -> Method:
    """Read runs back as a method."""
    return Method(label, tuple(read_run(folder) for folder in folders))
