from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scoring.errors import EnvironmentResolutionError
from serve.packaging.requirement_lines import read_requirement_lines

if TYPE_CHECKING:
    from pathlib import Path

H1, H2 = "a" * 64, "b" * 64


def _texts(path: Path) -> list[str]:
    return [package.text for package in read_requirement_lines(path).packages]


def test_reads_what_pip_reads(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        "# a comment\n"
        "\n"
        "numpy >= 1.26, <3   # and why\n"
        "Scikit_Learn[alldeps]==1.9.1 ; python_version >= '3.11'\n"
        "pandas \\\n"
        "  ==3.1.1 \\\n"
        f"  --hash=sha256:{H1} --hash sha256:{H2}\n"
        "https://example.org/some_pkg-1.0-py3-none-any.whl\n"
    )
    found = read_requirement_lines(file).packages
    assert [(package.name, package.line) for package in found] == [
        ("numpy", 3),
        ("scikit-learn", 4),
        ("pandas", 5),
        ("some-pkg", 8),
    ]
    assert found[0].text == "numpy<3,>=1.26"
    assert "[alldeps]" in found[1].text
    assert 'python_version >= "3.11"' in found[1].text
    assert found[2].sha256 == (H1, H2)
    assert found[3].text == "some-pkg @ https://example.org/some_pkg-1.0-py3-none-any.whl"
    assert found[0].where == f"{file}:3"


def test_reads_included_files_from_beside_the_including_one(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "main.txt").write_text("-r sub/more.txt\n--constraint=sub/limits.txt\nflask\n")
    (tmp_path / "sub" / "more.txt").write_text("-rlast.txt\npandas\n")
    (tmp_path / "sub" / "last.txt").write_text("scipy\n-r ../main.txt\n")
    (tmp_path / "sub" / "limits.txt").write_text("numpy<3\n")
    found = read_requirement_lines(tmp_path / "main.txt")
    assert [package.text for package in found.packages] == ["scipy", "pandas", "flask"]
    assert [package.text for package in found.constraints] == ["numpy<3"]
    assert found.packages[0].where == f"{tmp_path / 'sub' / 'last.txt'}:1"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_reads_every_encoding_that_announces_itself(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "requirements.txt"
    text = "numpy\r\npandas\r\n"
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    file.write_bytes(mark + text.encode(encoding))
    assert _texts(file) == ["numpy", "pandas"]


def test_keeps_options_about_indexes(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        "--index-url https://a.example/simple\n"
        "--extra-index-url=https://${USER_NAME}:${TOKEN}@b.example/simple\n"
        "-f wheels\n"
        "--pre\n"
        "--trusted-host a.example\n"
        "--only-binary :all:\n"
        "--prefer-binary\n"
        "--require-hashes\n"
        "numpy\n"
    )
    assert read_requirement_lines(file).options == [
        *("--index-url", "https://a.example/simple"),
        *("--extra-index-url", "https://${USER_NAME}:${TOKEN}@b.example/simple"),
        *("--find-links", str(tmp_path / "wheels")),
        *("--prerelease", "allow"),
        *("--allow-insecure-host", "a.example"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-e .", "editable"),
        ("--editable=../mine", "editable"),
        ("./mine", "local path"),
        ("../mine-1.0-py3-none-any.whl", "local path"),
        ("mine-1.0-py3-none-any.whl", "local path"),
        ("/abs/mine", "local path"),
        (".", "local path"),
        (".[extra]", "no requirement"),
        ("file:///abs/mine.whl", "local path"),
        ("mine @ file:///home/conda/work", "local path"),
        ("C:\\mine", "local path"),
        ("git+https://example.org/mine.git", "version control"),
        ("mine @ git+ssh://git@example.org/mine.git@main", "version control"),
        ("https://example.org/mine-1.0.tar.gz", "source archive"),
        ("mine @ https://example.org/mine-1.0.zip", "source archive"),
        ("https://example.org/mine", "URL of a wheel"),
        ("numpy = 1.26", "no requirement"),
        ("numpy==1.26 pandas", "no requirement"),
        ("numpy>=one", "no requirement"),
        ("<<<<<<< HEAD", "no requirement"),
        ("numpy --config-settings=x", "cannot be used"),
        ("numpy --hash=md5:abc", "none of them is a sha256"),
        ("--no-binary :all:", "cannot be used"),
        ("-r", "does not name a file"),
        ("-r https://example.org/requirements.txt", "does not name a file"),
        ("-r missing.txt", "cannot be read"),
    ],
)
def test_names_the_line_that_is_wrong(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(f"numpy\n# fine until here\n{line}\nscipy\n")
    with pytest.raises(EnvironmentResolutionError, match=message) as caught:
        read_requirement_lines(file)
    assert caught.value.where == f"{file}:3"


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentResolutionError, match="cannot be read"):
        read_requirement_lines(tmp_path / "missing.txt")
    with pytest.raises(EnvironmentResolutionError, match="cannot be read"):
        read_requirement_lines(tmp_path)
    (tmp_path / "binary").write_bytes(b"\x80\x81\x82")
    with pytest.raises(EnvironmentResolutionError, match="not text"):
        read_requirement_lines(tmp_path / "binary")


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("\n# nothing\n")
    assert _texts(tmp_path / "requirements.txt") == []
