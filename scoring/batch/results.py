"""Where everything of a result is, and what is known of it there.

A result is a folder with a part for each shard, or one file that the parts are joined to at the
end. What a run remembers is beside the parts, in a folder that readers of datasets pass over. All
names hold the plan's own: what another plan has left is never taken for this one's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from scoring import durable
from scoring.batch import writers
from scoring.batch.files import SUFFIXES, format_of
from scoring.batch.planning import identity
from scoring.batch.records import PLAN_VERSION, Done, Plan, Summary
from scoring.batch.stores import Store, store_of
from scoring.errors import (
    AlreadyExistsError,
    CorruptModelError,
    ScoringFailedError,
    StorageFullError,
    WorkspaceError,
)

_STATE = "_fieldpost"
_TAKEN = "Choose another output, or give --overwrite to throw it away (not for jobs)."
_MARK = re.compile(r"^(?P<shard>\d+)-(?P<plan>[0-9a-f]{12})\.json$")


class Result:
    """The result of one output.

    Args:
        output: As the user names it.

    Attributes:
        store: That has it.
        path: In the store.
        single: It is one file.
        state: The folder of what a run remembers.
    """

    def __init__(self, output: str) -> None:
        self.store: Store
        self.store, path = store_of(output)
        self.single = format_of(path)[0] is not None and not output.endswith("/")
        self.path = path.rstrip("/") or path
        folder, _, name = self.path.rpartition("/")
        above = f"{folder}/" if folder or self.path.startswith("/") else ""
        self.state = f"{above}.{name}.fieldpost" if self.single else f"{self.path}/{_STATE}"
        self._parts = f"{self.state}/parts" if self.single else self.path
        self.rejects = (
            f"{self.path}.rejects.jsonl" if self.single else f"{self.path}/_rejects.jsonl"
        )

    def plan(self) -> Plan | None:
        """The plan of the run that this result is of; None where there is none.

        Raises:
            WorkspaceError: It is broken, or of another version.
        """
        data = self.store.read(f"{self.state}/plan.json")
        if data is None:
            return None
        try:
            plan = msgspec.json.decode(data, type=Plan)
        except msgspec.DecodeError as error:
            raise WorkspaceError(
                f"The plan in {self.state} cannot be read: {error}.",
                hint="Run again with --overwrite (not for jobs), or choose another output.",
            ) from error
        if plan.version != PLAN_VERSION:
            raise WorkspaceError(
                f"The plan in {self.state} is of version {plan.version}; this is {PLAN_VERSION}.",
                hint="Run again with --overwrite (not for jobs), or choose another output.",
            )
        return plan

    def claim(self, plan: Plan) -> None:
        """Makes the result that of a plan, unless it is another's.

        Raises:
            AlreadyExistsError: Something else is there.
        """
        present = self.plan()
        if present is not None and identity(present) == identity(plan):
            return
        if present is not None:
            raise AlreadyExistsError(
                f"{self.path} holds the result of another run: {_difference(present, plan)}.",
                hint=_TAKEN,
                where=self.path,
            )
        if self._is_taken():
            raise AlreadyExistsError(
                f"{self.path} is there already, and no run of this command made it.",
                hint=_TAKEN,
                where=self.path,
            )
        self.store.write(f"{self.state}/plan.json", msgspec.json.encode(plan))

    def clear(self) -> None:
        """Removes the result and what is remembered of it, but no file that is not ours."""
        if self.single:
            self.store.remove(self.path)
        else:
            for name in self.store.names(self.path):
                if name.startswith("part-") or name == "_rejects.jsonl":
                    self.store.remove(f"{self.path}/{name}")
        self.store.remove(self.rejects)
        self.store.remove(self.state)

    def _is_taken(self) -> bool:
        if self.store.entry(self.path) is not None:
            return True  # also where a folder is wanted
        return not self.single and any(name != _STATE for name in self.store.names(self.path))

    def part(self, plan: Plan, shard: int) -> str:
        """Where the result of a shard is."""
        return f"{self._parts}/part-{shard:05d}-{identity(plan)}{SUFFIXES[plan.format]}"

    def rejected(self, plan: Plan, shard: int) -> str:
        """Where the rows of a shard are listed that were not taken."""
        return f"{self.state}/rejects/{shard:05d}-{identity(plan)}.jsonl"

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for what is being written, which goes with the block.

        Raises:
            StorageFullError: The disk is full.
        """
        try:
            with self.store.scratch(self.state) as folder:
                yield folder
        except OSError as error:
            found = durable.translate(error, self.path, "What is scored stays.")
            if isinstance(found, StorageFullError):
                raise found from error
            raise

    def mark(self, plan: Plan, done: Done) -> None:
        """Says that a shard's result is in its place; the last thing that is written of it."""
        name = f"{done.shard:05d}-{identity(plan)}.json"
        self.store.write(f"{self.state}/done/{name}", msgspec.json.encode(done))

    def marks(self, plan: Plan) -> set[int]:
        """The shards whose results are in their places; somebody may have removed one of them."""
        found = map(_MARK.match, self.store.names(f"{self.state}/done"))
        marked = {int(m["shard"]) for m in found if m and m["plan"] == identity(plan)}
        parts = set(self.store.names(self._parts)) if marked else set()
        return {n for n in marked if self.part(plan, n).rpartition("/")[2] in parts}

    def done(self, plan: Plan, shard: int) -> Done:
        """What is known of a shard's result."""
        data = self.store.read(f"{self.state}/done/{shard:05d}-{identity(plan)}.json")
        if data is None:
            raise ScoringFailedError(f"Shard {shard} has no result yet.")
        return msgspec.json.decode(data, type=Done)

    def summary(self) -> Summary | None:
        """What a finished run was; None before its end."""
        data = self.store.read(f"{self.state}/summary.json")
        try:
            return None if data is None else msgspec.json.decode(data, type=Summary)
        except msgspec.DecodeError as error:
            raise CorruptModelError(f"{self.state}/summary.json cannot be read.") from error

    def is_finished(self) -> bool:
        """Whether the whole result is in its place."""
        return self.summary() is not None and (
            not self.single or self.store.entry(self.path) is not None
        )

    def finish(self, plan: Plan, resumed: int = 0, seconds: float = 0.0) -> Summary:
        """Joins what has to be joined, checks that each shard is there, and says what it was.

        May be called twice, also at the same time: both do the same.

        Raises:
            ScoringFailedError: A shard's result is missing.
        """
        missing = set(range(len(plan.shards))) - self.marks(plan)
        if missing:
            raise ScoringFailedError(
                f"{len(missing)} of {len(plan.shards)} shards have no result yet.",
                hint="Run the same command again: it goes on where this one ended.",
            )
        known = [self.done(plan, shard) for shard in range(len(plan.shards))]
        rejected = sum(each.rejected for each in known)
        if rejected:
            self._join_rejects(plan, known)
        if self.single or not plan.shards:
            self._join(plan)
        summary = Summary(
            output=self.path,
            rejects=self.rejects if rejected else "",
            rows=sum(each.rows for each in known),
            written=sum(each.written for each in known),
            rejected=rejected,
            shards=len(known),
            resumed=resumed,
            seconds=round(seconds, 3),
        )
        self.store.write(f"{self.state}/summary.json", msgspec.json.encode(summary))
        if self.single:
            self.store.remove(f"{self.state}/parts")
        self.store.tidy(self.state)
        return summary

    def _join(self, plan: Plan) -> None:
        """One file of all parts; of a dataset without rows, one with a header and no more."""
        with self.scratch() as folder:
            whole = folder / "whole"
            if plan.shards:
                parts = (self.store.open(self.part(plan, n)) for n in range(len(plan.shards)))
                writers.join(plan.format, parts, whole)
            else:
                kinds = result_kinds(plan)
                writers.writer(plan.format, whole, kinds, arrow_types(plan)).close()
            self.store.take(whole, self.path if self.single else self.part(plan, 0))

    def _join_rejects(self, plan: Plan, known: Iterable[Done]) -> None:
        listed = [each.shard for each in known if each.rejected]
        with self.scratch() as folder:
            whole = folder / "rejects"
            opened: Iterable[IO[bytes]] = (
                self.store.open(self.rejected(plan, shard)) for shard in listed
            )
            writers.join("jsonl", iter(opened), whole)
            self.store.take(whole, self.rejects)


def result_kinds(plan: Plan) -> dict[str, str]:
    """The columns of a result, with what they hold."""
    kept = {each.name: each.kind for each in plan.kept}
    return kept | {each.name: each.kind for each in plan.answers}


def arrow_types(plan: Plan) -> dict[str, object]:
    """The Arrow types of kept columns, as the first file has them."""
    if not any(kept.kind == "arrow" for kept in plan.kept):
        return {}
    from scoring.batch import parquet  # noqa: PLC0415 - pyarrow

    store, _ = store_of(plan.options.input)
    source = next(source for source in plan.sources if source.columns)
    with store.open(source.path) as file:
        return parquet.types(parquet.open_file(file, source.path))


def _difference(present: Plan, wanted: Plan) -> str:
    """What is other, in a few words."""
    if present.model != wanted.model:
        return "its model is another"
    if present.options != wanted.options:
        names = [
            name
            for name in present.options.__struct_fields__
            if getattr(present.options, name) != getattr(wanted.options, name)
        ]
        return f"it was made with other options ({', '.join(names)})"
    return "its dataset was another, or has changed since"
