"""One engine: what we ask of it, in our words and with our errors.

Thin over the maintained client: plain documents of the Engine API go in and come out, which Docker
and Podman both speak. Where the two differ it is said here, and nowhere else.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from scoring.errors import NotFoundError, TargetError
from serve.engines.faults import ConflictError, refusal, translated
from serve.engines.places import UNIX, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from serve.engines.images import Loaded
    from serve.packaging.images.compose import Image

Document = dict[str, Any]

_GONE = (NotFoundError, ConflictError)
_LONG_S = 1800.0


class ContainerOutput:
    """What a container prints, piece by piece. `close` may be called from another thread.

    Args:
        pieces: The client's stream.
        doing: Translates its errors.
    """

    def __init__(self, pieces: Any, doing: contextlib.AbstractContextManager[None]) -> None:
        self._pieces = pieces
        self._doing = doing

    def __iter__(self) -> Iterator[bytes]:
        with self._doing:
            yield from self._pieces

    def close(self) -> None:
        """Ends the stream, whoever waits for it."""
        with contextlib.suppress(OSError, AttributeError):
            self._pieces.close()


class Engine:
    """A connection to a container engine; see `find_engine`.

    Args:
        api: The maintained client.
        host: Where the engine is.
        kind: What it says it is.
        version: What it says of itself.
        socket_kind: What was looked for: a Podman may stand behind a Docker socket.

    Attributes:
        kind: `docker` or `podman`.
        host: `unix:///var/run/docker.sock`.
    """

    def __init__(
        self,
        api: Any,
        host: str,
        kind: Kind,
        version: Document,
        *,
        socket_kind: Kind | None = None,
    ) -> None:
        self._api = api
        self.host = host
        self.kind = kind
        self._version = version
        self._wanted = socket_kind
        self._facts: Document | None = None

    def __repr__(self) -> str:
        return f"Engine({self.kind!r}, {self.host!r}, {self.version!r})"

    def close(self) -> None:
        """Ends the connections."""
        self._api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """Of the engine: `20.10.24`."""
        return str(self._version.get("Version", ""))

    @property
    def where(self) -> str:
        """For messages: `The Docker engine at unix:///…`."""
        return f"The {self.kind.title()} engine at {self.host}"

    @property
    def is_local(self) -> bool:
        """Whether its published ports are this machine's."""
        return self.host.startswith(UNIX)

    @property
    def address(self) -> str:
        """The name under which its published ports are reached; empty for this machine."""
        return "" if self.is_local else urlsplit(self.host).hostname or ""

    @property
    def platform(self) -> str:
        """What it runs: `linux/amd64`."""
        machine = str(self._version.get("Arch", ""))
        names = {"x86_64": "amd64", "aarch64": "arm64"}
        return f"{self._version.get('Os', 'linux')}/{names.get(machine, machine)}"

    @property
    def facts(self) -> Document:
        """What it says of the machine and itself."""
        if self._facts is None:
            with self._doing("tell about itself"):
                self._facts = dict(self._api.info())
        return self._facts

    @property
    def identity(self) -> str:
        """What tells it from other engines, also where it is reached by another address."""
        if self.kind == "docker" and self.facts.get("ID"):
            return str(self.facts["ID"])
        return f"{self.facts.get('Name', '')}:{self.facts.get('DockerRootDir', '')}"

    @property
    def has_selinux(self) -> bool:
        """Whether containers are kept apart by SELinux."""
        return any("selinux" in str(each) for each in self.facts.get("SecurityOptions") or ())

    def can_limit(self, what: str) -> bool:
        """Whether it can hold containers below a limit: `MemoryLimit`, `PidsLimit`."""
        return bool(self.facts.get(what, True))

    @property
    def updates_restart(self) -> bool:
        """Whether the restart policy of a container can be changed."""
        return self.kind == "docker"

    @property
    def loads_incrementally(self) -> bool:
        """Whether it takes archives without the layers that it has.

        Docker's classic store does; Podman, and Docker on containerd's store, want every layer.
        """
        status = self.facts.get("DriverStatus") or ()
        contained = any("io.containerd.snapshotter" in str(pair) for pair in status)
        return self.kind == "docker" and not contained

    def ping(self) -> None:
        """Raises `UnreachableError` where it does not answer now."""
        with self._doing("answer"):
            self._api.ping()

    # Images

    def image(self, reference: str) -> Document | None:
        """An image by name or ID; None where there is none."""
        try:
            with self._doing(f"tell about the image {reference}"):
                return dict(self._api.inspect_image(reference))
        except NotFoundError:
            return None

    def images(self, label: str = "") -> list[Document]:
        """Short documents of all images, or of those with a label."""
        with self._doing("list images"):
            return list(self._api.images(filters={"label": label} if label else None))

    def load(self, image: Image, names: Sequence[str] = ()) -> Loaded:
        """Makes sure that it has an image; see `serve.engines.images.load_image`."""
        from serve.engines.images import load_image  # noqa: PLC0415 - it needs this class

        return load_image(self, image, names)

    def load_archive(self, archive: Iterable[bytes]) -> None:
        """Takes a `docker load` archive, piece by piece.

        Raises:
            TargetError: It does not accept the archive.
        """
        with self._doing("load the image"), self._patient():
            for event in self._api.load_image(archive):
                self._check(event, "load the image")

    def pull(self, repository: str, reference: str, credentials: Mapping[str, str] | None) -> None:
        """Pulls an image; the engine's own credentials count where none are given.

        Args:
            repository: `registry:5000/team/iris`.
            reference: A tag or digest.
            credentials: `{"username": …, "password": …}`, or a token.
        """
        what = f"pull {repository}{'@' if ':' in reference else ':'}{reference}"
        with self._doing(what), self._patient():
            events = self._api.pull(
                repository,
                tag=reference,
                stream=True,
                decode=True,
                auth_config=dict(credentials) if credentials else None,
            )
            for event in events:
                self._check(event, what)

    def tag(self, image: str, name: str, tag: str) -> None:
        """Gives an image another name."""
        with self._doing(f"name the image {name}:{tag}"):
            self._api.tag(image, name, tag, force=True)

    def remove_image(self, reference: str) -> bool:
        """Removes a name of an image, and the image with its last name; False where it is used."""
        try:
            with self._doing(f"remove the image {reference}"):
                self._api.remove_image(reference)
        except _GONE:
            return False
        return True

    # Containers

    def containers(self, labels: Mapping[str, str]) -> list[Document]:
        """Short documents of all containers with these labels, running or not."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        with self._doing("list containers"):
            return list(self._api.containers(all=True, filters={"label": wanted}))

    def create(self, name: str, config: Document) -> str:
        """Creates a container and returns its ID.

        Raises:
            ConflictError: The name is taken.
            NotFoundError: The image is not there.
        """
        with self._doing(f"create the container {name}"):
            answer = self._api.create_container_from_config(config, name)
        return str(answer["Id"])

    def start(self, container: str) -> None:
        """Starts it; one that runs stays as it is."""
        with self._doing("start the container"):
            self._api.start(container)

    def inspect(self, container: str) -> Document | None:
        """All about a container; None where there is none."""
        try:
            with self._doing("tell about a container"):
                return dict(self._api.inspect_container(container))
        except NotFoundError:
            return None

    def signal(self, container: str, name: str) -> bool:
        """Sends a signal; False where it does not run."""
        try:
            with self._doing(f"send {name} to a container"):
                self._api.kill(container, name)
        except _GONE:
            return False
        except TargetError as error:  # Podman answers 500 for one that does not run
            if "not running" in error.message or "state" in error.message:
                return False
            raise
        return True

    def stop(self, container: str, grace_s: float) -> None:
        """Ends it with its stop signal, then by force; nothing to do where it does not run."""
        with contextlib.suppress(NotFoundError):
            try:
                self._stop(container, grace_s)
            except TargetError:  # Podman trips over one that ends by itself meanwhile
                self._stop(container, grace_s)

    def _stop(self, container: str, grace_s: float) -> None:
        with self._doing("stop the container"):
            self._api.stop(container, timeout=max(int(grace_s), 0))

    def remove(self, container: str) -> None:
        """Ends it by force and removes it, with its anonymous volumes."""
        if self.kind == "podman":  # by itself it gives it the time of a stop
            self.signal(container, "SIGKILL")
        with contextlib.suppress(*_GONE), self._doing("remove the container"):
            self._api.remove_container(container, force=True, v=True)

    def set_restart(self, container: str, policy: Document) -> None:
        """Changes the restart policy where the engine can do that."""
        if self.updates_restart:
            with contextlib.suppress(NotFoundError), self._doing("change the restart policy"):
                self._api.update_container(container, restart_policy=policy)

    def logs(self, container: str, *, tail: int | None = None) -> Iterator[bytes]:
        """Pieces of the output so far, each line with its time in front; none where it is gone.

        Args:
            container: ID or name.
            tail: Only so many lines of the end.
        """
        with contextlib.suppress(*_GONE):
            yield from self.output(container, tail=tail, follow=False)

    def output(
        self, container: str, *, tail: int | None = None, follow: bool = True
    ) -> ContainerOutput:
        """The output, as `logs` has it, until the container ends or the stream is closed.

        Raises:
            NotFoundError: The container is gone.
        """
        with self._doing("give the log"):
            pieces = self._api.logs(
                container,
                stdout=True,
                stderr=True,
                stream=True,
                follow=follow,
                timestamps=True,
                tail="all" if tail is None else tail,
            )
        return ContainerOutput(pieces, self._doing("give the log"))

    def memory(self, container: str) -> int | None:
        """Bytes of memory that its processes hold; None where unknown."""
        with contextlib.suppress(TargetError, NotFoundError), self._doing("measure a container"):
            # Docker's statistics come once a second, and Podman's list of processes is slow.
            return self._resident(container) if self.kind == "docker" else self._used(container)
        return None

    def _resident(self, container: str) -> int | None:
        found = self._api.top(container, "-o pid,rss").get("Processes") or ()
        return sum(int(row[-1]) for row in found) * 1024 or None

    def _used(self, container: str) -> int | None:
        used = self._api.stats(container, stream=False).get("memory_stats") or {}
        detail = used.get("stats") or {}
        cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
        return int(used["usage"]) - int(cache) if used.get("usage") else None

    # Volumes

    def create_volume(
        self, name: str, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """Creates a volume of the local driver; nothing to do where it exists."""
        with contextlib.suppress(ConflictError), self._doing(f"create the volume {name}"):
            self._api.create_volume(name, driver="local", driver_opts=dict(options), labels=labels)

    def volumes(self, labels: Mapping[str, str]) -> Sequence[str]:
        """The names of the volumes with these labels."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        with self._doing("list volumes"):
            found = self._api.volumes(filters={"label": wanted}).get("Volumes") or ()
        return [str(each["Name"]) for each in found]

    def remove_volume(self, name: str) -> bool:
        """Removes a volume; False where a container uses it."""
        try:
            with self._doing(f"remove the volume {name}"):
                self._api.remove_volume(name)
        except _GONE:
            return False
        return True

    def _check(self, event: Document, what: str) -> None:
        """Raises what an event in the middle of an answer says went wrong."""
        said = event.get("error") or (event.get("message") if len(event) == 1 else None)
        if said:
            raise refusal(str(said), what, self.where)

    def _doing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return translated(what, self.where)

    @contextlib.contextmanager
    def _patient(self) -> Iterator[None]:
        """For requests that are answered when gigabytes have been written."""
        before = self._api.timeout
        self._api.timeout = _LONG_S
        try:
            yield
        finally:
            self._api.timeout = before
