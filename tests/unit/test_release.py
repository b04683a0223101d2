"""The README's links, and what ``make build`` and ``make release-check`` say of the built files."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Collection
from pathlib import Path

import pytest

from scripts.readme import relative_links, with_absolute_links

ROOT = Path(__file__).parent.parent.parent
REPOSITORY = "https://example.org/owner/name"
AT_TAG = f"{REPOSITORY}/blob/v1.2.3"
RAW = f"{REPOSITORY}/raw/v1.2.3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[a](./docs/a.md#part "title")', f'[a]({AT_TAG}/docs/a.md#part "title")'),
        ("![a\nb](docs/a.png) [c](d)", f"![a\nb]({RAW}/docs/a.png) [c]({AT_TAG}/d)"),
        ("[![a](docs/a.png)](docs/a.md)", f"[![a]({RAW}/docs/a.png)]({AT_TAG}/docs/a.md)"),
        ("[`a`](docs/a.md)", f"[`a`]({AT_TAG}/docs/a.md)"),
        ("see [a]\n\n[a]: docs/a.md\n", f"see [a]\n\n[a]: {AT_TAG}/docs/a.md\n"),
        ("[a](https://example.com/a)", "[a](https://example.com/a)"),
        ("[a](#part)", "[a](#part)"),
        ("`[a](docs/a.md)`", "`[a](docs/a.md)`"),
        ("```python\nx = y[0](docs)\n```\n[a](b)", f"```python\nx = y[0](docs)\n```\n[a]({AT_TAG}/b)"),
    ],
)
def test_relative_links_lead_to_the_repository_at_the_tag(text: str, expected: str) -> None:
    assert with_absolute_links(text, f"{REPOSITORY}/", "1.2.3") == expected


def test_the_links_of_the_readme_lead_to_files() -> None:
    links = relative_links((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link.partition("#")[0]).is_file()] == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that is ready for a release, with what was built of it in ``dist``."""
    # From the group "lint", so not in the environments of older Airflows, which build nothing.
    pytest.importorskip("readme_renderer")
    (tmp_path / "docs" / "start").mkdir(parents=True)
    (tmp_path / "example_dags" / "templates").mkdir(parents=True)
    for name in ("fluxomail_send_and_wait.py", "templates/a.html"):
        (tmp_path / "example_dags" / name).touch()
    (tmp_path / "README.md").write_text("# Title\n")
    (tmp_path / "docs" / "start" / "installing.md").write_text("# Installing\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n\n- It works.\n")
    build(tmp_path)
    return tmp_path


METADATA = f"""Metadata-Version: 2.4
Name: airflow-provider-fluxomail
Version: 1.2.3
Project-URL: Repository, {REPOSITORY}
Project-URL: Documentation, https://example.org/docs
Project-URL: Changelog, https://example.org/changes
Author-email: Ada <ada@example.org>
Description-Content-Type: text/markdown

# Title

[a]({AT_TAG}/docs/a.md), [part](#title), <https://example.org>
"""


def build(root: Path, *, metadata: str = METADATA, without: Collection[str] = ()) -> None:
    dist = root / "dist"
    dist.mkdir(exist_ok=True)
    with zipfile.ZipFile(dist / "x-1.2.3-py3-none-any.whl", "w") as wheel:
        wheel.writestr("x-1.2.3.dist-info/METADATA", metadata)
        for name in ("fluxomail_send_and_wait.py", "templates/a.html"):
            if name not in without:
                wheel.writestr(f"airflow_provider_fluxomail/example_dags/{name}", "")
    with tarfile.open(dist / "x-1.2.3.tar.gz", "w:gz") as sdist:
        packed = ("RELEASING.md", "hatch_build.py", "scripts/readme.py", "example_dags/fluxomail_send_and_wait.py")
        for name in packed:
            if name not in without:
                sdist.addfile(tarfile.TarInfo(f"x-1.2.3/{name}"), io.BytesIO())


def lacks(checkout: Path) -> list[str]:
    from scripts import release_check

    return list(release_check.lacks(checkout / "dist", checkout))


def test_nothing_is_lacking(checkout: Path) -> None:
    assert lacks(checkout) == []


def test_everything_that_is_lacking_is_said_at_once(checkout: Path) -> None:
    metadata = METADATA.replace("Author-email: Ada <ada@example.org>\n", "").replace("Project-URL: Changelog", "X")
    metadata = metadata.replace(f"Project-URL: Repository, {REPOSITORY}\n", "").replace("https://example.org/docs", "x")
    metadata = metadata.replace(f"{AT_TAG}/docs/a.md", "docs/a.md").replace(
        "<https://example.org>", '<img src="a.png">'
    )
    build(checkout, metadata=metadata, without=("templates/a.html", "hatch_build.py"))
    (checkout / "CHANGELOG.md").write_text("## [Unreleased]\n\n- New.\n\n## [1.2.3] - unreleased\n")
    (checkout / "docs" / "start" / "installing.md").write_text("No release is published yet.\n")
    found = "\n".join(lacks(checkout))
    for said in (
        "authors is not filled in",
        "Repository is not filled in",
        "Documentation is not filled in",
        "Changelog is not filled in",
        "2 links of the README would be broken on a package index: a.png, docs/a.md",
        "CHANGELOG.md has no date for 1.2.3",
        "CHANGELOG.md has entries under [Unreleased]",
        "docs/start/installing.md says: No release is published yet",
        "the wheel lacks airflow_provider_fluxomail/example_dags/templates/a.html",
        "the sdist lacks hatch_build.py",
    ):
        assert said in found
    assert len(found.splitlines()) == 10
    (checkout / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.2] - 2026-01-01\n")
    assert "CHANGELOG.md has no section [1.2.3]" in lacks(checkout)
    (checkout / "dist" / "x-1.2.2-py3-none-any.whl").touch()
    (only,) = lacks(checkout)
    assert "2 wheels and 1 sdists" in only


def test_a_build_is_advised_and_a_release_fails(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts import release_check

    # To be removed with the sentences, at the first release (RELEASING.md).
    for page in ("README.md", "docs/start/installing.md"):
        assert release_check.UNPUBLISHED in (ROOT / page).read_text(encoding="utf-8"), page
    monkeypatch.setattr(release_check, "lacks", lambda dist: ["it lacks this"])
    assert release_check.main(["dist", "--advise"]) == 0
    assert release_check.main(["dist"]) == 1
    assert capsys.readouterr().out.count("  - it lacks this\n") == 2
    monkeypatch.setattr(release_check, "lacks", lambda dist: [])
    assert release_check.main(["dist"]) == 0
