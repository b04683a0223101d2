"""``make release-check``: what a release still lacks, read from the built files in ``dist/`` and the documents.

``make build`` prints the same list and continues: a wheel from a checkout does not need it.
"""

from __future__ import annotations

import argparse
import datetime
import email.parser
import re
import sys
import tarfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Final

from readme_renderer import markdown

from scripts.readme import is_relative

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from email.message import Message

ROOT: Final = Path(__file__).resolve().parent.parent
#: Airflow shows Documentation as the provider's, the README's links lead to Repository.
URLS: Final = ("Repository", "Documentation", "Changelog")
#: The README and the page on installing say so until it is no longer true.
UNPUBLISHED: Final = "No release is published yet"


def lacks(dist: Path, root: Path = ROOT) -> Iterator[str]:
    """Say what a release lacks, one sentence each.

    :param dist: the folder with the wheel and the sdist.
    :param root: the checkout they were built from.
    """
    wheels, sdists = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        yield f"{dist} has {len(wheels)} wheels and {len(sdists)} sdists, not one each: run make build"
        return
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        (path,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = email.parser.BytesParser().parsebytes(wheel.read(path))
    yield from _lacks_in_metadata(metadata)
    yield from _lacks_in_documents(root, str(metadata["Version"]))
    examples = {
        f"airflow_provider_fluxomail/{file.relative_to(root).as_posix()}"
        for file in (root / "example_dags").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    for name in sorted(examples - set(names)):
        yield f"the wheel lacks {name}"
    with tarfile.open(sdists[0]) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    for name in ("RELEASING.md", "hatch_build.py", "scripts/readme.py", "example_dags/fluxomail_send_and_wait.py"):
        if name not in packed:
            yield f"the sdist lacks {name}"


def _lacks_in_metadata(metadata: Message) -> Iterator[str]:
    if not metadata["Author"] and not metadata["Author-email"]:
        yield "authors is not filled in: pyproject.toml, [project]"
    urls = dict(value.split(", ", 1) for value in metadata.get_all("Project-URL", []))
    for label in URLS:
        if not urls.get(label, "").startswith("https://"):
            yield f"{label} is not filled in (https://...): pyproject.toml, [project.urls]"
    rendered = markdown.render(str(metadata.get_payload()))
    if not rendered:
        yield "a package index could not render the README"
        return
    links = _Links()
    links.feed(rendered)
    if broken := sorted(filter(is_relative, links.targets)):
        yield f"{len(broken)} links of the README would be broken on a package index: {', '.join(broken)}"


def _lacks_in_documents(root: Path, version: str) -> Iterator[str]:
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = {match[1]: match[2] for match in re.finditer(r"^## \[(.+?)\](.*)$", changelog, re.MULTILINE)}
    if version not in sections:
        yield f"CHANGELOG.md has no section [{version}]"
    else:
        try:
            datetime.date.fromisoformat(sections[version].removeprefix(" - ").strip())
        except ValueError:
            yield f"CHANGELOG.md has no date for {version}: ## [{version}] - YYYY-MM-DD"
    unreleased = re.search(r"^## \[Unreleased\]$(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if unreleased and unreleased[1].strip():
        yield f"CHANGELOG.md has entries under [Unreleased]: move them to [{version}]"
    for page in (root / "README.md", *sorted((root / "docs").rglob("*.md"))):
        if UNPUBLISHED in page.read_text(encoding="utf-8"):
            yield f"{page.relative_to(root)} says: {UNPUBLISHED}"


class _Links(HTMLParser):
    """Collects where the links and images of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets.update(value for name, value in attrs if name in ("href", "src") and value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a release lacks.

    :return: 1 if it lacks something, unless ``--advise`` is given.
    """
    parser = argparse.ArgumentParser(prog="make release-check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dist", type=Path)
    parser.add_argument("--advise", action="store_true", help="exit with 0 in any case")
    options = parser.parse_args(arguments)
    found = list(lacks(options.dist))
    if not found:
        print("Ready for a release; RELEASING.md has the steps.")
        return 0
    print("Not ready for a release (RELEASING.md); a wheel for your own use is not affected:")
    for one in found:
        print(f"  - {one}")
    return 0 if options.advise else 1


if __name__ == "__main__":
    sys.exit(main())
