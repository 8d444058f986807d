"""The reference pages say what the code does."""

import importlib.util
import re
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_of_errors_is_made_from_the_tree() -> None:
    spec = importlib.util.spec_from_file_location("make", DOCS / "reference" / "make_errors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "reference" / "errors.md").read_text() == module.table()


def test_no_link_inside_of_the_documentation_is_dead() -> None:
    root = DOCS.parent
    pages = [*root.glob("*.md"), *DOCS.rglob("*.md"), *(root / "examples").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
