"""The text of Dockerfiles."""

from __future__ import annotations

import json
import shlex

import msgspec
import pytest

from scoring.errors import PackagingError
from scoring.packages.documents import Descriptor
from scoring.packages.reading import Package, PackageLayer
from serve.packaging.dockerfile import (
    DockerfileBase,
    Healthcheck,
    RunConfig,
    dockerfile,
    read_run_config,
)

DIGEST = "sha256:" + "a" * 64
PACKAGE = Package(
    digest=DIGEST,
    platform="linux/arm64",
    config=Descriptor(media_type="", digest=DIGEST, size=1),
    layers=tuple(
        PackageLayer(name=name, digest=DIGEST, size=1, diff_id=DIGEST)
        for name in ("env", "runtime", "model")
    ),
    annotations={},
)
RUN = RunConfig(
    entrypoint=("python3", "-X", "utf8", 'a "b" $c'),
    env=("LANG=C.UTF-8", "PATH=/usr/bin:/bin", 'ODD=a "b" \\ $c'),
    exposed_ports={"5001/tcp": {}},
    labels={"title": "iris", "org.opencontainers.image.base.digest": DIGEST},
    stop_signal="SIGTERM",
    user="65532:65532",
    working_dir="/opt/fieldpost",
    healthcheck=Healthcheck(
        test=("CMD", "probe"), interval=10_000_000_000, start_period=1_500_000_000, retries=3
    ),
)
BASE = DockerfileBase(name="registry.example:5000/python@" + DIGEST)


def written(run: RunConfig = RUN, base: DockerfileBase = BASE, package: Package = PACKAGE) -> str:
    return dockerfile(package, run, base)


def lines(text: str) -> list[str]:
    """The instructions, those over several lines joined."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def pairs(text: str, word: str) -> dict[str, str]:
    """What an ENV or LABEL says, read as a shell reads words, which builders do too."""
    line = next(line for line in lines(text) if line.startswith(word))
    line = line.replace("\\$", "$")  # in double quotes, where shells read it so and shlex does not
    return dict(word.split("=", 1) for word in shlex.split(line)[1:])


def test_layers_are_added_in_their_order() -> None:
    added = [line for line in lines(written()) if line.startswith("ADD")]

    assert added == ["ADD env.tar.gz /", "ADD runtime.tar.gz /", "ADD model.tar.gz /"]


def test_it_says_how_containers_run_as_the_package_does() -> None:
    instructions = dict(line.split(" ", 1) for line in lines(written()))

    assert json.loads(instructions["ENTRYPOINT"]) == ["python3", "-X", "utf8", 'a "b" $c']
    assert json.loads(instructions["CMD"]) == []
    assert instructions["USER"] == "65532:65532"
    assert instructions["WORKDIR"] == "/opt/fieldpost"
    assert instructions["EXPOSE"] == "5001/tcp"
    assert instructions["STOPSIGNAL"] == "SIGTERM"
    assert instructions["HEALTHCHECK"] == (
        '--interval=10s --start-period=1500ms --retries=3 CMD ["probe"]'
    )


def test_it_builds_on_the_base_for_the_packages_platform() -> None:
    text = written()

    assert f"ARG BASE={BASE.name}" in lines(text)
    assert "FROM --platform=linux/arm64 ${BASE}" in lines(text)
    assert pairs(text, "LABEL")["org.opencontainers.image.base.name"] == "${BASE}"


def test_a_root_filesystem_is_added_below_everything() -> None:
    text = written(base=DockerfileBase(archive="base.tar.gz", digest="sha256:" + "b" * 64))

    assert lines(text)[:3] == ["FROM scratch", "ADD base.tar.gz /", "ADD env.tar.gz /"]
    assert pairs(text, "LABEL")["org.opencontainers.image.base.digest"] == "sha256:" + "b" * 64


def test_labels_name_the_package_and_no_other_base() -> None:
    labels = pairs(written(), "LABEL")

    assert labels["title"] == "iris"
    assert labels["dev.fieldpost.package"] == DIGEST
    assert "org.opencontainers.image.base.digest" not in labels


def test_values_keep_their_quotes_backslashes_and_dollars() -> None:
    assert pairs(written(), "ENV")["ODD"] == 'a "b" \\ $c'


def test_the_bases_path_comes_before_the_packages() -> None:
    assert 'PATH="${PATH:-/usr/bin:/bin}"' in written()


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"title": "iris\nRUN curl evil"}},
        {"labels": {"a\nUSER root": "x"}},
        {"env": ("A=b\nUSER root",)},
        {"env": ("A b=c",)},
        {"user": "65532\nUSER root"},
        {"user": "root run"},
        {"working_dir": "/a b"},
        {"stop_signal": "SIGTERM RUN"},
        {"exposed_ports": {"1 2": {}}},
        {"entrypoint": ("a\nRUN b",)},
        {"healthcheck": Healthcheck(test=("CMD-SHELL", "curl"))},
    ],
    ids=str,
)
def test_a_foreign_package_cannot_add_instructions(change: dict[str, object]) -> None:
    with pytest.raises(PackagingError):
        written(run=msgspec.structs.replace(RUN, **change))


@pytest.mark.parametrize("name", ["a b", "a\nRUN x", "", "a;b", "${X}", "bäse"])
def test_a_base_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(PackagingError):
        written(base=DockerfileBase(name=name))


@pytest.mark.parametrize("check", [None, Healthcheck(), Healthcheck(test=("NONE",))])
def test_without_a_health_check_the_bases_is_none_of_ours(check: Healthcheck | None) -> None:
    assert "HEALTHCHECK NONE" in lines(written(run=msgspec.structs.replace(RUN, healthcheck=check)))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"config": {"Env": 1}}', b"\xff"])
def test_a_broken_configuration_is_told(content: bytes) -> None:
    with pytest.raises(PackagingError, match="configuration"):
        read_run_config(content)
