from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from scoring import bundle as bundles
from scoring.bundle import Bundle
from scoring.errors import DigestMismatchError, NotFoundError, PackagingError
from scoring.packages.reading import read_package, verify_package
from serve.packaging import build, contents
from serve.packaging.build import build_package
from serve.packaging.cache import LayerCache
from serve.packaging.lock import Lock
from serve.packaging.plan import BaseImage, BuildPlan, CodeFile, ModelFile
from serve.packaging.platforms import Target

if TYPE_CHECKING:
    from serve.registry.blobs import BlobStore

Built = Any  # of conftest.py, which cannot be imported


def _document(blobs: BlobStore, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blobs.path(digest).read_bytes())
    return found


def test_the_package_is_an_oci_image(built: Built) -> None:
    manifest = _document(built.blobs, built.package.digest)
    config = _document(built.blobs, manifest["config"]["digest"])
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    names = [layer["annotations"]["dev.fieldpost.layer"] for layer in manifest["layers"]]
    assert names == ["env", "runtime", "model"]
    assert config["rootfs"]["diff_ids"] == [
        layer.diff_id for layer in built.package.layers.values()
    ]
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert config["os"] == "linux"
    run = config["config"]
    assert run["User"] == "65532:65532"
    assert run["StopSignal"] == "SIGTERM"
    assert run["ExposedPorts"] == {"5001/tcp": {}}
    assert run["Entrypoint"][-1] == "/opt/fieldpost"
    assert "FIELDPOST_SERVER_PORT=5001" in run["Env"]
    assert manifest["annotations"]["dev.fieldpost.model.name"] == "iris"
    assert manifest["annotations"]["dev.fieldpost.model.version"] == "3"
    assert manifest["annotations"]["dev.fieldpost.environment.hash"] == built.plan.lock.hash


def test_its_documents_are_canonical(built: Built) -> None:
    for digest in (built.package.digest, built.package.config_digest):
        content = built.blobs.path(digest).read_bytes()
        compact = json.dumps(json.loads(content), sort_keys=True, separators=(",", ":"))
        assert content == compact.encode()


def test_it_reads_back_and_verifies(built: Built) -> None:
    package = verify_package(built.package.digest, built.blobs)
    assert [layer.name for layer in package.layers] == ["env", "runtime", "model"]
    assert package.platform == built.plan.lock.target.platform
    assert package.size + built.blobs.path(package.digest).stat().st_size == built.package.size
    assert all(built.blobs.has(digest) for digest in package.blobs)


def test_an_unchanged_environment_and_model_are_found_again(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "install_lock", None)  # installing again would fail
    monkeypatch.setattr(build, "model_entries", None)
    again = build_package(built.plan, built.blobs, built.cache)
    assert again.digest == built.package.digest
    assert again.layers == built.package.layers
    assert set(again.timings) == {"env", "runtime", "model"}


def test_the_environment_is_pruned_and_whole(built: Built) -> None:
    with tarfile.open(built.blobs.path(built.package.layers["env"].digest)) as tar:
        names = set(tar.getnames())
    below = "opt/fieldpost/env/site-packages/"
    assert f"{below}numpy/__init__.py" in names
    assert f"{below}onnxruntime/__init__.py" in names
    assert any(name.endswith(".dist-info/METADATA") for name in names)
    assert any("licenses" in name for name in names)
    for gone in (
        "__pycache__",
        "/tests/",
        ".pyc",
        "/RECORD",
        "/INSTALLER",
        "direct_url.json",
        "/bin/",
    ):
        assert not [name for name in names if gone in name], gone


# A second process with everything different that may differ between machines.
_ELSEWHERE = """
import os, sys
from pathlib import Path
import msgspec
from serve.packaging import build, contents
from serve.packaging.build import build_package
from serve.packaging.cache import LayerCache
from serve.packaging.plan import BuildPlan
from serve.registry.blobs import BlobStore

os.umask(int(sys.argv[3], 8))
folder = Path(sys.argv[1])
store = BlobStore(folder / "store")
store.create()
store.put_bytes(b"model" * 1000)
store.put_bytes(b"labels")
plan = msgspec.json.decode(
    Path(sys.argv[2]).read_bytes(),
    type=BuildPlan,
    dec_hook=lambda kind, value: kind(value),
)
print(build_package(plan, store, LayerCache(folder / "cache")).digest)
"""


def _small_plan(built: Built, tmp_path: Path, store: BlobStore, *, backwards: bool) -> BuildPlan:
    lines = [line for line in built.plan.lock.text.splitlines(keepends=True) if "packaging" in line]
    source = tmp_path / f"source-{backwards}"
    source.mkdir()
    code = []
    for name in ("score.py", "helper/\u0434\u0430\u043d\u043d\u044b\u0435.txt"):
        file = source / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {name}", encoding="utf-8")
        file.chmod(0o600 if backwards else 0o664)
        code.append(CodeFile(name, file, file.stat().st_size))
    files = []
    for name, content in (("model.bin", b"model" * 1000), ("labels.txt", b"labels")):
        blob = store.put_bytes(content)
        files.append(ModelFile(f"azureml-models/m/1/{name}", blob.digest, blob.size))
    return BuildPlan(
        bundle=Bundle(name="m", runtime="script", model_version=1, model_dir="azureml-models/m/1"),
        lock=Lock(text="".join(lines), target=built.plan.lock.target),
        model_files=tuple(reversed(files) if backwards else files),
        code_files=tuple(reversed(code) if backwards else code),
        base=BaseImage(name="python:3.11-slim", digest=f"sha256:{'1' * 64}"),
    )


@pytest.mark.parametrize(
    ("backwards", "umask", "variables"),
    [
        (False, "022", {"LC_ALL": "C", "PYTHONHASHSEED": "1", "TZ": "UTC"}),
        (True, "077", {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2", "TZ": "Asia/Kolkata"}),
        (True, "002", {"PYTHONUTF8": "0", "UV_RESOLUTION": "lowest", "UV_LINK_MODE": "copy"}),
    ],
)
def test_the_same_inputs_give_the_same_digest_anywhere(
    built: Built,
    tmp_path: Path,
    blobs: BlobStore,
    cache: LayerCache,
    backwards: bool,
    umask: str,
    variables: dict[str, str],
) -> None:
    here = build_package(_small_plan(built, tmp_path, blobs, backwards=not backwards), blobs, cache)
    plan = _small_plan(built, tmp_path, blobs, backwards=backwards)
    document = tmp_path / "plan.json"
    document.write_bytes(msgspec.json.encode(plan, enc_hook=str))
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(elsewhere), str(document), umask],
        env=kept | variables | {"PYTHONPATH": str(Path(bundles.__file__).parent.parent)},
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == here.digest
    assert list(here.layers) == ["env", "runtime", "code", "model"]


def test_every_input_changes_the_digest(
    built: Built, tmp_path: Path, blobs: BlobStore, cache: LayerCache
) -> None:
    plan = _small_plan(built, tmp_path, blobs, backwards=False)
    change = msgspec.structs.replace
    changed = [
        plan,
        change(plan, bundle=change(plan.bundle, name="n")),
        change(plan, model_files=plan.model_files[:1]),
        change(plan, code_files=plan.code_files[:1]),
        change(plan, base=None),
        change(plan, fieldpost_version="9.9"),
        change(plan, code_files=(change(plan.code_files[0], executable=True),)),
    ]
    digests = {build_package(each, blobs, cache).digest for each in changed}
    assert len(digests) == len(changed)


def test_a_lost_or_damaged_blob_is_built_again(
    built: Built, tmp_path: Path, blobs: BlobStore, cache: LayerCache
) -> None:
    plan = _small_plan(built, tmp_path, blobs, backwards=False)
    first = build_package(plan, blobs, cache)
    path = blobs.path(first.layers["env"].digest)
    path.unlink()
    assert build_package(plan, blobs, cache).digest == first.digest
    assert path.is_file()
    path.chmod(0o644)
    path.write_bytes(b"cut off")
    again = build_package(plan, blobs, cache)
    assert again.digest == first.digest


def test_a_broken_cache_record_only_costs_time(
    built: Built, tmp_path: Path, blobs: BlobStore, cache: LayerCache
) -> None:
    plan = _small_plan(built, tmp_path, blobs, backwards=False)
    first = build_package(plan, blobs, cache)
    for record in cache.folder.iterdir():
        record.write_bytes(b'{"digest": 1')
    assert build_package(plan, blobs, cache).digest == first.digest
    assert LayerCache(cache.folder).find(plan.environment_key, blobs)


def test_a_damaged_model_is_not_packaged(
    built: Built, tmp_path: Path, blobs: BlobStore, cache: LayerCache
) -> None:
    plan = _small_plan(built, tmp_path, blobs, backwards=False)
    victim = blobs.path(plan.model_files[0].digest)
    victim.chmod(0o644)
    victim.write_bytes(b"M" * plan.model_files[0].size)
    before = set(blobs.digests())
    with pytest.raises(DigestMismatchError):
        build_package(plan, blobs, cache)
    assert not {path for path in blobs.incoming.iterdir() if path.stat().st_size}
    assert cache.find(plan.model_key, blobs) is None
    assert before <= set(blobs.digests())


@pytest.mark.parametrize("index", range(4))
def test_verify_finds_every_damaged_blob(
    built: Built, tmp_path: Path, blobs: BlobStore, cache: LayerCache, index: int
) -> None:
    plan = _small_plan(built, tmp_path, blobs, backwards=False)
    digest = build_package(plan, blobs, cache).digest
    victim = blobs.path(read_package(digest, blobs).blobs[index])
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(bytes(content))
    with pytest.raises(DigestMismatchError):
        verify_package(digest, blobs)
    victim.unlink()
    with pytest.raises(NotFoundError):
        verify_package(digest, blobs)


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        {"layers": []},
        {"config": {"mediaType": "text/plain", "digest": f"sha256:{'0' * 64}", "size": 1}},
        {"layers": "none"},
    ],
)
def test_read_refuses_other_documents(
    built: Built, blobs: BlobStore, change: dict[str, Any]
) -> None:
    for digest in read_package(built.package.digest, built.blobs).blobs:
        blobs.put_bytes(built.blobs.path(digest).read_bytes())
    document = _document(built.blobs, built.package.digest) | change
    changed = blobs.put_bytes(json.dumps(document).encode())
    with pytest.raises(PackagingError):
        read_package(changed.digest, blobs)


def test_the_plan_describes_itself_without_paths_of_this_machine(
    built: Built, tmp_path: Path, blobs: BlobStore
) -> None:
    plan = _small_plan(built, tmp_path, blobs, backwards=False)
    text = json.dumps(plan.describe())
    assert str(tmp_path) not in text
    assert "packaging==" in text
    assert "azureml-models/m/1/labels.txt" in text


def test_targets_are_checked() -> None:
    from scoring.errors import UsageError

    for wrong in ({"platform": "windows/amd64"}, {"python": "3.10"}, {"python": "../3"}):
        with pytest.raises(UsageError):
            Target(**wrong)


def test_the_runtime_layer_is_built_anew_when_a_file_of_it_changes(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runtime"
    folder.mkdir()
    file = folder / "module.py"
    file.write_text("one")
    sources = [(folder, "runtime/scoring")]
    monkeypatch.setattr(contents, "_runtime_sources", lambda: sources)
    first = build_package(built.plan, built.blobs, built.cache)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "module.pyc").write_bytes(b"no source")
    with monkeypatch.context() as patch:
        patch.setattr(build, "runtime_entries", None)  # reading the files again would fail
        assert build_package(built.plan, built.blobs, built.cache).digest == first.digest
    before = file.stat()
    file.write_text("two")  # as long as before, and said to be as old
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = build_package(built.plan, built.blobs, built.cache)
    assert second.layers["runtime"] != first.layers["runtime"]
    (folder / "more.py").write_text("")
    third = build_package(built.plan, built.blobs, built.cache)
    assert third.layers["runtime"] not in (first.layers["runtime"], second.layers["runtime"])


def test_a_damaged_document_is_written_again(built: Built) -> None:
    path = built.blobs.path(built.package.config_digest)
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1])
    build_package(built.plan, built.blobs, built.cache)
    assert built.blobs.path(built.package.config_digest).read_bytes() == content
