"""The reference pages say what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[3] / "docs"


def maker(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "reference" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_errors_is_made_from_the_tree() -> None:
    assert (DOCS / "reference" / "errors.md").read_text() == maker("make_errors").table()


def test_the_page_of_commands_is_made_from_the_commands() -> None:
    assert (DOCS / "reference" / "cli.md").read_text() == maker("make_cli").page()


def test_no_link_inside_of_the_documentation_is_dead() -> None:
    root = DOCS.parent
    pages = [*root.glob("*.md"), *DOCS.rglob("*.md"), *(root / "examples").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
