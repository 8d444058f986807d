"""The registry against a plain dictionary, over any order of calls."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from scoring import digest as digests
from scoring.errors import InUseError, NotFoundError, UsageError
from serve.registry import Registry

LONG = os.environ.get("FIELDPOST_TEST_LONG") == "1"

NAMES = st.sampled_from(["iris", "digits"])
CONTENTS = st.sampled_from([b"", b"one", b"two", b"three" * 1000])
TAGS = st.dictionaries(
    st.sampled_from(["stage", "team"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
).map(lambda tags: {key: value.replace("\0", "") for key, value in tags.items()})

Key = tuple[str, int]


class RegistryMachine(RuleBasedStateMachine):
    """Every rule does the same to the registry and to the model below."""

    versions = Bundle("versions")

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fieldpost-property-"))
        self.registry = Registry(self.folder / "workspace")
        self.contents: dict[Key, dict[str, bytes]] = {}
        self.tags: dict[Key, dict[str, str]] = {}
        self.counters: dict[str, int] = defaultdict(int)
        self.packages: dict[str, Key] = {}
        self.deployments: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, int] = defaultdict(int)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.registry.close()
            shutil.rmtree(self.folder)

    @rule(
        target=versions,
        name=NAMES,
        contents=st.dictionaries(st.sampled_from(["a", "b/c"]), CONTENTS, min_size=1),
        tags=TAGS,
    )
    def register(self, name: str, contents: dict[str, bytes], tags: dict[str, str]) -> Key:
        files = {}
        for number, (path, content) in enumerate(contents.items()):
            files[path] = self.folder / f"source{number}"
            files[path].write_bytes(content)
        version = self.registry.models.register(name, files, prepared={}, tags=tags)
        self.counters[name] += 1
        key = (name, self.counters[name])
        assert (version.name, version.version) == key
        self.contents[key], self.tags[key] = dict(contents), dict(tags)
        return key

    @rule(key=versions, changes=TAGS, removed=st.sets(st.sampled_from(["stage", "team"])))
    def tag(self, key: Key, changes: dict[str, str], removed: set[str]) -> None:
        ref = f"{key[0]}:{key[1]}"
        if changes.keys() & removed:
            with pytest.raises(UsageError):
                self.registry.models.tag(ref, changes, removed)
        elif key not in self.contents:
            with pytest.raises(NotFoundError):
                self.registry.models.tag(ref, changes, removed)
        else:
            self.registry.models.tag(ref, changes, removed)
            kept = {tag: value for tag, value in self.tags[key].items() if tag not in removed}
            self.tags[key] = kept | changes

    def users(self, key: Key) -> list[str]:
        return sorted(
            name
            for name, found in self.deployments.items()
            if (found["desired"] == "running" and self.packages.get(found["package"]) == key)
            or (found["pending"] and self.packages.get(found["pending"][1]) == key)
        )

    @rule(key=versions)
    def delete(self, key: Key) -> None:
        ref = f"{key[0]}:{key[1]}"
        if key not in self.contents:
            with pytest.raises(NotFoundError):
                self.registry.models.delete(ref)
        elif self.users(key):
            with pytest.raises(InUseError) as caught:
                self.registry.models.delete(ref)
            assert all(name in caught.value.message for name in self.users(key))
        else:
            freed = self.registry.models.delete(ref)
            del self.contents[key], self.tags[key]
            kept = {digest for found in self.deployments.values() for digest in found["all"]}
            gone = {digest for digest, of in self.packages.items() if of == key} - kept
            assert set(freed.packages) == gone
            for digest in gone:
                del self.packages[digest]

    @rule(key=versions, layer=CONTENTS)
    def build(self, key: Key, layer: bytes) -> None:
        def register() -> str:
            blob = self.registry.blobs.put_bytes(layer)
            manifest = f"{key} {blob.digest}".encode()
            package = self.registry.packages.register(
                manifest,
                [blob],
                model=key[0],
                model_version=key[1],
                environment=None,
                platform="p",
            )
            assert package.model_ref == f"{key[0]}:{key[1]}"
            return package.digest

        with self.registry.blobs.hold():
            if key in self.contents:
                self.packages[register()] = key
            else:
                with pytest.raises(NotFoundError):
                    register()

    @precondition(lambda self: self.packages)
    @rule(name=st.sampled_from(["web", "batch"]), data=st.data())
    def deploy(self, name: str, data: st.DataObject) -> None:
        package = data.draw(st.sampled_from(sorted(self.packages)))
        found = self.deployments.get(name)

        def create() -> int:
            return self.registry.deployments.create_revision(
                name, target="local", package=package
            ).number

        if found and found["pending"]:
            with pytest.raises(InUseError):
                create()
            return
        self.revisions[name] += 1
        assert create() == self.revisions[name]
        fresh: dict[str, Any] = {"desired": "stopped", "active": None, "package": None, "all": []}
        found = self.deployments.setdefault(name, fresh)
        found["pending"] = (self.revisions[name], package)
        found["all"].append(package)

    @precondition(lambda self: any(each["pending"] for each in self.deployments.values()))
    @rule(ready=st.booleans(), data=st.data())
    def finish(self, ready: bool, data: st.DataObject) -> None:
        waiting = sorted(name for name, each in self.deployments.items() if each["pending"])
        name = data.draw(st.sampled_from(waiting))
        found = self.deployments[name]
        number, package = found["pending"]
        found["pending"] = None
        if ready:
            self.registry.deployments.activate(name, number)
            found.update(active=number, package=package, desired="running")
        else:
            self.registry.deployments.fail(name, number, "no", "trace")

    @precondition(lambda self: self.deployments)
    @rule(start=st.booleans(), data=st.data())
    def stop_or_start(self, start: bool, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.deployments)))
        found = self.deployments[name]
        if not start:
            self.registry.deployments.stop(name)
            found["desired"] = "stopped"
        elif found["active"] is None:
            with pytest.raises(UsageError):
                self.registry.deployments.start(name)
        else:
            self.registry.deployments.start(name)
            found["desired"] = "running"

    @precondition(lambda self: self.deployments)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.deployments)))
        found = self.deployments[name]
        if found["desired"] == "running" or found["pending"]:
            with pytest.raises(InUseError):
                self.registry.deployments.delete(name)
        else:
            self.registry.deployments.delete(name)
            del self.deployments[name]

    @rule()
    def reopen(self) -> None:
        self.registry.close()
        self.registry = Registry(self.folder / "workspace")

    @rule()
    def sweep(self) -> None:
        freed = self.registry.gc()
        deployed = {digest for found in self.deployments.values() for digest in found["all"]}
        orphans = {digest for digest, of in self.packages.items() if of not in self.contents}
        assert set(freed.packages) == orphans - deployed
        for digest in freed.packages:
            del self.packages[digest]
        wanted = {
            digests.of_bytes(content)
            for files in self.contents.values()
            for content in files.values()
        }
        for digest in self.packages:
            wanted.add(digest)
            wanted.update(blob.digest for blob in self.registry.packages.get(digest).blobs)
        assert set(self.registry.blobs.digests()) == wanted

    @rule(key=versions)
    def download(self, key: Key) -> None:
        dest = self.folder / "out"
        if key not in self.contents:
            with pytest.raises(NotFoundError):
                self.registry.models.download(f"{key[0]}:{key[1]}", dest)
            return
        self.registry.models.download(f"{key[0]}:{key[1]}", dest)
        for path, content in self.contents[key].items():
            assert (dest / path).read_bytes() == content
        shutil.rmtree(dest)

    @invariant()
    def same_versions(self) -> None:
        if not hasattr(self, "registry"):
            return
        found = {(each.name, each.version): each for each in self.registry.models.list()}
        assert found.keys() == self.contents.keys()
        for key, version in found.items():
            assert version.tags == self.tags[key]
            assert {file.path: file.digest for file in version.files} == {
                path: digests.of_bytes(content) for path, content in self.contents[key].items()
            }
            assert self.registry.models.used_by(version) == self.users(key)

    @invariant()
    def same_deployments(self) -> None:
        if not hasattr(self, "registry"):
            return
        found = {each.name: each for each in self.registry.deployments.list()}
        assert found.keys() == self.deployments.keys()
        for name, expected in self.deployments.items():
            assert found[name].desired == expected["desired"]
            assert found[name].active == expected["active"]
            states = [revision.state for revision in found[name].revisions]
            assert states.count("active") == (expected["active"] is not None)
            assert states.count("pending") == bool(expected["pending"])
        assert {each.digest for each in self.registry.packages.list()} == set(self.packages)


RegistryMachine.TestCase.settings = settings(
    max_examples=200 if LONG else 8,
    stateful_step_count=50 if LONG else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRegistry = RegistryMachine.TestCase
