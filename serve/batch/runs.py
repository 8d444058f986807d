"""`workspace.batch`: what the commands `fieldpost batch …` do, one call away."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scoring import durable
from scoring.batch.planning import identity
from scoring.batch.records import Options, Plan, Summary
from scoring.batch.results import Result
from scoring.batch.stores import is_url
from scoring.errors import MissingDependencyError, NotFoundError, TargetError, UsageError
from scoring.formats.base import Trust
from serve.batch import local
from serve.batch.locking import holder, is_locked
from serve.batch.things import find_package, open_thing
from serve.roots import ServeOptions

if TYPE_CHECKING:
    from serve.batch.local import Follower
    from serve.batch.things import Thing
    from serve.registry import Registry

_KEPT = 200


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the workspace knows of a run.

    Attributes:
        name: By which it is found again.
        model: What answers, as it was named.
        target: `local` or `kubernetes`.
        output: Where the result is.
        started: Seconds since 1970.
        settings: Of the target, without variables, whose values are nobody's but the pods'.
    """

    name: str
    model: str
    target: str
    output: str
    started: float
    settings: dict[str, str] = {}


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is.

    Attributes:
        name: Of the run.
        model: What answers.
        target: Where.
        state: `running`, `interrupted`, `finished`, `failed`, `cancelled`; `unknown` where its
            cluster does not tell.
        output: Where the result is.
        shards: How many; 0 where it is not known here.
        done: How many of them have their results.
        rows: Scored; of a running one, in the shards that are done.
        rejected: Rows that the model did not take.
        rejects: Where those are listed.
        note: What else is to say.
    """

    name: str
    model: str
    target: str
    state: str
    output: str
    shards: int = 0
    done: int = 0
    rows: int = 0
    rejected: int = 0
    rejects: str = ""
    note: str = ""


class Batch:
    """Batch runs of a workspace.

    Args:
        registry: The workspace's.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._workspace = registry.location.secret_text()
        self._folder = registry.location.blobs / "batch"

    def score(
        self,
        model: str,
        input: str | os.PathLike[str],  # noqa: A002 - the user's word for it
        output: str | os.PathLike[str],
        *,
        workers: int = 0,
        attempts: int = 4,
        overwrite: bool = False,
        trust_pickle: bool = False,
        trusted_types: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        follower: Follower | None = None,
        **options: Any,
    ) -> Summary:
        """Scores a dataset on this machine; called again, it goes on where it ended.

        Args:
            model: A package (a digest, or NAME[:VERSION]), a registered model, a file or a script.
            input: A file, a folder, a glob, or a URL of fsspec.
            output: A file, or a folder or URL to which a part for each shard goes.
            workers: Processes; 0: one for each core.
            attempts: For one shard.
            overwrite: What is in the result's place is thrown away.
            trust_pickle: Load a pickle, which can run any code.
            trusted_types: Types that skops files may hold.
            environment: Variables for a script, beside what packages get.
            follower: Told of progress.
            **options: Fields of `scoring.batch.records.Options`.

        Raises:
            InputError: The dataset does not fit the model, or a row is not taken; says which.
            AlreadyExistsError: Something else is in the result's place.
            InUseError: Another run is at work on it.
        """
        chosen = make_options(input, output, options)
        how = local.How(workers, attempts, overwrite)
        served = self._served(trust_pickle, trusted_types)
        with open_thing(model, self._registry, served) as thing:
            record = Record(
                name=_run_name(model, chosen),
                model=model,
                target="local",
                output=chosen.output,
                started=time.time(),
            )
            given = _with(thing, environment)
            remember = partial(self.remember, record)
            return local.run(given, chosen, how, follower or local.Nobody(), remember)

    def plan(
        self,
        model: str,
        input: str | os.PathLike[str],  # noqa: A002 - as above
        output: str | os.PathLike[str],
        *,
        trust_pickle: bool = False,
        trusted_types: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Plan:
        """What `score` would do, after the same checks; nothing is written. Raises like it."""
        chosen = make_options(input, output, options)
        served = self._served(trust_pickle, trusted_types)
        with open_thing(model, self._registry, served) as thing:
            return local.plan_run(_with(thing, environment), chosen)

    def submit(
        self,
        model: str,
        input: str,  # noqa: A002 - as above
        output: str,
        *,
        settings: Mapping[str, str],
        dry_run: bool = False,
        **options: Any,
    ) -> tuple[Record, list[dict[str, Any]]]:
        """Starts a run as an indexed Job of a cluster, or goes on with one.

        Args:
            model: A package that the cluster can pull.
            input: As the pods see it: a path below a volume, or a URL.
            output: Likewise.
            settings: See `serve.batch.kubernetes.JobSettings`.
            dry_run: Only make the objects.
            **options: Fields of `scoring.batch.records.Options`.

        Returns:
            The run, and its objects.

        Raises:
            UsageError: A setting is wrong or missing.
            TargetError: The cluster does not take it.
        """
        from serve.batch import kubernetes  # noqa: PLC0415 - clusters only

        chosen = Options(input=input, output=output, **_checked(options))
        package = find_package(model, self._registry)
        job = kubernetes.job_of(package, chosen, settings, self._registry, push=not dry_run)
        record = Record(
            name=job.name,
            model=model,
            target="kubernetes",
            output=output,
            started=time.time(),
            settings={key: text for key, text in settings.items() if not key.startswith("env.")},
        )
        if not dry_run:
            record = msgspec.structs.replace(
                record, settings={**record.settings, **kubernetes.submit(job)}
            )
            self.remember(record)
        return record, list(job.objects)

    def _served(self, pickle: bool, types: Iterable[str]) -> ServeOptions:
        return ServeOptions(
            workspace=self._workspace, trust=Trust(pickle=pickle, types=tuple(types))
        )

    def remember(self, record: Record) -> None:
        """Keeps a run's record; of old ones, as many as a list can show."""
        with durable.storage_errors(str(self._folder)):
            durable.make_folder(self._folder)
        durable.write_bytes(self._folder / f"{record.name}.json", msgspec.json.encode(record))
        known = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in known[:-_KEPT]:
            path.unlink(missing_ok=True)

    def list(self) -> list[View]:
        """All runs that the workspace knows, the newest first.

        A cluster that does not answer is asked once; its runs are `unknown`.
        """
        found = [self._record(path.stem) for path in self._folder.glob("*.json")]
        silent: dict[str, str] = {}
        return [self._listed(each, silent) for each in sorted(found, key=lambda r: -r.started)]

    def _listed(self, record: Record, silent: dict[str, str]) -> View:
        context = record.settings.get("context", "")
        try:
            if record.target == "local" or context not in silent:
                return self._view(record)
        except (TargetError, UsageError, MissingDependencyError) as error:
            if record.target == "local":
                raise
            silent[context] = f"{error.message} {error.hint}".strip()
        return View(
            name=record.name, model=record.model, target=record.target, state="unknown",
            output=record.output, note=silent[context],
        )  # fmt: skip

    def show(self, name: str) -> View:
        """A run, by its name or its output.

        Raises:
            NotFoundError: There is none.
        """
        return self._view(self._found(name))

    def cancel(self, name: str) -> View:
        """Ends a run; what it has scored stays, and the same command goes on with it.

        Raises:
            NotFoundError: There is none.
        """
        record = self._found(name)
        if record.target == "kubernetes":
            from serve.batch import kubernetes  # noqa: PLC0415 - clusters only

            kubernetes.cancel(record.name, record.settings)
        elif pid := holder(Result(record.output)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            _await_end(Result(record.output))
        return self._view(record)

    def _found(self, name: str) -> Record:
        if (self._folder / f"{name}.json").is_file() and "/" not in name:
            return self._record(name)
        output = _absolute(name)
        for path in self._folder.glob("*.json"):
            record = self._record(path.stem)
            if record.output in {output, name}:
                return record
        result = Result(output)
        plan = result.plan()
        if plan is None:
            raise NotFoundError(
                f"There is no batch run {name!r}.", hint="'fieldpost batch list' shows them."
            )
        return Record(name=identity(plan), model="", target="local", output=output, started=0)

    def _record(self, name: str) -> Record:
        return msgspec.json.decode((self._folder / f"{name}.json").read_bytes(), type=Record)

    def _view(self, record: Record) -> View:
        view = View(
            name=record.name, model=record.model, target=record.target, state="interrupted",
            output=record.output,
        )  # fmt: skip
        if record.target == "kubernetes":
            from serve.batch import kubernetes  # noqa: PLC0415 - clusters only

            return kubernetes.view(view, record.settings)
        return local_view(view)


def _with(thing: Thing, environment: Mapping[str, str] | None) -> Thing:
    return replace(thing, environment={**thing.environment, **(environment or {})})


def local_view(view: View) -> View:
    """A run of this machine, by what is in its result's place."""
    result = Result(view.output)
    summary = result.summary()
    if summary is not None and result.is_finished():
        return msgspec.structs.replace(
            view,
            state="finished",
            shards=summary.shards,
            done=summary.shards,
            rows=summary.rows,
            rejected=summary.rejected,
            rejects=summary.rejects,
        )
    plan = result.plan()
    if plan is None:
        return msgspec.structs.replace(view, note="nothing is in the result's place")
    known = [result.done(plan, shard) for shard in sorted(result.marks(plan))]
    return msgspec.structs.replace(
        view,
        state="running" if is_locked(result) else "interrupted",
        shards=len(plan.shards),
        done=len(known),
        rows=sum(each.rows for each in known),
        rejected=sum(each.rejected for each in known),
    )


def make_options(
    input: str | os.PathLike[str],  # noqa: A002 - the user's word for it
    output: str | os.PathLike[str],
    options: Mapping[str, Any],
) -> Options:
    """The options of a run here: paths are whole, so that it is the same run from anywhere.

    Raises:
        UsageError: One is not known.
    """
    return Options(
        input=_absolute(os.fspath(input)), output=_absolute(os.fspath(output)), **_checked(options)
    )


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(options) - set(Options.__struct_fields__))
    if unknown:
        raise UsageError(
            f"There is no option {unknown[0]!r}.",
            hint=f"Choose from {', '.join(Options.__struct_fields__[2:])}.",
        )
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    try:
        msgspec.convert({"input": "", "output": "", **given}, Options)
    except msgspec.ValidationError as error:
        raise UsageError(f"An option is wrong: {error}.") from error
    return given


def _absolute(place: str) -> str:
    if is_url(place):
        return place
    path = place.removeprefix("file://")
    whole = os.path.abspath(path)  # noqa: PTH100 - a glob is no path yet, and links stay
    return f"{whole}/" if path.endswith("/") and whole != "/" else whole


def _run_name(model: str, options: Options) -> str:
    import hashlib  # noqa: PLC0415 - here alone

    stem = "".join(c if c.isalnum() else "-" for c in Path(model).stem.lower()).strip("-")
    digest = hashlib.sha256(options.output.encode()).hexdigest()[:8]
    return f"{stem[:40] or 'model'}-{digest}"


def _await_end(result: Result, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while is_locked(result) and time.monotonic() < deadline:
        time.sleep(0.05)
