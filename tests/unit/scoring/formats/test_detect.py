"""Formats are told from bytes: names lie, files are cut off, folders hold more than a model."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from scoring.errors import (
    CorruptModelError,
    ModelFileError,
    ModelNotFoundError,
    UnknownFormatError,
    UnsupportedModelError,
)
from scoring.formats.detect import detect


def put(folder: Path, content: bytes, name: str = "model.bin") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def chunk(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def onnx_bytes(*, weights: int = 0, opset: bool = True) -> bytes:
    """The outer structure of an ONNX model, from onnx.proto."""
    node = chunk(1, chunk(1, b"x") + chunk(2, b"y") + chunk(4, b"Relu"))
    graph = node + chunk(2, b"g") + (chunk(5, chunk(9, bytes(weights))) if weights else b"")
    maker = chunk(2, b"skl2onnx") + chunk(3, b"1.20.0")
    return b"\x08\x09" + maker + chunk(7, graph) + (chunk(8, b"\x10\x11") if opset else b"")


# ---- scikit-learn ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path: Path, classifier: Any, protocol: int) -> None:
    found = detect(put(tmp_path, pickle.dumps(classifier, protocol=protocol), "model.onnx"))
    assert (found.format, found.runtime) == ("sklearn-pickle", "sklearn")
    assert found.runs_code
    assert set(found.made_with) == {"scikit-learn"}


def test_joblib_tells_its_version(joblib_file: Path) -> None:
    from sklearn import __version__

    found = detect(joblib_file)
    assert found.format == "sklearn-joblib"
    assert found.runs_code
    assert found.made_with == {"scikit-learn": __version__}


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_compressed_joblib(tmp_path: Path, classifier: Any, method: str) -> None:
    path = tmp_path / "model.h5"
    joblib.dump(classifier, path, compress=(method, 3))
    found = detect(path)
    assert found.format == "sklearn-joblib"
    assert "scikit-learn" in found.made_with
    whole = path.read_bytes()
    for part in (len(whole) // 2, len(whole) - 1):
        with pytest.raises(CorruptModelError, match="cut off"):
            detect(put(tmp_path, whole[:part]))


def test_lz4_is_told_by_its_first_literals(tmp_path: Path, classifier: Any) -> None:
    literals = pickle.dumps(classifier)[:15]
    frame = b"\x04\x22\x4d\x18\x64\x40\xa7" + struct.pack("<I", 16) + b"\xf0\x00" + literals
    assert detect(put(tmp_path, frame)).format == "sklearn-joblib"


def test_gzipped_pickle_and_other_gzip(tmp_path: Path, classifier: Any) -> None:
    content = gzip.compress(pickle.dumps(classifier))
    assert detect(put(tmp_path, content)).format == "sklearn-joblib"
    with pytest.raises(UnknownFormatError, match="compressed"):
        detect(put(tmp_path, gzip.compress(b"a,b\n1,2\n")))
    with pytest.raises(UnknownFormatError, match="compressed"):
        detect(put(tmp_path, bz2.compress(b"a,b\n1,2\n" * 100)))


def test_cut_off_pickles(tmp_path: Path, joblib_file: Path, classifier: Any) -> None:
    for whole in (pickle.dumps(classifier), joblib_file.read_bytes()):
        with pytest.raises(CorruptModelError, match="cut off"):
            detect(put(tmp_path, whole[: len(whole) // 2] + b"\0"))


def test_other_versions_are_read_from_the_pickle(tmp_path: Path, classifier: Any) -> None:
    from sklearn import __version__

    for protocol in range(6):
        content = pickle.dumps(classifier, protocol=protocol)
        other = content.replace(__version__.encode(), b"0.9.8"[: len(__version__)])
        assert detect(put(tmp_path, other)).made_with == {"scikit-learn": "0.9.8"}


def test_skops(tmp_path: Path, classifier: Any) -> None:
    import skops.io
    from sklearn import __version__

    skops.io.dump(classifier, tmp_path / "model.skops")
    whole = (tmp_path / "model.skops").read_bytes()
    found = detect(put(tmp_path, whole, "model.pkl"))
    assert (found.format, found.runs_code) == ("sklearn-skops", False)
    assert found.made_with == {"scikit-learn": __version__}
    with pytest.raises(CorruptModelError, match="zip archive"):
        detect(put(tmp_path, whole[:-40]))


# ---- ONNX ------------------------------------------------------------------------------------


def test_onnx_whatever_its_name(tmp_path: Path, onnx_file: Path) -> None:
    path = put(tmp_path, onnx_file.read_bytes(), "model.joblib")
    found = detect(path)
    assert (found.format, found.runtime, found.path) == ("onnx", "onnx", path)
    assert "skl2onnx" in found.made_with
    assert not found.runs_code


def test_onnx_from_its_structure_alone(tmp_path: Path) -> None:
    found = detect(put(tmp_path, onnx_bytes()))
    assert (found.format, found.made_with) == ("onnx", {"skl2onnx": "1.20.0"})


def test_onnx_cut_off_anywhere_after_the_graph_begins(tmp_path: Path, onnx_file: Path) -> None:
    whole = onnx_file.read_bytes()
    for part in (40, len(whole) // 2, len(whole) - 1):
        with pytest.raises(CorruptModelError, match="cut off"):
            detect(put(tmp_path, whole[:part]))
    with pytest.raises(CorruptModelError, match="operator set"):
        detect(put(tmp_path, onnx_bytes(opset=False)))


def test_a_large_onnx_is_not_read(tmp_path: Path) -> None:
    """Two gigabytes (sparse): with reading it all, this would take seconds and the memory."""
    size = 2_000_000_000
    tensor = bytes([9 << 3 | 2]) + varint(size)
    initializer = bytes([5 << 3 | 2]) + varint(len(tensor) + size) + tensor
    node = chunk(1, chunk(4, b"Relu"))
    graph = node + initializer
    head = b"\x08\x09" + bytes([7 << 3 | 2]) + varint(len(graph) + size) + graph
    path = put(tmp_path, head)
    with path.open("r+b") as file:
        file.seek(len(head) + size)
        file.write(chunk(8, b"\x10\x11"))
    assert detect(path).format == "onnx"


# ---- boosters --------------------------------------------------------------------------------

XGBOOST = b'{"learner":{"attributes":{},"feature_names":[]},"version":[3,2,0]}'
LIGHTGBM = b"tree\nversion=v4\nnum_class=1\n\nTree=0\nnum_leaves=1\n\nend of trees\n\nparameters:\n"


def test_xgboost_json_and_its_version(tmp_path: Path) -> None:
    found = detect(put(tmp_path, XGBOOST, "model.txt"))
    assert (found.format, found.made_with) == ("xgboost", {"xgboost": "3.2.0"})
    pretty = json.dumps(json.loads(XGBOOST), indent=2).encode()
    assert detect(put(tmp_path, pretty)).format == "xgboost"
    with pytest.raises(CorruptModelError, match="cut off"):
        detect(put(tmp_path, XGBOOST[:-30]))


def test_old_xgboost_binaries_are_refused_with_the_way_out(tmp_path: Path) -> None:
    def counted(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text

    old = bytes(136) + counted(b"binary:logistic") + counted(b"gbtree") + bytes(160)
    for content in (old, b"binf" + old, b"CONFIG-offset:\0\0\0"):
        with pytest.raises(UnsupportedModelError, match="old binary form") as caught:
            detect(put(tmp_path, content))
        assert "save_model" in caught.value.hint


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_lightgbm_text(tmp_path: Path, newline: bytes) -> None:
    content = LIGHTGBM.replace(b"\n", newline)
    assert detect(put(tmp_path, content)).format == "lightgbm"
    with pytest.raises(CorruptModelError, match="end of trees"):
        detect(put(tmp_path, content[:40]))


def test_lightgbm_with_more_after_the_trees_than_one_window(tmp_path: Path) -> None:
    content = LIGHTGBM + b"feature_importances:\n" + b"Column_1=1\n" * 400_000
    assert detect(put(tmp_path, content)).format == "lightgbm"


# ---- PyTorch and Keras -----------------------------------------------------------------------


def test_torchscript_and_exported_programs_from_their_layout(tmp_path: Path) -> None:
    script = {
        "m/data.pkl": b"",
        "m/constants.pkl": b"",
        "m/code/__torch__.py": b"",
        "m/version": b"3",
    }
    assert detect(put(tmp_path, zipped(script))).format == "torchscript"
    new = {"m/archive_format": b"pt2", "m/archive_version": b"0", "m/models/model.json": b"{}"}
    old = {"serialized_exported_program.json": b"{}", "version": b"8.5"}
    for members in (new, old):
        found = detect(put(tmp_path, zipped(members)))
        assert (found.format, found.runtime) == ("torch-export", "torch-export")
        assert not found.runs_code


@pytest.mark.parametrize(
    ("member", "payload"),
    [
        ("m/data/sample_inputs/model.pt", zipped({"model/data.pkl": pickle.dumps(os.system)})),
        ("m/data/sample_inputs/model.pt", pickle.dumps(os.system)),
        ("m/data/constants/opaque_obj_0", pickle.dumps(os.system)),
    ],
)
def test_pickles_inside_an_exported_program_run_code(
    tmp_path: Path, member: str, payload: bytes
) -> None:
    members = {"m/archive_format": b"pt2", "m/archive_version": b"0", "m/models/model.json": b"{}"}
    assert detect(put(tmp_path, zipped(members | {member: payload}))).runs_code


def test_weights_marked_as_pickles_run_code(tmp_path: Path) -> None:
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}
    members = {
        "m/archive_format": b"pt2",
        "m/archive_version": b"0",
        "m/models/model.json": b"{}",
        "m/data/weights/weight_0": zipped({"a/data.pkl": pickle.dumps(os.system)}),
        "m/data/weights/model_weights_config.json": json.dumps(config).encode(),
    }
    assert detect(put(tmp_path, zipped(members))).runs_code
    config["config"]["w"]["use_pickle"] = False
    members["m/data/weights/model_weights_config.json"] = json.dumps(config).encode()
    assert not detect(put(tmp_path, zipped(members))).runs_code


def test_compiled_torch_packages_are_refused(tmp_path: Path) -> None:
    members = {
        "m/archive_format": b"pt2",
        "m/archive_version": b"0",
        "m/data/aotinductor/model/x.so": b"",
    }
    with pytest.raises(UnsupportedModelError, match="AOTInductor"):
        detect(put(tmp_path, zipped(members)))


def test_state_dicts_and_pickled_modules_are_refused_with_commands(tmp_path: Path) -> None:
    weights = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01ctorch._utils\n_rebuild_tensor_v2\n."
    module = b"\x80\x02cmynet\nNet\nq\x00)\x81q\x01."
    for content, what in ((weights, "state dict"), (module, "pickled PyTorch module")):
        with pytest.raises(UnsupportedModelError, match=what) as caught:
            detect(put(tmp_path, zipped({"archive/data.pkl": content, "archive/version": b"3"})))
        assert "torch.export.save" in caught.value.hint
        assert "torch.onnx.export" in caught.value.hint
    legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    with pytest.raises(UnsupportedModelError, match=r"old torch\.save"):
        detect(put(tmp_path, legacy))


def test_keras(tmp_path: Path) -> None:
    members = {
        "metadata.json": b'{"keras_version": "3.15.1"}',
        "config.json": b"{}",
        "model.weights.h5": b"",
    }
    found = detect(put(tmp_path, zipped(members), "model.zip"))
    assert (found.format, found.made_with) == ("keras", {"keras": "3.15.1"})
    del members["model.weights.h5"]
    with pytest.raises(CorruptModelError, match="weights"):
        detect(put(tmp_path, zipped(members)))
    with pytest.raises(CorruptModelError):
        detect(put(tmp_path, zipped(members | {"metadata.json": b"{", "model.weights.h5": b""})))


# ---- what is named and refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "error", "what"),
    [
        (b"GGUF\x03\0\0\0", UnsupportedModelError, "GGUF"),
        (b"\x1c\0\0\0TFL3" + bytes(20), UnsupportedModelError, "TensorFlow Lite"),
        (b"CBM1" + bytes(20), UnsupportedModelError, "CatBoost"),
        (
            struct.pack("<Q", 60)
            + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
            + bytes(99),
            UnsupportedModelError,
            "safetensors",
        ),
        (b"\x89HDF\r\n\x1a\n" + bytes(90) + b"model_config", UnsupportedModelError, "old HDF5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90) + b"layer_names", UnsupportedModelError, "weights"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), UnknownFormatError, "HDF5"),
        (b"booster[0]:\n0:[f2<3] yes=1", UnsupportedModelError, "text dump"),
        (b'[\n  { "nodeid": 0, "depth"', UnsupportedModelError, "JSON dump"),
        (b"<?xml version='1.0'?>\n<PMML version='4'>", UnsupportedModelError, "PMML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", UnknownFormatError, "Git LFS"),
        (b"<!DOCTYPE html><html>", UnknownFormatError, "HTML"),
        (b"\x93NUMPY\x01\0", UnknownFormatError, "NumPy"),
        (zipped({"x.npy": b"\x93NUMPY"}), UnknownFormatError, "NumPy"),
        (zipped({"readme.txt": b"hello"}), UnknownFormatError, "zip archive"),
        (zipped({}), UnknownFormatError, "zip archive"),
        (b"def init():\n    pass\n", UnknownFormatError, "text"),
        (b'{"a": 1}', UnknownFormatError, "text"),
        (b"sepal,petal\n1.0,2.0\n", UnknownFormatError, "text"),
        (b"\x00\x01\x02\x03" * 50, UnknownFormatError, "no known format"),
        (b".", UnknownFormatError, "text"),
    ],
)
def test_named_and_refused(
    tmp_path: Path, content: bytes, error: type[ModelFileError], what: str
) -> None:
    with pytest.raises(error, match=what) as caught:
        detect(put(tmp_path, content, "model.onnx"))
    assert caught.value.hint


def test_an_archive_with_a_name_twice_is_damaged(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/archive_format", b"pt2")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("m/archive_format", b"pt2")
    with pytest.raises(CorruptModelError, match="twice"):
        detect(put(tmp_path, buffer.getvalue()))


# ---- paths -----------------------------------------------------------------------------------


def test_empty_missing_and_special_paths(tmp_path: Path) -> None:
    with pytest.raises(CorruptModelError, match="empty"):
        detect(put(tmp_path, b""))
    with pytest.raises(ModelNotFoundError, match="No such file"):
        detect(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError):
        detect(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelNotFoundError, match="neither a file nor a folder"):
        detect(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ModelNotFoundError):
        detect(tmp_path / "loop")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = put(tmp_path, onnx_bytes())
    path.chmod(0)
    with pytest.raises(ModelNotFoundError, match="Permission"):
        detect(path)


# ---- folders ---------------------------------------------------------------------------------


def test_the_one_model_of_a_folder(tmp_path: Path) -> None:
    put(tmp_path, b"# notes", "README.md")
    put(tmp_path, bytes(64), "model.onnx.data")
    put(tmp_path, onnx_bytes(), ".hidden.onnx")
    put(tmp_path, b"x = 1", "__pycache__/a.pyc")
    path = put(tmp_path, onnx_bytes(), "sub/model.onnx")
    assert detect(tmp_path).path == path


def test_several_models_are_listed(tmp_path: Path) -> None:
    put(tmp_path, onnx_bytes(), "a.onnx")
    put(tmp_path, LIGHTGBM, "deep/b.txt")
    with pytest.raises(UnsupportedModelError, match=r"2 models: a\.onnx \(onnx\), deep/b\.txt"):
        detect(tmp_path)


def test_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="without files"):
        detect(tmp_path)
    put(tmp_path, b"hello", "a.txt")
    with pytest.raises(UnknownFormatError, match="None of the 1 files"):
        detect(tmp_path)
    put(tmp_path, b"GGUF\x03\0\0\0", "model.gguf")
    with pytest.raises(UnsupportedModelError, match="GGUF"):
        detect(tmp_path)
    put(tmp_path, b"CBM1" + bytes(9), "model.cbm")
    with pytest.raises(UnsupportedModelError, match="no model that can be served"):
        detect(tmp_path)


def test_a_model_beside_weights_that_cannot_be_served(tmp_path: Path) -> None:
    put(tmp_path, b"GGUF\x03\0\0\0", "model.gguf")
    path = put(tmp_path, onnx_bytes(), "model.onnx")
    assert detect(tmp_path).path == path


def test_saved_models_are_refused(tmp_path: Path) -> None:
    put(tmp_path, b"\x08\x01\x12\x05serve", "saved_model.pb")
    for path in (tmp_path, tmp_path / "saved_model.pb"):
        with pytest.raises(UnsupportedModelError, match="SavedModel") as caught:
            detect(path)
        assert "tf2onnx" in caught.value.hint


def mlmodel(folder: Path, flavors: str) -> None:
    put(folder, f"artifact_path: model\nflavors:\n{flavors}".encode(), "MLmodel")


def test_mlflow_names_its_model(tmp_path: Path, classifier: Any) -> None:
    mlmodel(
        tmp_path,
        "  python_function:\n    model_path: model.pkl\n    loader_module: mlflow.sklearn\n"
        "  sklearn:\n    pickled_model: model.pkl\n",
    )
    put(tmp_path, onnx_bytes(), "other.onnx")
    path = put(tmp_path, pickle.dumps(classifier), "model.pkl")
    assert detect(tmp_path).path == path


@pytest.mark.parametrize(
    ("flavors", "error", "what"),
    [
        ("  onnx:\n    data: ../model.onnx\n", CorruptModelError, "outside"),
        ("  onnx:\n    data: /etc/passwd\n", CorruptModelError, "outside"),
        ("  onnx:\n    data: model.onnx\n", ModelNotFoundError, "not in the folder"),
        ("  spacy:\n    version: 3\n", UnsupportedModelError, "spacy"),
        ("  [", CorruptModelError, "MLflow"),
        ("", CorruptModelError, "MLflow"),
    ],
)
def test_mlflow_that_leads_nowhere(
    tmp_path: Path, flavors: str, error: type[ModelFileError], what: str
) -> None:
    mlmodel(tmp_path, flavors)
    with pytest.raises(error, match=what):
        detect(tmp_path)


# ---- cost ------------------------------------------------------------------------------------


def test_no_framework_is_imported_and_no_code_runs(tmp_path: Path) -> None:
    put(tmp_path, b"cos\nsystem\n(S'touch ran'\ntR.", "evil.pkl")
    code = (
        "import sys; from pathlib import Path; from scoring.formats.detect import detect; "
        "found = detect(Path('evil.pkl')); assert found.runs_code; "
        "bad = {'sklearn', 'joblib', 'torch', 'onnxruntime', 'pandas', 'yaml', 'xgboost'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    root = Path(__file__).parents[4]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make", [lambda: np.zeros(50_000).tobytes(), lambda: os.urandom(5000)])
def test_raw_numbers_are_no_model(tmp_path: Path, make: Callable[[], bytes]) -> None:
    with pytest.raises(ModelFileError):
        detect(put(tmp_path, b"\x00" + make()))
