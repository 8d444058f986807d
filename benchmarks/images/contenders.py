"""Who builds and pushes: we with two commands, the others from a Dockerfile.

Everyone has the same base, the same wheels, the same runtime and the same model.
"""

from __future__ import annotations

import enum
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.images.place import FIELDPOST, Place, install, timed

COPIED = "docker build of an environment that is copied, docker push"
# What most people write. The wheels are in the folder, as if from an index that costs nothing.
_PLAIN = """\
FROM {base}
COPY wheels /wheels
RUN python3 /wheels/pip.zip/pip install --quiet --no-index --no-deps --no-compile \\
    --root-user-action ignore --target /opt/app/site-packages /wheels/*.whl
COPY runtime /opt/app/runtime
COPY model.onnx /opt/app/model.onnx
USER 65532:65532
ENTRYPOINT ["python3", "/opt/app/runtime/scoring/boot.py", "/opt/app"]
"""
# What a careful person writes: wheels that are at hand are mounted, not copied; no byte code; what
# changes the least comes first.
_MOUNTED = """\
FROM {base}
RUN --mount=type=bind,source=wheels,target=/wheels \\
    python3 /wheels/pip.zip/pip install --quiet --no-index --no-deps --no-compile \\
    --root-user-action ignore --target /opt/app/site-packages /wheels/*.whl
COPY runtime /opt/app/runtime
COPY model.onnx /opt/app/model.onnx
USER 65532:65532
ENTRYPOINT ["python3", "/opt/app/runtime/scoring/boot.py", "/opt/app"]
"""


# What people write whose builds reach no index, as where a network has an authority of its own: the
# environment is installed beside the Dockerfile, and copied.
_COPIED = """\
FROM {base}
COPY site-packages /opt/app/site-packages
COPY runtime /opt/app/runtime
COPY model.onnx /opt/app/model.onnx
USER 65532:65532
ENTRYPOINT ["python3", "/opt/app/runtime/scoring/boot.py", "/opt/app"]
"""


class Style(enum.StrEnum):
    """How a Dockerfile brings the environment into an image."""

    INSTALLED = "installed"  # wheels are copied in and installed
    MOUNTED = "mounted"  # wheels are mounted and installed: BuildKit and buildah alone
    COPIED = "copied"  # files, installed before


_DOCKERFILES = {Style.INSTALLED: _PLAIN, Style.MOUNTED: _MOUNTED, Style.COPIED: _COPIED}


class Contender(Protocol):
    """Someone who builds and pushes images."""

    name: str

    def forget(self) -> None:
        """Drops all that was built."""
        ...

    def take(self, model: Path) -> None:
        """Makes ready to build with another model, without the clock."""
        ...

    def build_and_push(self) -> float:
        """Seconds until the registry has the image."""
        ...


@dataclass
class Fieldpost:
    """Ours: `package build --push`.

    Attributes:
        parts: Seconds of each command of the last time.
    """

    place: Place
    name: str = "ours"
    to: str = ""
    parts: dict[str, float] = field(default_factory=dict)
    _workspaces: int = 0

    def __post_init__(self) -> None:
        self.to = self.to or f"{self.place.registry.host}/ours:1"
        self.forget()

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "FIELDPOST_WORKSPACE": str(self._workspace)}

    @property
    def _workspace(self) -> Path:
        return self.place.folder / f"workspace-{self._workspaces}"

    def forget(self) -> None:
        """Another workspace, empty; uv keeps its wheels."""
        shutil.rmtree(self._workspace, ignore_errors=True)
        self._workspaces += 1

    def take(self, model: Path) -> None:
        self.parts["register"] = self._run("model", "register", "m", str(model))[0]

    def build_and_push(self) -> float:
        words = ("package", "build", "m", "--base", self.place.base, "--push", self.to)
        self.parts["build --push"] = self._run(*words)[0]
        return self.parts["build --push"]

    def push_bare(self) -> None:
        """Builds and pushes without documents beside the image."""
        self._run("package", "build", "m", "--base", self.place.base)
        self._run("package", "push", "m", self.to, "--no-attach")

    def export(self, image: str, docker: Mapping[str, str]) -> None:
        """Brings the newest package into an engine, without the clock."""
        words = ("package", "export", "m", f"docker-daemon:{image}", "--base", self.place.base)
        command = [FIELDPOST, *words, "--json"]
        timed(command, {**docker, **self.environment}, time.perf_counter, self.place.folder)

    def show(self, ref: str) -> Any:
        """What `package show` says."""
        return self._run("package", "show", ref)[1]

    def _run(self, *arguments: str) -> tuple[float, Any]:
        command = [FIELDPOST, *arguments, "--json"]
        return timed(command, self.environment, time.perf_counter, self.place.folder)


@dataclass
class Dockerfile:
    """A builder of Dockerfiles that are written by hand.

    Attributes:
        program: `docker` or `buildah`.
        style: Of the Dockerfile. Docker builds with BuildKit where wheels are mounted, and else as
            it comes where no plugin is installed.
    """

    place: Place
    program: str
    name: str
    wheels: Path
    runtime: Path
    style: Style = Style.MOUNTED
    _fresh: bool = True

    def __post_init__(self) -> None:
        label = f"{self.program}-{self.style}"
        self.folder = self.place.folder / f"context-{label}"
        self.folder.mkdir()
        if self.style is Style.COPIED:
            install(self.wheels, self.folder / "site-packages")
        else:
            shutil.copytree(self.wheels, self.folder / "wheels")
        shutil.copytree(self.runtime, self.folder / "runtime")
        text = _DOCKERFILES[self.style]
        (self.folder / "Dockerfile").write_text(text.format(base=self.place.base))
        self.to = f"{self.place.registry.host}/{label}:1"

    def forget(self) -> None:
        self._fresh = True

    def take(self, model: Path) -> None:
        shutil.copy(model, self.folder / "model.onnx")

    def build_and_push(self) -> float:
        fresh, self._fresh = self._fresh, False
        return sum(
            timed(command, self._environment, time.perf_counter, self.folder)[0]
            for command in (self._build(fresh=fresh), self._push())
        )

    @property
    def _environment(self) -> Mapping[str, str]:
        if self.program != "docker":
            return self.place.containers
        return {**self.place.docker, "DOCKER_BUILDKIT": str(int(self.style is Style.MOUNTED))}

    def _build(self, *, fresh: bool) -> list[str]:
        without = ["--no-cache"] if fresh else []
        if self.program == "docker":
            return [self.place.client, "build", *without, "--quiet", "--tag", self.to, "."]
        return ["buildah", "build", "--layers", *without, "--quiet", "--tag", self.to, "."]

    def _push(self) -> list[str]:
        if self.program == "docker":
            return [self.place.client, "push", self.to]
        return ["buildah", "push", "--tls-verify=false", "--quiet", self.to]
