"""`basicsr prepare lmdb`: write a folder of images as one LMDB in BasicSR's layout."""

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import cv2
import lmdb
import numpy as np
from basicsr.utils.lmdb_util import read_img_worker
from tqdm import tqdm

from dfpg_plugin.checks import UserError, check_choice, check_folder
from dfpg_plugin.data.images import decode_image, list_images, read_image
from dfpg_plugin.data.naming import list_some
from dfpg_plugin.files import whole_file

MAP_SIZE = 2**40  # bytes, as in BasicSR's LmdbMaker; the file is sparse and grows with its content
MAX_KEY_BYTES = 511  # LMDB's own limit
BATCH = 256  # images in one commit
BATCH_BYTES = 2**28  # a commit ends at about this many bytes, because LMDB keeps uncommitted data in memory
STAMPS = b"\nstamps"  # the temporary database with the stamp of each image's file; no key can have this name
PNG_HEADER = struct.Struct(">16xIIBB")  # width, height, bits, colour type
PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type


def write_lmdb(source: Path, target: Path, *, compress_level: int = 1) -> int:
    """Write every image below ``source`` into the LMDB ``target``; return the number of images.

    The layout is BasicSR's: ``data.mdb``, and ``meta_info.txt`` with a line ``key.png (h,w,c) level`` for each image. A
    key is the path below ``source`` without extension. A value is a PNG of ``compress_level`` (0 to 9) with the pixels
    that :func:`decode_image` returns. The LMDB is written as ``.{target.stem}.partial.lmdb`` beside the target and
    renamed at the end. Images that an interrupted run has written are kept, unless their files have changed.

    Raises UserError before writing if the source or the target's folder is missing, if the target exists or does not
    end in .lmdb, and for names that can't be keys. Raises UserError for damaged images after all others are written,
    and for a full disk.
    """
    check_choice("compress_level", compress_level, range(10))
    source, target = check_folder("source", source), Path(target).expanduser()
    check_folder("target", target.parent)
    if target.suffix != ".lmdb":
        raise UserError(f"{target}: the name of the LMDB to write must end in .lmdb.")
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} is already there. Remove it, or name another LMDB to write.")
    files = _files_by_key(list_images(source))
    partial = target.with_name(f".{target.stem}.partial.lmdb")
    try:
        with lmdb.open(str(partial), map_size=MAP_SIZE, max_dbs=1) as env:
            damaged = _fill(env, source, files, compress_level)
            if damaged:
                raise UserError(
                    f"{source}: {len(damaged)} of {len(files)} images can't be used: {list_some(damaged)}. Replace or "
                    "remove them and run this again: the others are kept."
                )
            _finish(env, partial, files, compress_level)
        os.rename(partial, target)
    except (lmdb.Error, OSError) as error:
        raise UserError(
            f"{target}: can't be written, in {partial.name} ({error}). Make room or free the folder, then run this "
            f"again: what is written is kept. Where {partial.name} itself is damaged, remove it."
        ) from error
    return len(files)


def _files_by_key(names: Sequence[str]) -> dict[str, str]:
    """Return the names by key. Raise UserError, listing the names, for those that can't be keys."""
    keys = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    # BasicSR encodes keys as ASCII, and reads each line of meta_info.txt up to the first dot
    problems: dict[str, Callable[[str], bool]] = {
        "are not ASCII": lambda key: not key.isascii(),
        "have a dot before the extension, where BasicSR ends the key": lambda key: "." in key,
        f"are longer than LMDB's {MAX_KEY_BYTES} bytes": lambda key: len(key) > MAX_KEY_BYTES,
        "begin or end with a blank, or hold a control character": lambda key: (
            key != key.strip() or (key.isascii() and not key.isprintable())
        ),
    }
    for what, is_bad in problems.items():
        _refuse([name for name, key in keys.items() if is_bad(key)], what)
    files: dict[str, str] = {}
    twins = []
    for name, key in keys.items():
        first = files.setdefault(key, name)
        if first != name:
            twins.append(f"{first} and {name}")
    _refuse(twins, "differ in the extension only")
    return files


def _refuse(names: Sequence[str], what: str) -> None:
    if names:
        raise UserError(f"names that can't be keys of an LMDB: {list_some(names)} {what}. Rename or remove them.")


def _fill(env: lmdb.Environment, source: Path, files: Mapping[str, str], compress_level: int) -> list[str]:
    """Write the new images and remove those whose files are gone. Return the names of damaged files."""
    stamps, images = env.open_db(STAMPS), env.open_db()
    damaged: list[str] = []
    pending = pending_bytes = 0
    txn = env.begin(write=True)
    try:
        gone = [key for key in txn.cursor(images).iternext(values=False) if key != STAMPS and key.decode() not in files]
        for key in gone:
            txn.delete(key, db=images)
            txn.delete(key, db=stamps)
        for key, name in tqdm(files.items(), desc=source.name, unit="image"):
            stamp = _stamp(source / name, compress_level)
            if txn.get(key.encode(), db=stamps) == stamp:
                continue
            try:
                content = _encode(source / name, key, compress_level)
            except UserError:
                damaged.append(name)
                continue
            txn.put(key.encode(), content, db=images)
            txn.put(key.encode(), stamp, db=stamps)
            pending += 1
            pending_bytes += len(content)
            if pending >= BATCH or pending_bytes >= BATCH_BYTES:
                txn.commit()
                pending = pending_bytes = 0
                txn = env.begin(write=True)
    except lmdb.Error:
        txn.abort()
        raise
    except BaseException:  # Ctrl+C: all images so far are whole
        txn.commit()
        raise
    txn.commit()
    return damaged


def _stamp(path: Path, compress_level: int) -> bytes:
    """Return the size, time and path of a file, and the level. If one of them changes, the image is written again."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {compress_level} {path.absolute()}".encode(errors="surrogateescape")


def _encode(path: Path, key: str, compress_level: int) -> bytes:
    """Return BasicSR's PNG of an image if the PNG holds the same pixels, else our own. Raise UserError for damage."""
    image = read_image(path)
    with suppress(UserError, cv2.error):
        encoded = read_img_worker(str(path), key, compress_level)[1].tobytes()
        if np.array_equal(decode_image(encoded, key), image):
            return encoded
    # BasicSR's PNG loses EXIF's rotation
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, compress_level])[1].tobytes()


def _finish(env: lmdb.Environment, partial: Path, keys: Iterable[str], compress_level: int) -> None:
    """Write ``meta_info.txt`` in the order of ``keys``, and remove the stamps."""
    with env.begin(write=True, buffers=True) as txn, whole_file(partial / "meta_info.txt") as file:
        for key in keys:
            width, height, _, colour = PNG_HEADER.unpack_from(txn.get(key.encode(), b""))
            file.write(f"{key}.png ({height},{width},{PNG_CHANNELS[colour]}) {compress_level}\n".encode())
        txn.drop(env.open_db(STAMPS, txn=txn))
