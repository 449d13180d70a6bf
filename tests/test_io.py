"""Saving and loading: what is stored comes back bit for bit, and nothing else is believed."""

import hashlib
import io
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxem
from jaxem.io import load, save

FIXTURE = Path(__file__).parent / "fixtures" / "format_1.npz"
FIXTURE_SHA256 = "3a47af593330b15a00aa1be35794a3642f232031f3c1d0b0f18e0a9d06150181"
DTYPES = ["bfloat16", "float16", "float32", "float64"]
posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links as on POSIX")


def draw(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(jnp.dtype(dtype))


def build(name: str, dtype: str = "float32") -> Any:
    """One model of every class, and nested ones; some logits and log-rates are -inf."""

    def leaf(*shape):
        return draw(*shape, dtype=dtype)

    def with_zero(*shape):
        values = leaf(*shape)
        values.flat[0] = -np.inf
        return values

    def rows(*shape):
        return jaxem.Categorical(with_zero(*shape))

    match name:
        case "Categorical":
            return rows(2, 3)
        case "Bernoulli":
            logits = with_zero(2, 3)
            logits.flat[1] = np.inf
            return jaxem.Bernoulli(logits)
        case "Poisson":
            return jaxem.Poisson(with_zero(3))
        case "Gaussian":
            return jaxem.Gaussian(leaf(2, 3), leaf(2, 6))
        case "TiedGaussian":
            return jaxem.TiedGaussian(leaf(2, 3), leaf(6))
        case "DiagonalGaussian":
            return jaxem.DiagonalGaussian(leaf(2, 3), leaf(2, 3))
        case "SphericalGaussian":
            return jaxem.SphericalGaussian(leaf(2, 3), leaf(2))
        case "Stationary":
            return jaxem.Stationary()
        case "MixtureFamily":
            return jaxem.MixtureFamily(rows(2, 3), jaxem.Poisson(with_zero(6)))
        case "MixtureFamily of MixtureFamily":
            inner = jaxem.MixtureFamily(
                rows(6, 2), jaxem.DiagonalGaussian(leaf(12, 1), leaf(12, 1))
            )
            return jaxem.MixtureFamily(rows(2, 3), inner)
        case "Mixture":
            return jaxem.Mixture(rows(2), build("Gaussian", dtype))
        case "Mixture of MixtureFamily":
            return jaxem.Mixture(rows(2), build("MixtureFamily", dtype))
        case "HMM":
            return jaxem.HMM(rows(2), rows(2, 2), build("Categorical", dtype))
        case "HMM from its stationary distribution":
            transition = jaxem.Categorical(leaf(2, 2))
            return jaxem.HMM(jaxem.Stationary(), transition, build("TiedGaussian", dtype))
        case "HMM with a transition per step":
            return jaxem.HMM(rows(2), rows(4, 2, 2), build("Bernoulli", dtype))
        case "HMM of MixtureFamily of MixtureFamily":
            emission = build("MixtureFamily of MixtureFamily", dtype)
            return jaxem.HMM(rows(2), rows(2, 2), emission)
    raise AssertionError(name)


MODELS = [
    "Categorical",
    "Bernoulli",
    "Poisson",
    "Gaussian",
    "TiedGaussian",
    "DiagonalGaussian",
    "SphericalGaussian",
    "Stationary",
    "MixtureFamily",
    "MixtureFamily of MixtureFamily",
    "Mixture",
    "Mixture of MixtureFamily",
    "HMM",
    "HMM from its stationary distribution",
    "HMM with a transition per step",
    "HMM of MixtureFamily of MixtureFamily",
]


def assert_same(loaded, saved) -> None:
    """Same classes, and leaves that are NumPy arrays of the same dtype, shape and bits."""
    structures = jax.tree.structure(loaded), jax.tree.structure(saved)
    assert str(structures[0]) == str(structures[1])  # JAX holds those of two classes for equal
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(saved), strict=True):
        theirs = np.asarray(theirs)
        assert type(ours) is np.ndarray
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


def refused(path: Path, match: str) -> None:
    """`load` raises one ValueError that names the file and says what is wrong."""
    with pytest.raises(ValueError, match=match) as error:
        load(path)
    assert str(error.value).startswith(f"cannot load {str(path)!r}: ")


def npy(values, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def checksum(header: dict, members: dict[str, bytes]) -> str:
    """The checksum as the module describes it: the rest of the header, then the leaves by path."""
    content = {key: header[key] for key in header if key != "sha256"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(members, key=lambda name: name.removesuffix(".npy")):
        digest.update(members[name][10 + int.from_bytes(members[name][8:10], "little") :])
    return digest.hexdigest()


def alter(path: Path, edit, *, compression: int = zipfile.ZIP_STORED) -> None:
    """Rewrite a file after `edit(header, members)`, with CRCs and a checksum that fit again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members.pop("header.json"))
    before = json.dumps(header["sha256"])
    edit(header, members)
    if json.dumps(header.get("sha256")) == before:
        header["sha256"] = checksum(header, members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("header.json", json.dumps(header))
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A saved mixture of Gaussians, to be altered."""
    save(tmp_path / "model.npz", build("Mixture"))
    return tmp_path / "model.npz"


# What comes back


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back_bit_for_bit(name, dtype, tmp_path):
    model = build(name, dtype)
    save(tmp_path / "model", model)
    assert_same(load(tmp_path / "model"), model)


def test_the_comparison_of_models_sees_a_changed_bit_a_dtype_and_a_class():
    model = jaxem.Poisson(np.zeros(2, np.float32))
    assert_same(jaxem.Poisson(np.zeros(2, np.float32)), model)
    others = [
        jaxem.Poisson(np.array([0.0, -0.0], np.float32)),
        jaxem.Poisson(np.zeros(2, np.float16)),
        jaxem.Poisson(jnp.zeros(2, jnp.float32)),
        jaxem.Bernoulli(np.zeros(2, np.float32)),
    ]
    for other in others:
        with pytest.raises(AssertionError):
            assert_same(other, model)


def test_extreme_floats_come_back_bit_for_bit(tmp_path):
    extreme = np.array([-0.0, 5e-324, 1e38, np.nextafter(1, 2)])[:, None]
    model = jaxem.SphericalGaussian(extreme, extreme[::-1, 0])
    save(tmp_path / "model", model)
    assert_same(load(tmp_path / "model"), model)


def test_jax_leaves_come_back_as_numpy_arrays(tmp_path):
    model = jax.tree.map(jnp.asarray, build("Mixture"))
    save(tmp_path / "model", model)
    assert_same(load(tmp_path / "model"), model)


@pytest.mark.parametrize(
    "leaf",
    [
        np.asfortranarray(draw(3, 4)),
        draw(6, 4)[::2],
        np.broadcast_to(np.float32(1.5), (3, 2)),
    ],
    ids=["Fortran order", "strided", "broadcast"],
)
def test_layout_in_memory_does_not_matter(leaf, tmp_path):
    save(tmp_path / "model", jaxem.SphericalGaussian(leaf, np.zeros(3, np.float32)))
    loaded = load(tmp_path / "model").mean
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, leaf)


def test_loaded_model_computes_as_the_saved_one(tmp_path):
    model = jax.tree.map(jnp.asarray, build("Mixture"))
    save(tmp_path / "model", model)
    x = draw(5, 3)
    assert load(tmp_path / "model").log_likelihood(x) == model.log_likelihood(x)


def test_same_model_makes_the_same_bytes(tmp_path):
    for name in "ab":
        save(tmp_path / name, build("Mixture"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_reads_the_arrays_by_dotted_path(path):
    with np.load(path, allow_pickle=False) as archive:
        leaves = {name for name in archive.files if name != "header.json"}
        assert leaves == {"weights.logits", "components.mean", "components.log_cholesky"}
        np.testing.assert_array_equal(archive["components.mean"], build("Mixture").components.mean)


def test_file_of_format_version_1_still_loads():
    assert hashlib.sha256(FIXTURE.read_bytes()).hexdigest() == FIXTURE_SHA256
    model = load(FIXTURE)
    assert_same(model, fixture_model())


def fixture_model():
    """Exact numbers, every dtype, structural zeros and a nested family."""
    return jaxem.HMM(
        jaxem.Categorical(np.array([0.0, -np.inf], np.float32)),
        jaxem.Categorical(np.array([[-0.5, -1.25], [-np.inf, 0.0]], np.float64)),
        jaxem.MixtureFamily(
            jaxem.Categorical(np.array([[0.0, -0.75], [-2.0, 0.25]], np.float16)),
            jaxem.DiagonalGaussian(
                np.array([[-1.5, 0.1], [0.0, 2.0], [1e-3, -7.0], [3.25, 1e4]], np.float64),
                np.array([[0.0, -1.0], [0.5, 2.0], [-3.0, 1.0], [0.25, -0.125]], jnp.bfloat16),
            ),
        ),
    )


# The path


@pytest.mark.parametrize("name", ["model", "model.npz", "model.jaxem", "model.tar.gz", "mödel 1"])
@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_path_is_kept_as_given(name, kind, tmp_path):
    save(kind(tmp_path / name), build("Poisson"))
    assert os.listdir(tmp_path) == [name]
    assert_same(load(kind(tmp_path / name)), build("Poisson"))


def test_relative_path_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("model", build("Poisson"))
    assert os.listdir(tmp_path) == ["model"]
    assert_same(load("model"), build("Poisson"))


def test_saving_again_replaces_the_file(path):
    save(path, build("HMM"))
    assert_same(load(path), build("HMM"))
    assert os.listdir(path.parent) == [path.name]


def test_nothing_at_the_path_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "nothing" / "model", build("Poisson"))


@pytest.mark.parametrize("make", [os.mkdir, pytest.param(os.mkfifo, marks=posix)])
def test_directory_or_device_is_not_replaced(make, tmp_path):
    make(tmp_path / "here")
    with pytest.raises(ValueError, match="directory or a device"):
        save(tmp_path / "here", build("Poisson"))
    assert os.listdir(tmp_path) == ["here"]
    assert not (tmp_path / "here").is_file()


@posix
def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    before = os.umask(0o027)
    try:
        save(tmp_path / "ours", build("Poisson"))
        (tmp_path / "theirs").open("w").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == 0o640
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


@posix
def test_replacing_keeps_the_permissions_of_the_old_file(path):
    path.chmod(0o604)
    save(path, build("Poisson"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@posix
def test_symbolic_link_is_followed(path):
    link = path.with_name("link")
    link.symlink_to(path.name)
    save(link, build("Poisson"))
    assert link.is_symlink()
    assert_same(load(path), build("Poisson"))


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anything")
def test_read_only_file_is_not_replaced(path):
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        save(path, build("Poisson"))
    assert_same(load(path), build("Mixture"))


# Crashes


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failure_while_saving_leaves_the_old_file_and_nothing_else(
    function, error, path, monkeypatch
):
    old = path.read_bytes()

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(type(error)):
            save(path, build("HMM"))
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]
    save(path, build("HMM"))  # and without the failure it is replaced
    assert_same(load(path), build("HMM"))


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failure_of_a_first_save_leaves_nothing(function, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "model", build("Poisson"))
    assert os.listdir(tmp_path) == []


def test_whole_file_is_synced_before_it_takes_its_name(path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor):
        status = os.fstat(descriptor)
        events.append("directory" if stat.S_ISDIR(status.st_mode) else status.st_size)
        fsync(descriptor)

    def record_replace(source, target):
        assert os.path.dirname(source) == os.path.dirname(target)
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    save(path, build("HMM"))
    assert events[:2] == [path.stat().st_size, "replace"]
    if os.name == "posix":
        assert events[2:] == ["directory"]


def test_process_that_dies_while_saving_leaves_the_old_file(path):
    script = (
        "import os, sys, numpy, jaxem.io\n"
        "os.fsync = lambda descriptor: os._exit(7)\n"
        "jaxem.io.save(sys.argv[1], jaxem.Poisson(numpy.zeros(3)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert done.returncode == 7
    assert_same(load(path), build("Mixture"))


# What save refuses


@dataclass(frozen=True)
class Poisson:
    """A class of the same name is not the same class."""

    log_rate: np.ndarray


@pytest.mark.parametrize(
    "model",
    [None, {"log_rate": np.zeros(2)}, np.zeros(2), jaxem.Poisson, Poisson(np.zeros(2))],
    ids=["None", "dict", "array", "class", "namesake"],
)
def test_what_is_not_a_model_is_refused(model, tmp_path):
    with pytest.raises(TypeError, match="expected a jaxem model"):
        save(tmp_path / "model", model)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("leaf", "match"),
    [
        (None, "NoneType"),
        (1.5, "float"),
        ([0.0, 1.0], "list"),
        (Poisson(np.zeros(2)), "Poisson"),
        (jax.ShapeDtypeStruct((2,), np.float32), "ShapeDtypeStruct"),
        (np.ma.masked_array(np.zeros(2), [True, False]), "MaskedArray"),
        (np.array([0.0, None]), "dtype object"),
        (np.array([0, 1]), "dtype int64"),
        (np.zeros(2, ">f4"), "dtype >f4"),
        (np.array([True, False]), "dtype bool"),
        (np.array([0j, 1j]), "dtype complex128"),
        (np.array(["0", "1"]), "dtype <U1"),
        (np.zeros(2, [("a", "f4")]), "dtype"),
        (jnp.zeros(2, jnp.float8_e4m3fn), "dtype float8"),
        (jax.random.split(jax.random.key(0)), "dtype key"),
    ],
)
def test_leaf_that_is_no_array_of_floats_is_refused(leaf, match, tmp_path):
    with pytest.raises(TypeError, match=f"log_rate .*{match}"):
        save(tmp_path / "model", jaxem.Poisson(leaf))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_tracers_are_refused(transform, tmp_path):
    def save_inside(log_rate):
        save(tmp_path / "model", jaxem.Poisson(log_rate))
        return log_rate

    values = jnp.float32(0.0) if transform is jax.grad else jnp.zeros(2)
    with pytest.raises(TypeError, match="log_rate is a tracer"):
        transform(save_inside)(values)
    assert os.listdir(tmp_path) == []


def with_entry(name: str, field: str, value: float, dtype: str = "float32") -> Any:
    model = jax.tree.map(np.zeros_like, build(name, dtype))
    getattr(model, field).flat[-1] = value
    return model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "field", "legal"),
    [
        ("Categorical", "logits", [-np.inf]),
        ("Bernoulli", "logits", [-np.inf, np.inf]),
        ("Poisson", "log_rate", [-np.inf]),
        ("Gaussian", "mean", []),
        ("Gaussian", "log_cholesky", []),
        ("DiagonalGaussian", "log_scale", []),
    ],
)
def test_only_infinities_that_mean_something_are_saved_and_loaded(
    name, field, legal, dtype, tmp_path
):
    path = tmp_path / "model"
    for value in (np.nan, np.inf, -np.inf):
        model = with_entry(name, field, value, dtype)
        if value in legal:
            save(path, model)
            assert_same(load(path), model)
            continue
        with pytest.raises(ValueError, match=f"{field} holds {value}"):
            save(path, model)
        save(path, with_entry(name, field, 0.0, dtype))

        def put_value(_, members, model=model):
            stored = getattr(model, field)
            bits = stored.view("<u2") if dtype == "bfloat16" else stored
            members[f"{field}.npy"] = npy(bits)

        alter(path, put_value)
        refused(path, f"{field} holds {value}")


def test_parts_that_do_not_fit_each_other_are_neither_saved_nor_loaded(path):
    saved = path.read_bytes()
    components = build("Mixture").components
    for weights in (jaxem.Categorical(draw(3)), jaxem.Poisson(draw(2)), draw(2)):
        with pytest.raises(ValueError, match="do not fit each other"):
            save(path, jaxem.Mixture(weights, components))
    assert path.read_bytes() == saved

    def three_weights(header, members):
        header["model"]["fields"]["weights"]["fields"]["logits"]["shape"] = [3]
        members["weights.logits.npy"] = npy(draw(3))

    alter(path, three_weights)
    refused(path, "do not fit each other: .*weights")


# What load refuses


def test_altered_files_of_these_tests_load_when_nothing_is_altered(path):
    alter(path, lambda header, members: None)
    assert_same(load(path), build("Mixture"))


def test_flipped_byte_never_changes_the_model(tmp_path):
    path, model = tmp_path / "model", jaxem.Poisson(np.array([0.5, -np.inf], np.float32))
    save(path, model)
    whole = path.read_bytes()
    unnoticed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert_same(load(path), model)
            unnoticed += 1
        except ValueError as error:
            assert re.fullmatch(rf"cannot load {str(path)!r}: .+", str(error), re.DOTALL)
    assert unnoticed < len(whole) / 4  # dates and attributes in the directory of the zip


def test_truncated_file_is_refused_wherever_it_ends(tmp_path):
    path = tmp_path / "model"
    save(path, jaxem.Poisson(np.array([0.5, -np.inf], np.float32)))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "truncated")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"a,b\n1,2\n", pickle.dumps({"a": 1}), npy(np.zeros(3)), b"\0" * 4096],
    ids=["empty", "start of a zip", "CSV", "pickle", "npy", "zeros"],
)
def test_file_that_is_no_zip_is_refused(content, tmp_path):
    (tmp_path / "model").write_bytes(content)
    refused(tmp_path / "model", "no whole zip")


def test_archive_of_arrays_alone_is_refused(tmp_path):
    np.savez(tmp_path / "model.npz", mean=np.zeros(3))
    refused(tmp_path / "model.npz", r": no header\.json")


class Trap:
    """Unpickling it makes a directory."""

    def __init__(self, directory):
        self.directory = directory

    def __reduce__(self):
        return os.mkdir, (str(self.directory),)


@pytest.mark.parametrize("dtype", ["object", "float32"])
def test_pickled_objects_are_refused_and_not_run(dtype, tmp_path):
    path, made = tmp_path / "model", tmp_path / "made"
    save(path, jaxem.Poisson(np.zeros(1, np.float32)))
    trap = npy(np.array([Trap(made)], object), allow_pickle=True)

    def set_trap(header, members):
        header["model"]["fields"]["log_rate"]["dtype"] = dtype
        members["log_rate.npy"] = trap

    alter(path, set_trap)
    refused(path, "log_rate")
    assert not made.exists()
    np.load(io.BytesIO(trap), allow_pickle=True)  # control: the trap works
    assert made.exists()


@pytest.mark.parametrize("name", ["os.system", "Chain", "gaussian", "", "__class__", None, [], 1])
def test_unknown_class_is_refused(name, path):
    def rename(header, _):
        header["model"]["fields"]["components"]["class"] = name

    alter(path, rename)
    refused(path, "unknown class")


def test_other_class_with_the_same_fields_is_refused_by_the_checksum(tmp_path):
    path = tmp_path / "model"
    save(path, jaxem.Categorical(np.zeros((2, 3), np.float32)))

    def rename(header, _):
        header["model"]["class"] = "Bernoulli"
        header["sha256"] += " "

    alter(path, rename)
    alter(path, lambda header, _: header.update(sha256=header["sha256"].strip()))
    refused(path, "checksum")


def test_changed_number_is_refused_by_the_checksum(path):
    def change(header, members):
        mean = build("Mixture").components.mean.copy()
        mean[0, 0] += 1
        members["components.mean.npy"] = npy(mean)
        header["sha256"] = header["sha256"][::-1]

    alter(path, change)
    refused(path, "checksum")


@pytest.mark.parametrize("version", [999, 2, 0, -1, 1.0, "1", True, None, [1]])
def test_other_format_version_is_refused(version, path):
    alter(path, lambda header, _: header.update(version=version))
    refused(path, "format version .* update jaxem")


HEADERS = {
    "other format": (lambda header: header.update(format="numpy"), "does not say"),
    "no format": (lambda header: header.pop("format"), "does not say"),
    "no version": (lambda header: header.pop("version"), "format version None"),
    "no model": (lambda header: header.pop("model"), "expected model and sha256"),
    "another entry": (lambda header: header.update(more=1), "expected model and sha256"),
    "no sha256": (lambda header: header.pop("sha256"), "expected model and sha256"),
    "sha256 of another type": (lambda header: header.update(sha256=None), "checksum"),
    "model is a list": (lambda header: header.update(model=[]), "expected a class"),
    "model is a leaf": (
        lambda header: header.update(model={"dtype": "float32", "shape": []}),
        "the model is described by",
    ),
    "fields are a list": (lambda header: header["model"].update(fields=[]), "has fields"),
    "class without fields": (lambda header: header["model"].pop("fields"), "expected a class"),
    "field missing": (lambda header: header["model"]["fields"].pop("weights"), "has fields"),
    "field too many": (lambda header: header["model"]["fields"].update(more={}), "has fields"),
    "part is null": (
        lambda header: header["model"]["fields"].update(weights=None),
        "weights is described by None",
    ),
    "part for a leaf": (
        lambda header: header["model"]["fields"]["weights"]["fields"].update(
            logits={"class": "Stationary", "fields": {}}
        ),
        "unexpected members",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_header_that_describes_no_model_is_refused(case, path):
    edit, match = HEADERS[case]
    alter(path, lambda header, _: edit(header))
    refused(path, match)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float64", [2, 3]),
        ("float16", [2, 3]),
        ("bfloat16", [2, 3]),
        ("object", [2, 3]),
        (">f4", [2, 3]),
        (["float32"], [2, 3]),
        (None, [2, 3]),
        ("float32", [3, 2]),
        ("float32", [6]),
        ("float32", [2, 3, 1]),
        ("float32", [-2, -3]),
        ("float32", "23"),
        ("float32", None),
        ("float32", [10**30, 3]),
    ],
)
def test_leaf_of_other_dtype_or_shape_than_the_header_says_is_refused(dtype, shape, path):
    def change(header, _):
        header["model"]["fields"]["components"]["fields"]["mean"] = {"dtype": dtype, "shape": shape}

    alter(path, change)
    refused(path, r"components\.mean\.npy is float32\[2, 3\], the header says")


def test_missing_extra_and_renamed_members_are_refused(path):
    whole = path.read_bytes()
    alter(path, lambda _, members: members.pop("components.mean.npy"))
    refused(path, r"no member components\.mean\.npy")

    path.write_bytes(whole)
    alter(path, lambda _, members: members.update({"more.npy": npy(draw(2))}))
    refused(path, r"unexpected members \['more'\]")

    path.write_bytes(whole)
    alter(path, lambda _, members: members.update({"README.txt": b"0123456789ab"}))
    refused(path, "README.txt' is no array")

    path.write_bytes(whole)
    alter(path, lambda _, m: m.update({"components.mean": m.pop("components.mean.npy")}))
    refused(path, r"'components\.mean' is no array of save: expected an \.npy file of version 1\.0")

    path.write_bytes(whole)
    alter(path, lambda _, m: m.update({"components.means.npy": m.pop("components.mean.npy")}))
    refused(path, r"no member components\.mean\.npy")


def test_member_that_occurs_twice_is_refused(path):
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("components.mean.npy", npy(draw(2, 3)))
    refused(path, "two members of one name")


def test_compressed_members_are_refused(path):
    alter(path, lambda header, members: None, compression=zipfile.ZIP_DEFLATED)
    refused(path, "compressed")


def npy_header(header: str, content: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


SIX = draw(2, 3).tobytes()
BROKEN_MEMBERS = {
    "expression": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**12,)}", SIX),
    "larger than its bytes": npy_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}", SIX
    ),
    "smaller than its bytes": npy_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", SIX
    ),
    "empty but endless": npy_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, " + "9" * 30 + ")}"
    ),
    "negative": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3)}", SIX),
    "big-endian": npy(draw(2, 3).astype(">f4")),
    "integers": npy(np.zeros((2, 3), np.int32)),
    "text": npy(np.full((2, 3), "a")),
    "records": npy(np.zeros((2, 3), [("a", "<f4")])),
    "code": npy_header("__import__('os').abort()", SIX),
    "unhashable": npy_header("{[]: 1}", SIX),
    "unfinished": npy_header("{'descr': '''", SIX),
    "nested": npy_header("(" * 9000, SIX),
    "npy 2.0": b"\x93NUMPY\x02\x00" + b"\x02\x00\x00\x00{}" + SIX,
    "no npy": b"0123456789ab" + SIX,
    "empty": b"",
}


@pytest.mark.parametrize("case", BROKEN_MEMBERS)
def test_broken_array_is_refused(case, path):
    alter(path, lambda _, members: members.update({"components.mean.npy": BROKEN_MEMBERS[case]}))
    refused(path, r"'components\.mean\.npy' is no array of save: .")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe\xfd", "utf"),
        (b"[]", "does not say"),
        (b"[" * 200_000, "recursion"),
    ],
    ids=["empty", "unfinished", "no text", "list", "nested without end"],
)
def test_header_that_is_no_json_object_is_refused(text, match, tmp_path):
    path = tmp_path / "model"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", text)
    refused(path, match)


def set_in_directory(path: Path, values: dict[int, bytes]) -> None:
    """Overwrite bytes of the last member's entry in the directory of the zip."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    for offset, value in values.items():
        content[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(content)


FLAGS, METHOD, COMPRESSED_SIZE, SIZE = 8, 10, 20, 24  # offsets in an entry


@pytest.mark.parametrize(
    "values",
    [{FLAGS: b"\x01"}, {METHOD: b"\x08"}, {METHOD: b"\x63"}, {COMPRESSED_SIZE: b"\x00"}],
    ids=["encrypted", "deflated", "unknown method", "larger than its bytes"],
)
def test_members_marked_as_compressed_or_encrypted_are_refused(values, path):
    set_in_directory(path, values)
    refused(path, "compressed or encrypted")


def test_members_that_claim_more_bytes_than_the_file_are_refused_unread(path):
    many = (2**31).to_bytes(4, "little")
    set_in_directory(path, {COMPRESSED_SIZE: many, SIZE: many})
    refused(path, "claim more than")
