"""The targets `docker` and `podman`: containers on an engine, this machine's or another's."""

from serve.targets.docker.target import DockerTarget, PodmanTarget

__all__ = ["DockerTarget", "PodmanTarget"]
