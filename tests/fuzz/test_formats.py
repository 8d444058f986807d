"""Whatever the bytes, telling a format ends in a detection or in an error of ours."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scoring.errors import ModelFileError
from scoring.formats.detect import detect

LONG = os.environ.get("FIELDPOST_TEST_LONG") == "1"
SETTINGS = settings(
    max_examples=20_000 if LONG else 250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return buffer.getvalue()


PICKLE = pickle.dumps(OrderedDict(a=[1.5] * 40, _sklearn_version="1.9.1"))
CONFIG = json.dumps({"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}).encode()
SEEDS = [
    b"\x08\x09\x12\x08skl2onnx\x3a\x0c\x0a\x06\x22\x04Relu\x12\x02gg\x42\x02\x10\x11",
    PICKLE,
    pickle.dumps(OrderedDict(a=1), protocol=0),
    zlib.compress(PICKLE),
    gzip.compress(PICKLE),
    archive(**{"schema.json": b'{"__loader__": 1, "_sklearn_version": {"content": "1"}}'}),
    archive(**{"config.json": b"{}", "metadata.json": b'{"keras_version": "3"}', "weights": b""}),
    archive(
        **{
            "m/archive_format": b"pt2",
            "m/archive_version": b"0",
            "m/models/model.json": b"{}",
            "m/data/weights/weights_config.json": CONFIG,
            "m/data/weights/weight_0": archive(**{"a/data.pkl": PICKLE}),
        }
    ),
    archive(**{"m/data.pkl": PICKLE, "m/version": b"3"}),
    b'{"learner":{"attributes":{},"feature_names":[]},"version":[3,2,0]}',
    b"{L\0\0\0\0\0\0\0\x07learner{L\0\0\0\0\0\0\0\nattributes{}}}",
    b"tree\nversion=v4\nnum_class=1\n\nTree=0\n\nend of trees\n",
    b"\x89HDF\r\n\x1a\n" + bytes(50) + b"model_config",
    b"\x10\0\0\0\0\0\0\0" + b'{"w":{"dtype":"F32"}}',
    b"\x04\x22\x4d\x18\x64\x40\xa7\x10\0\0\0\xf0\0\x80\x04",
]


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(ModelFileError):
        assert detect(path).path == path


@SETTINGS
@given(content=st.binary(max_size=300))
@example(content=b"\x04\x22\x4d\x18")
@example(content=b"\x80")
@example(content=b"c\n\n.")
@example(content=b"PK\x05\x06" + bytes(18))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    check(tmp_path / "model", content)


@SETTINGS
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_damaged_models(tmp_path: Path, seed: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(seed)))
    drop = data.draw(st.integers(0, 12))
    put = data.draw(st.binary(max_size=12))
    check(tmp_path / "model", seed[:at] + put + seed[at + drop :])


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_cut_off_anywhere(tmp_path: Path, seed: bytes) -> None:
    for end in range(0, len(seed), 1 if LONG else 7):
        check(tmp_path / "model", seed[:end])


@SETTINGS
@given(text=st.text(max_size=200))
def test_text(tmp_path: Path, text: str) -> None:
    check(tmp_path / "model", text.encode("utf-8", "surrogatepass"))


@SETTINGS
@given(text=st.text(max_size=200))
def test_mlflow_descriptions(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_bytes(b"flavors:\n" + text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ModelFileError):
        detect(tmp_path)
