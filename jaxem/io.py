"""Saving and loading models without pickle: a zip of `.npy` arrays and a JSON header.

The file is one that `numpy.load` opens too: a member `header.json`, then a member per leaf, named
by its dotted path (`components.mean.npy`). The header holds

    format   "jaxem model"
    version  of this layout; a reader refuses newer ones
    model    {"class": name, "fields": {field: entry}}, an entry being either another such part
             or a leaf {"dtype": name, "shape": [...]}
    sha256   of the rest of the header (keys sorted), then of every leaf's bytes, sorted by path

Members are stored, never compressed, so that no file makes a reader allocate much more than its
own size. Numbers are little-endian; bfloat16, which `.npy` cannot name, is stored as uint16. The
checksum finds damage, not malice: whoever can write the file can write another model. But no file,
however made, runs code: classes come from one table, arrays are read with `allow_pickle=False`.
"""

import hashlib
import io
import json
import math
import os
import zipfile
from typing import Any, BinaryIO

import jax
import numpy as np

from jaxem import families
from jaxem.data import is_traced
from jaxem.hmm import HMM
from jaxem.mixture import Mixture
from jaxem.pytree import child_names
from jaxem.replacement import replace_file
from jaxem.stationary import Stationary

FORMAT_VERSION = 1

_FORMAT = "jaxem model"
_HEADER = "header.json"
_CLASSES: dict[str, Any] = {
    "Bernoulli": families.Bernoulli,
    "Categorical": families.Categorical,
    "DiagonalGaussian": families.DiagonalGaussian,
    "Gaussian": families.Gaussian,
    "HMM": HMM,
    "Mixture": Mixture,
    "MixtureFamily": families.MixtureFamily,
    "Poisson": families.Poisson,
    "SphericalGaussian": families.SphericalGaussian,
    "Stationary": Stationary,
    "TiedGaussian": families.TiedGaussian,
}
_INFINITIES = {  # legal ones: a probability or a rate of 0, a probability of 1
    ("Bernoulli", "logits"): (-math.inf, math.inf),
    ("Categorical", "logits"): (-math.inf,),
    ("Poisson", "log_rate"): (-math.inf,),
}
# dtype of a leaf -> dtype of its `.npy` member
_STORED_AS = {"bfloat16": "<u2", "float16": "<f2", "float32": "<f4", "float64": "<f8"}


def save(path: str | os.PathLike, model: Any) -> None:
    """Write a model to one file, replacing in a single step what was there.

    `model` is a `Mixture`, an `HMM` or any of their parts, with leaves that are JAX or NumPy arrays
    of bfloat16, float16, float32 or float64; every bit of them is kept. A choice of algorithm
    (`method`) is not. The path is taken as given: no ending is added, and a symbolic link is
    followed.

    The file is written beside its destination, synced to disk and renamed: after a crash the path
    holds the old file or the new one, never a part of one.

    Raises:
        TypeError: no model (of a fit's result save `.model`), tracers (call `save` outside `jit`,
            `vmap` and `grad`) or other leaves that are no such arrays.
        ValueError: what `load` would refuse: NaN, infinities other than those that mean a
            probability of 0 or 1 or a rate of 0, parts that do not fit each other.

    Examples:
        >>> import os, tempfile, jax, jaxem
        >>> weather = jaxem.Categorical.from_probs(jax.numpy.array([0.25, 0.75]))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = os.path.join(directory, "weather.npz")
        ...     jaxem.io.save(path, weather)
        ...     loaded = jaxem.io.load(path)
        >>> bool((loaded.logits == weather.logits).all())
        True
    """
    leaves: dict[str, np.ndarray] = {}
    header = {"format": _FORMAT, "version": FORMAT_VERSION, "model": _describe(model, "", leaves)}
    _check_fit(model)
    header["sha256"] = _checksum(header, leaves)
    replace_file(path, lambda file: _write(file, header, leaves))


def load(path: str | os.PathLike) -> Any:
    """The model that `save` wrote to `path`.

    Its leaves are NumPy arrays exactly as stored, so that float64 survives where JAX runs with
    32 bits; JAX converts them on use, and `jax.tree.map(jax.numpy.asarray, model)` does it once.

    Raises:
        FileNotFoundError: nothing is at `path` (or another OSError: it cannot be opened).
        ValueError: the file, which the message names, is truncated or altered, is no jaxem model,
            has a newer format, or holds what `save` refuses. Nothing in it is ever executed.
    """
    with open(path, "rb") as file:
        try:
            return _read(file)
        except Exception as error:  # zipfile, json and NumPy raise many kinds on damaged bytes
            reason = str(error) or repr(error)
            raise ValueError(f"cannot load {os.fspath(path)!r}: {reason}") from error


def _describe(part: Any, path: str, leaves: dict[str, np.ndarray]) -> dict[str, Any]:
    """Header entry of a model or a part of one; its leaves go to `leaves` as they are stored."""
    name = type(part).__name__
    if type(part) is not _CLASSES.get(name):
        raise TypeError(f"expected a jaxem model, got a {name}; of a fit's result save `.model`.")
    entries = {}
    for field in child_names(part):
        value, inner = getattr(part, field), f"{path}.{field}".lstrip(".")
        if type(value) in _CLASSES.values():
            entries[field] = _describe(value, inner, leaves)
        else:
            leaf = _as_leaf(value, inner)
            _check_numbers(leaf, name, inner)
            dtype = leaf.dtype.name
            entries[field] = {"dtype": dtype, "shape": list(leaf.shape)}
            bits = leaf.view(np.uint16) if dtype == "bfloat16" else leaf
            leaves[inner] = np.asarray(bits, dtype=_STORED_AS[dtype], order="C")
    return {"class": name, "fields": entries}


def _as_leaf(value: Any, path: str) -> np.ndarray:
    if is_traced(value):
        raise TypeError(f"{path} is a tracer, without numbers; save outside jit, vmap and grad.")
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    if not is_array or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{path} is a {type(value).__name__}; expected an array or a part.")
    if value.dtype.name not in _STORED_AS or not value.dtype.isnative:
        raise TypeError(f"{path} has dtype {value.dtype}, expected one of {', '.join(_STORED_AS)}.")
    return np.asarray(value)


def _check_numbers(leaf: np.ndarray, owner: str, path: str) -> None:
    legal = _INFINITIES.get((owner, path.split(".")[-1]), ())
    for number in (math.nan, math.inf, -math.inf):
        held = np.isnan(leaf) if math.isnan(number) else leaf == number
        if number not in legal and held.any():
            raise ValueError(f"{path} holds {number}, which {owner} cannot mean; mend the model.")


def _check_fit(model: Any) -> None:
    try:
        model.check()
    except Exception as error:  # a part of a wrong class trips over an attribute it lacks
        raise ValueError(f"the parts do not fit each other: {error}") from error


def _checksum(header: dict[str, Any], leaves: dict[str, np.ndarray]) -> str:
    content = {key: entry for key, entry in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for path in sorted(leaves):
        digest.update(leaves[path].tobytes())
    return digest.hexdigest()


def _write(file: BinaryIO, header: dict[str, Any], leaves: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # A ZipInfo is dated 1980 unless told: the same model makes the same bytes on every day.
        archive.writestr(zipfile.ZipInfo(_HEADER), json.dumps(header, indent=1))
        for path, leaf in leaves.items():
            info = zipfile.ZipInfo(f"{path}.npy")
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, leaf, (1, 0), allow_pickle=False)


def _read(file: BinaryIO) -> Any:
    size = os.fstat(file.fileno()).st_size
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{size} bytes, but no whole zip: truncated, or not a file of save.")
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        _check_members(archive.infolist(), size)
        header = _read_header(archive, members.pop(_HEADER, None))
        leaves = {name.removesuffix(".npy"): _read_leaf(archive, name) for name in members}
    checksum = _checksum(header, leaves)
    model = _build(header["model"], "", leaves)
    if leaves:
        raise ValueError(f"unexpected members {sorted(leaves)}, which the header does not name.")
    if checksum != header["sha256"]:
        raise ValueError("the checksum does not match: the file was altered after it was saved.")
    _check_fit(model)
    return model


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse archives that `save` cannot have made before anything is read, zip bombs above all."""
    if len({info.filename for info in members}) < len(members):
        raise ValueError("the archive has two members of one name.")
    for info in members:
        plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        if not plain or info.compress_size != info.file_size:
            raise ValueError(f"{info.filename!r} is compressed or encrypted; `save` does neither.")
    if sum(info.file_size for info in members) > size:
        raise ValueError(f"its members claim more than the {size} bytes of the file.")


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> dict[str, Any]:
    if info is None:
        raise ValueError(f"no {_HEADER}: an archive, but not one that jaxem.io.save wrote.")
    header = json.loads(archive.read(info))
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f'{_HEADER} does not say "format": "{_FORMAT}".')
    version = header.get("version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        known = f"1 to {FORMAT_VERSION}"
        raise ValueError(f"format version {version!r}, but {known} are known here; update jaxem.")
    if header.keys() != {"format", "version", "model", "sha256"}:
        raise ValueError(f"{_HEADER} has entries {sorted(header)}; expected model and sha256 too.")
    return header


def _read_leaf(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = io.BytesIO(archive.read(name))  # compares the CRC: what follows parses sound bytes
    try:
        if not name.endswith(".npy") or np.lib.format.read_magic(member) != (1, 0):
            raise ValueError("expected an .npy file of version 1.0.")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        size = len(member.getbuffer()) - member.tell()
        if dtype.str not in _STORED_AS.values() or math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"its {size} bytes cannot be {dtype}{list(shape)}.")
        member.seek(0)
        return np.lib.format.read_array(member, allow_pickle=False)
    except Exception as error:
        raise ValueError(f"member {name!r} is no array of save: {error}") from error


def _build(entry: Any, path: str, leaves: dict[str, np.ndarray]) -> Any:
    """The part that a header entry describes; takes its leaves out of `leaves`."""
    if not isinstance(entry, dict) or entry.keys() != {"class", "fields"}:
        raise ValueError(f"{path or 'the model'} is described by {entry!r}; expected a class.")
    name, entries = entry["class"], entry["fields"]
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"unknown class {name!r}; expected one of {', '.join(_CLASSES)}.")
    expected = list(child_names(_CLASSES[name]))
    if not isinstance(entries, dict) or entries.keys() != set(expected):
        raise ValueError(f"{name} has fields {expected}, the header gives {entries!r}.")
    values = {}
    for field, inner in entries.items():
        at = f"{path}.{field}".lstrip(".")
        if isinstance(inner, dict) and inner.keys() == {"dtype", "shape"}:
            values[field] = _take_leaf(leaves, at, str(inner["dtype"]), inner["shape"])
            _check_numbers(values[field], name, at)
        else:
            values[field] = _build(inner, at, leaves)
    return _CLASSES[name](**values)


def _take_leaf(leaves: dict[str, np.ndarray], path: str, dtype: str, shape: Any) -> np.ndarray:
    stored = leaves.pop(path, None)
    if stored is None:
        raise ValueError(f"no member {path}.npy, which the header names.")
    if (_STORED_AS.get(dtype), shape) != (stored.dtype.str, list(stored.shape)):
        found = f"{stored.dtype}{list(stored.shape)}"
        raise ValueError(f"{path}.npy is {found}, the header says {dtype}{shape}.")
    return stored.astype(stored.dtype.newbyteorder("="), copy=False).view(dtype)
