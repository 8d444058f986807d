"""Resolves against the real index, through uv and its cache: few and small environments."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from scoring.errors import EnvironmentResolutionError, IncompatibleEnvironmentError, NotFoundError
from serve.packaging import resolve, uvtool
from serve.packaging.compatibility import check_compatible
from serve.packaging.defaults import default_lock, has_default
from serve.packaging.environments import (
    LockCache,
    LockedEnvironment,
    lock_environment,
    package_lock,
)
from serve.packaging.lock import Lock, LockedPackage, format_lock
from serve.packaging.platforms import PLATFORMS, PYTHONS, Target
from serve.packaging.requirements import read_requirements
from serve.packaging.resolve import RELEASE_DATE
from serve.packaging.sources import EnvironmentSource, RequestedPackage

TARGET = Target(platform="linux/amd64", python="3.11")


def _asks(*texts: str, constraints: tuple[RequestedPackage, ...] = ()) -> EnvironmentSource:
    packages = tuple(RequestedPackage(text, "mine.txt", n) for n, text in enumerate(texts, 1))
    return EnvironmentSource("requirements", "mine.txt", packages, constraints)


@pytest.fixture(scope="module", autouse=True)
def index() -> None:
    """Skips these tests where neither the index nor uv's cache has the one small package."""
    try:
        resolve.lock(_asks("packaging==26.3"), TARGET)
    except EnvironmentResolutionError as error:
        pytest.skip(f"no package index: {error.message}")


def test_the_lock_names_one_wheel_for_each_package() -> None:
    lock = resolve.lock(_asks("click<8.4"), TARGET, extra_requirements=("packaging>=24",))
    assert [package.name for package in lock.packages] == ["click", "packaging"]
    assert lock.text.count("--hash=sha256:") == 2
    assert "://" not in lock.text
    assert lock.exclude_newer == RELEASE_DATE
    assert lock.version_of("click").startswith("8.")
    assert lock.version_of("absent") == ""


def test_the_order_of_requirements_does_not_matter() -> None:
    one = resolve.lock(_asks("click", "packaging"), TARGET)
    other = resolve.lock(_asks("packaging"), TARGET, extra_requirements=("click",))
    assert one.text == other.text
    assert one.hash == other.hash


def test_the_hash_depends_on_platform_and_python() -> None:
    text = default_lock("onnx", TARGET).text
    targets = [Target(platform, python) for platform in PLATFORMS for python in PYTHONS]
    assert len({Lock(text=text, target=target).hash for target in targets}) == len(targets)


def test_other_platforms_get_their_own_wheels() -> None:
    here = resolve.lock(_asks("msgspec==0.22.0"), TARGET)
    there = resolve.lock(_asks("msgspec==0.22.0"), Target("linux/arm64", "3.13"))
    assert here.packages[0].sha256 != there.packages[0].sha256


def test_markers_are_those_of_the_target() -> None:
    source = _asks("click; python_version < '3.12'", "packaging; sys_platform == 'win32'")
    assert [p.name for p in resolve.lock(source, TARGET).packages] == ["click"]
    assert resolve.lock(source, Target("linux/amd64", "3.12")).text == ""


def test_only_hashes_that_the_file_allows() -> None:
    wheel = resolve.lock(_asks("packaging==26.3"), TARGET).packages[0].sha256
    right = RequestedPackage("packaging==26.3", "mine.txt", 7, (wheel, "0" * 64))
    wrong = RequestedPackage("packaging==26.3", "mine.txt", 7, ("0" * 64,))
    allowed = EnvironmentSource("requirements", "mine.txt", (right,))
    assert resolve.lock(allowed, TARGET).packages[0].sha256 == wheel
    with pytest.raises(EnvironmentResolutionError, match="hashes that the file allows") as caught:
        resolve.lock(EnvironmentSource("requirements", "mine.txt", (wrong,)), TARGET)
    assert caught.value.where == "mine.txt:7"


@pytest.mark.parametrize(
    ("texts", "where", "reason"),
    [
        (("click", "msgspec==0.0.99"), "mine.txt:2", "there is no version"),
        (("click", "no-such-package-as-this-one"), "mine.txt:2", "not found"),
        (
            ("click", "packaging<20", "msgspec"),
            "mine.txt:2",
            "Serving the model needs packaging>=24",
        ),
        (("flask==3.1.3", "werkzeug<3"), "mine.txt:", "werkzeug"),
    ],
)
def test_names_the_line_that_does_not_resolve(
    texts: tuple[str, ...], where: str, reason: str
) -> None:
    with pytest.raises(EnvironmentResolutionError, match=reason) as caught:
        resolve.lock(_asks(*texts), TARGET, extra_requirements=("packaging>=24",))
    assert caught.value.where.startswith(where)
    assert len(caught.value.message) < 900


def test_what_is_newer_than_the_release_takes_the_first_day_that_it_resolves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # click 8.1.8 was uploaded on 2024-12-21, packaging 24.2 on 2024-11-08.
    monkeypatch.setattr(resolve, "RELEASE_DATE", "2024-12-01T00:00:00Z")
    source = _asks("click==8.1.8", "packaging")
    locks = [
        resolve.lock(source, TARGET, clock=lambda day=day: day)  # type: ignore[misc]
        for day in (dt.datetime(2025, 1, 15, tzinfo=dt.UTC), dt.datetime(2026, 9, 1, tzinfo=dt.UTC))
    ]
    assert {lock.exclude_newer for lock in locks} == {"2024-12-22T00:00:00Z"}
    assert {lock.version_of("packaging") for lock in locks} == {"24.2"}


def test_without_network_or_cache_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EnvironmentResolutionError, match="no package index can be reached"):
        resolve.lock(_asks("click"), TARGET)


def test_without_network_the_cache_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    online = resolve.lock(_asks("click<8.4"), TARGET)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    assert resolve.lock(_asks("click<8.4"), TARGET) == online


def test_the_users_uv_settings_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resolve.lock(_asks("click>=8"), TARGET)
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2023-01-01")
    monkeypatch.setenv("UV_PYTHON_PLATFORM", "windows")
    assert resolve.lock(_asks("click>=8"), TARGET) == plain


def test_pips_settings_for_indexes_count_where_uv_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/a /b")
    assert uvtool.index_settings()["UV_FIND_LINKS"] == "/a,/b"
    monkeypatch.setenv("UV_FIND_LINKS", "/c")
    assert uvtool.index_settings()["UV_FIND_LINKS"] == "/c"


def test_torch_comes_from_its_cpu_index_unless_one_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in list(uvtool.index_settings()):
        monkeypatch.delenv(name.replace("UV_", "PIP_"), raising=False)
        monkeypatch.delenv(name, raising=False)
    assert uvtool.torch_backend(["torch", "numpy"]) == ["--torch-backend", "cpu"]
    assert uvtool.torch_backend(["numpy"]) == []
    monkeypatch.setenv("UV_FIND_LINKS", "/wheels")
    assert uvtool.torch_backend(["torch"]) == []


def test_variables_in_options_are_replaced_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    options = ("--index", "https://${TOKEN}@a.example/${UNSET_ONE}")
    assert uvtool.uv_options(options) == ["--index", "https://secret@a.example/${UNSET_ONE}"]


# --- environments of packages ----------------------------------------------------------------


def _environment(tmp_path: Path, *lines: str) -> LockedEnvironment:
    file = tmp_path / "requirements.txt"
    file.write_text("\n".join(lines))
    return lock_environment(file, platform="linux/amd64", python="3.11")


def test_an_environment_has_the_servers_needs_and_survives_storage(tmp_path: Path) -> None:
    environment = _environment(tmp_path, "click<8.4")
    names = {package.name for package in environment.lock.packages}
    assert {"click", "numpy", "orjson", "msgspec", "httptools", "uvloop"} <= names
    assert LockedEnvironment.decode(environment.encode()) == environment
    with pytest.raises(EnvironmentResolutionError, match="cannot be read"):
        LockedEnvironment.decode(b"{}")


def test_a_package_keeps_the_versions_of_its_environment(tmp_path: Path) -> None:
    environment = _environment(tmp_path, "click<8.3", "flatbuffers==24.12.23")
    cache = LockCache(tmp_path / "locks")
    lock = package_lock("onnx", TARGET, cache, environment=environment)
    locked = {package.name: package for package in lock.packages}
    assert locked["flatbuffers"].version == "24.12.23"
    assert "onnxruntime" in locked
    for package in environment.lock.packages:
        assert locked[package.name] == package


def test_an_environment_that_has_everything_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = _environment(tmp_path, "onnxruntime")
    monkeypatch.setattr(resolve, "lock", None)  # resolving again would fail
    cache = LockCache(tmp_path / "locks")
    assert package_lock("onnx", TARGET, cache, environment=environment) is environment.lock


def test_what_was_resolved_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LockCache(tmp_path / "locks")
    wanted = ("click<8.4",)
    first = package_lock("sklearn", TARGET, cache, native_requirements=wanted)
    with monkeypatch.context() as patch:
        patch.setattr(resolve, "lock", None)
        assert package_lock("sklearn", TARGET, cache, native_requirements=wanted) == first
    for record in cache.folder.iterdir():
        record.write_bytes(b"cut of")
    assert package_lock("sklearn", TARGET, cache, native_requirements=wanted) == first


def test_compiled_models_need_no_resolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "lock", None)
    cache = LockCache(tmp_path / "locks")
    assert package_lock("onnx", TARGET, cache) == default_lock("onnx", TARGET)
    assert package_lock("script", TARGET, cache) == default_lock("script", TARGET)


# --- compatibility ---------------------------------------------------------------------------


def _locked(**versions: str) -> Lock:
    return Lock(
        text=format_lock(
            tuple(
                LockedPackage(name.replace("_", "-"), version, "0" * 64)
                for name, version in versions.items()
            )
        )
    )


@pytest.mark.parametrize(
    ("made_with", "versions", "fits"),
    [
        ("scikit-learn==1.9.1", {"scikit_learn": "1.9.1"}, True),
        ("scikit-learn==1.9.1", {"scikit_learn": "1.9.0"}, True),
        ("scikit-learn==1.9.1", {"scikit_learn": "1.8.2"}, False),
        ("scikit-learn==1.9.1", {"scikit_learn": "1.10.0"}, False),
        ("scikit-learn==1.9.1", {}, False),
        ("xgboost==3.1.0", {"xgboost_cpu": "3.2.1"}, True),
        ("xgboost-cpu==3.1.0", {"xgboost": "3.0.1"}, False),
        ("numpy==2.1.0", {"numpy": "2.4.6"}, True),
        ("numpy==2.1.0", {"numpy": "3.0.0"}, False),
        ("torch==2.13.0", {"torch": "2.13.0+cpu"}, True),
        ("joblib", {"joblib": "1.6.0"}, True),
    ],
)
def test_what_a_model_was_made_with_decides(
    made_with: str, versions: dict[str, str], fits: bool
) -> None:
    source = _asks("click", *(name.replace("_", "-") for name in versions))
    if fits:
        check_compatible(source, _locked(**versions), [made_with])
        return
    with pytest.raises(IncompatibleEnvironmentError) as caught:
        check_compatible(source, _locked(**versions), [made_with])
    assert caught.value.where == ("mine.txt:2" if versions else "mine.txt")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("made_with", "versions", "fits"),
    [
        ("scikit-learn==1.9.1", {}, True),
        ("scikit-learn==1.9.1", {"scikit_learn": "1.9.0"}, True),
        ("scikit-learn==1.9.1", {"scikit_learn": "1.5.2"}, False),
        ("xgboost==3.1.0", {"xgboost": "2.0.0"}, True),
    ],
)
def test_a_compiled_model_needs_no_scikit_learn_but_no_other_one_either(
    made_with: str, versions: dict[str, str], fits: bool
) -> None:
    source = _asks("click", *(name.replace("_", "-") for name in versions))
    if fits:
        check_compatible(source, _locked(**versions), [], [made_with])
        return
    with pytest.raises(IncompatibleEnvironmentError) as caught:
        check_compatible(source, _locked(**versions), [], [made_with])
    assert caught.value.where == "mine.txt:2"


def test_a_package_is_not_built_with_an_environment_that_does_not_fit(tmp_path: Path) -> None:
    environment = _environment(tmp_path, "click<8.4")
    with pytest.raises(IncompatibleEnvironmentError, match="lacks scikit-learn"):
        package_lock(
            "sklearn",
            TARGET,
            LockCache(tmp_path / "locks"),
            environment=environment,
            native_requirements=["scikit-learn==1.9.1"],
        )


# --- defaults --------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnx", "script"])
def test_default_locks_ship_for_every_target(runtime: str) -> None:
    for platform in PLATFORMS:
        for python in PYTHONS:
            lock = default_lock(runtime, Target(platform, python))  # type: ignore[arg-type]
            assert "://" not in lock.text
            assert lock.packages == tuple(sorted(lock.packages))
            assert format_lock(lock.packages) == lock.text


def test_other_runtimes_and_targets_have_no_default() -> None:
    assert not has_default("sklearn", Target())
    assert not has_default("onnx", Target(python="3.99"))
    for runtime, python in (("sklearn", "3.11"), ("onnx", "3.99")):
        with pytest.raises(NotFoundError, match="No default environment"):
            default_lock(runtime, Target(python=python))  # type: ignore[arg-type]


def test_default_locks_are_those_that_their_command_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve.packaging import defaults

    monkeypatch.setattr(defaults, "PYTHONS", ("3.12",))
    written = defaults.write_locks(tmp_path)
    assert len(written) == len(PLATFORMS) * 2
    shipped = Path(defaults.__file__).parent / "locks"
    for file in written:
        assert file.read_text() == (shipped / file.name).read_text()


@pytest.mark.parametrize("name", ["Pipfile", "poetry.lock", "setup.py", "pylock.toml"])
def test_other_files_are_refused_with_what_to_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(EnvironmentResolutionError) as caught:
        read_requirements(tmp_path / name)
    assert "requirements.txt" in caught.value.hint
