"""The objects of a run on Kubernetes: an indexed Job, and no more; pure.

Its pods are those of a deployment, but for the server: the same image by its digest, the same
rights (none), the same resources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from scoring.batch.pod import BAD_ROW, BAD_RUN, VARIABLE, Work
from scoring.batch.records import Options
from scoring.errors import UsageError
from serve.targets.kubernetes import labels
from serve.targets.kubernetes.deployable import Deployable, PackageFacts
from serve.targets.kubernetes.names import base_name
from serve.targets.kubernetes.objects import config, pod
from serve.targets.kubernetes.settings import KubernetesSettings, parse
from serve.targets.settings import parse_settings

Object = dict[str, Any]

RUN = labels.PREFIX + "batch"
CONTAINER = "batch"
_APP = "fieldpost-batch"
_SERVER_ONLY = ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "envFrom")
_GRACE_S = 30
_TOLD_TO_GO = 128 + 15
_TASKS_PER_WORKER = 4
_MOST_TASKS = 100_000


class JobSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set` takes for a job, beside what a deployment's pods take.

    Attributes:
        workers: Pods at once.
        tasks: Numbers among which the shards are dealt; one of them is tried again as a whole.
            By default four for each worker.
        attempts: For one of them.
        timeout_s: For the whole run.
        keep_s: How long the finished Job stays.
    """

    workers: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 2
    tasks: Annotated[int, msgspec.Meta(ge=1, le=_MOST_TASKS)] | None = None
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    timeout_s: Annotated[int, msgspec.Meta(ge=1)] | None = None
    keep_s: Annotated[int, msgspec.Meta(ge=0)] = 7 * 86_400


class Job(NamedTuple):
    """A run of a cluster.

    Attributes:
        name: Of the Job; the same for the same package and options.
        settings: Of the cluster and the pods.
        objects: To be applied, in this order.
    """

    name: str
    settings: KubernetesSettings
    objects: tuple[Object, ...]


def split_settings(given: Mapping[str, str]) -> tuple[JobSettings, KubernetesSettings]:
    """The settings of the job and those of its pods.

    Raises:
        UsageError: One is not known, or wrong.
    """
    own = {name: text for name, text in given.items() if name in JobSettings.__struct_fields__}
    rest = {name: text for name, text in given.items() if name not in own}
    return parse_settings(JobSettings, own), parse(rest)


def job_name(model: str, work: Work) -> str:
    """The name of a run: the same command finds its job again."""
    content = msgspec.json.encode((work.model, work.options), order="sorted")
    digest = hashlib.sha256(content).hexdigest()[:8]
    return base_name(f"batch-{base_name(model or 'model')[:28].rstrip('-')}-{digest}")


def render(package: PackageFacts, image: str, options: Options, given: Mapping[str, str]) -> Job:
    """The job of a run.

    Args:
        package: What is in the image.
        image: `REGISTRY/NAME@sha256:…`.
        options: The user's; places as the pods see them.
        given: Settings, as `--set` gave them.

    Raises:
        UsageError: A setting is wrong, or the places are not for pods.
    """
    own, settings = split_settings(given)
    _require_places(options, settings)
    tasks = own.tasks or min(own.workers * _TASKS_PER_WORKER, _MOST_TASKS)
    work = Work(package.digest, options, tasks)
    name = job_name(package.model, work)
    of = Deployable(
        name=name,
        image=image,
        package=package,
        settings=settings,
        namespace=settings.namespace or "",
    )
    secret = config.secret(of)
    objects = [] if secret is None else [_ours(secret, of)]
    return Job(name, settings, (*objects, _job(of, own, work)))


def _require_places(options: Options, settings: KubernetesSettings) -> None:
    from scoring.batch.places import require_apart  # noqa: PLC0415 - pure as well
    from scoring.batch.stores import is_url  # noqa: PLC0415

    for what, place in (("INPUT", options.input), ("OUTPUT", options.output)):
        if not is_url(place) and not (place.startswith("/") and settings.volumes):
            raise UsageError(
                f"{what} is {place!r}, which no pod sees.",
                hint="Give a URL (s3://bucket/rows), or an absolute path below a volume: "
                "--set volumes=CLAIM:/data.",
                where=what,
            )
    require_apart(options.input, options.output)


def _job(of: Deployable, own: JobSettings, work: Work) -> Object:
    spec: Object = {
        "completionMode": "Indexed",
        "completions": work.tasks,
        "parallelism": min(own.workers, work.tasks),
        "backoffLimitPerIndex": own.attempts - 1,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _rules()},
        "ttlSecondsAfterFinished": own.keep_s,
        "template": {"metadata": _metadata(of, named=False), "spec": _pod(of, work)},
    }
    if own.timeout_s is not None:
        spec["activeDeadlineSeconds"] = own.timeout_s
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(of), "spec": spec}


def _rules() -> list[Object]:
    """What a pod's end means, told by its status; the first rule that fits counts."""

    def left_with(status: int) -> Object:
        return {"containerName": CONTAINER, "operator": "In", "values": [status]}

    return [
        {"action": "FailJob", "onExitCodes": left_with(BAD_RUN)},
        {"action": "FailIndex", "onExitCodes": left_with(BAD_ROW)},
        # A pod that was told to go (143: SIGTERM), or made room for others, has not failed.
        {"action": "Ignore", "onExitCodes": left_with(_TOLD_TO_GO)},
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
    ]


def _pod(of: Deployable, work: Work) -> Object:
    spec = pod.spec(of)
    (container,) = spec["containers"]
    kept = {key: value for key, value in container.items() if key not in _SERVER_ONLY}
    spec["containers"] = [
        {
            **kept,
            "name": CONTAINER,
            "args": ["batch"],  # behind what the image runs: the package's own start
            "env": [{"name": VARIABLE, "value": msgspec.json.encode(work).decode()}],
            # The first source is the server's own configuration.
            "envFrom": config.environment_sources(of)[1:],
        }
    ]
    spec.pop("topologySpreadConstraints", None)
    if not of.settings.service_account:
        spec.pop("serviceAccountName", None)
    spec["restartPolicy"] = "Never"
    spec["terminationGracePeriodSeconds"] = _GRACE_S
    return spec


def _metadata(of: Deployable, *, named: bool = True) -> Object:
    package = of.package
    found = {
        labels.APP_NAME: _APP,
        labels.APP_INSTANCE: of.name,
        labels.APP_MANAGER: labels.MANAGER,
        RUN: of.name,
        labels.PACKAGE: labels.package_value(package.digest),
        labels.MODEL: labels.label_value(package.model),
        labels.VERSION: labels.label_value(package.version),
    }
    metadata: Object = {"name": of.name} if named else {}
    if named and of.namespace:
        metadata["namespace"] = of.namespace
    metadata["labels"] = {key: text for key, text in sorted(found.items()) if text}
    metadata["annotations"] = {labels.IMAGE: of.reference, labels.PACKAGE: package.digest}
    return metadata


def _ours(secret: Object, of: Deployable) -> Object:
    """The Secret of `env.*` with the labels of a run."""
    name = secret["metadata"]["name"]
    return {**secret, "metadata": {**_metadata(of), "name": name}}
