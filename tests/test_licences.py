"""docs/licences.md lists every package that an installation brings, with its licence.

``python tests/test_licences.py`` writes the table anew from what is installed; what is not
installed keeps its line.
"""

from __future__ import annotations

import re
import tomllib
from collections import deque
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- licences: written by tests/test_licences.py -->\n\n", "\n\n<!-- end -->"
PERMISSIVE = (
    "Apache",
    "BSD",
    "ISC",
    "MIT",
    "MPL",
    "PSF",
    "Unlicense",
    "Zlib",
    "ZPL",
    "Dual License",
)
COPYLEFT = {"crc32c": "LGPL-2.1-or-later"}
"""Known, and named on the page."""
OWN = "dask-embstab"


def normal(requirement: str) -> str:
    """The name of the package that is required, in the index's own spelling."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()  # type: ignore[index]


def by_hand() -> dict[str, set[str]]:
    """What pyproject names, and for which extras (``""``: always)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named: dict[str, set[str]] = {normal(one): {""} for one in project["dependencies"]}
    for extra, requirements in project["optional-dependencies"].items():
        for one in requirements:
            if normal(one) != OWN:
                named.setdefault(normal(one), set()).add(extra)
    return named


def brought_along(names: set[str]) -> set[str]:
    """What these packages require themselves, and so on, as far as they are installed."""
    from packaging.requirements import Requirement

    result, left = set(names), deque(names)
    while left:
        try:
            required = metadata.requires(left.popleft()) or []
        except metadata.PackageNotFoundError:
            continue
        for text in required:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                name = normal(one.name)
                if name not in result:
                    result.add(name)
                    left.append(name)
    return result - names


def licence_of(name: str) -> str | None:
    """As the installed package's metadata says it; None where it is not installed."""
    try:
        known = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    expression = known.get("License-Expression") or ""
    classified = [
        line.split(" :: ")[-1].removesuffix(" License")
        for line in known.get_all("Classifier") or []
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    first = (known.get("License") or "").strip().partition("\n")[0]
    is_name = 0 < len(first) < 40 and not first.startswith("Copyright")
    return expression or (first if is_name else "") or ", ".join(classified) or None


def rows() -> dict[str, tuple[str, str]]:
    """By package: its licence, and what it is for; from the page."""
    matches = re.findall(r"^\| `([^`]+)` \| (.+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: (licence, use) for name, licence, use in matches}


def uses() -> dict[str, str]:
    named = by_hand()
    always = {name for name, extras in named.items() if "" in extras}
    expected = {name: "always" if name in always else "extra " + ", ".join(sorted(extras))
            for name, extras in named.items()}  # fmt: skip
    return expected | dict.fromkeys(brought_along(always) - always, "always, brought along")


def table() -> str:
    """Of all packages; needed ones first."""
    before = rows() if PAGE.exists() else {}
    lines = ["| package | licence | for |", "|---|---|---|"]
    for name, use in sorted(uses().items(), key=lambda one: (not one[1].startswith("always"), one)):
        licence = licence_of(name) or before.get(name, ("?", ""))[0]
        lines.append(f"| `{name}` | {licence.replace('|', '/')} | {use} |")
    return "\n".join(lines)


def test_every_package_that_is_named_has_its_line() -> None:
    listed = rows()
    used = uses()
    missing = {name for name in by_hand() if listed.get(name, ("", ""))[1] != used[name]}
    assert not missing, "python tests/test_licences.py writes docs/licences.md anew"
    assert all(licence != "?" for licence, _ in listed.values())


def test_what_is_always_installed_is_permissive_or_named() -> None:
    for name, (licence, use) in rows().items():
        is_free = any(known in licence for known in PERMISSIVE) or COPYLEFT.get(name) == licence
        assert is_free or not use.startswith("always"), (name, licence)
    assert all(f"{name} is under" in " ".join(PAGE.read_text().split()) for name in COPYLEFT)


@pytest.mark.long
def test_the_lines_are_what_the_installed_packages_say() -> None:
    listed = rows()
    for name, (licence, _) in listed.items():
        reported = licence_of(name)
        assert reported is None or reported.replace("|", "/") == licence, name
    always = {name for name, (_, use) in listed.items() if use.startswith("always")}
    assert brought_along({n for n, e in by_hand().items() if "" in e}) <= always


if __name__ == "__main__":
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    PAGE.write_text(head + BEGIN + table() + END + rest.partition(END)[2])
