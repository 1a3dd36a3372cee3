"""Long tests end in their time, the longest ones begin first, and a page says how they ended."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import long_tier
import pytest
from campaigns import MINUTES, given_up_after, minutes_of, pytest_collection_modifyitems


class Item:
    """A test with these marks."""

    path = Path("tests/test_file.py")

    def __init__(self, *marks: pytest.MarkDecorator) -> None:
        self.marks = [*marks]

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.marks.append(mark)

    def get_closest_marker(self, name: str) -> Any:
        return next((mark.mark for mark in self.marks if mark.name == name), None)


def test_a_test_that_waits_forever_is_given_up() -> None:
    with pytest.raises(TimeoutError, match=r"0\.05 seconds"), given_up_after(0.05):
        threading.Event().wait(60)


def test_the_longest_tests_come_first_and_the_others_stay_in_order() -> None:
    short, middle, long, longest = (
        Item(),
        Item(pytest.mark.long),
        Item(pytest.mark.long(minutes=2 * MINUTES)),
        Item(pytest.mark.long(minutes=3 * MINUTES)),
    )
    items: Any = [short, middle, long, middle, longest, short]
    pytest_collection_modifyitems(items)
    assert items == [longest, long, short, middle, middle, short]
    assert [minutes_of(item) for item in items[:3]] == [3 * MINUTES, 2 * MINUTES, 0]
    groups = [item.get_closest_marker("xdist_group") for item in (longest, middle, short)]
    assert groups[:2] == [None, None]
    assert groups[2].args == ("test_file",)


RESULTS = """<testsuites><testsuite timestamp="2026-11-26T10:00:00" time="120" tests="4">
<testcase classname="tests.test_a" name="test_dead[kill]" time="90"><properties>
  <property name="tried" value="7"/><property name="cpu_seconds" value="60"/>
  </properties></testcase>
<testcase classname="tests.test_a" name="test_fails" time="1"><properties>
  <property name="tried" value="5"/><property name="ended" value="{'killed': 2, 'cut': 3}"/>
  </properties></testcase>
<testcase classname="tests.test_b" name="test_picture" time="1"><skipped message="no browser"/>
  </testcase>
<testcase classname="tests.test_b" name="test_wrong" time="2">
  <failure message="no">no</failure></testcase>
</testsuite></testsuites>"""


def test_a_page_says_what_was_tested_and_what_was_not(tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", ("# Head", "## Tail")
    page.write_text(f"{kept[0]}\n{long_tier.BEGIN}\nold\n{long_tier.END}\n{kept[1]}\n")
    (tmp_path / long_tier.LONG).write_text(RESULTS)
    (tmp_path / "tests-3.12.xml").write_text(RESULTS)
    assert long_tier.main(page, tmp_path) == 1
    text = page.read_text()
    assert all(line in text for line in kept)
    assert "old" not in text
    assert (
        "**4 tests: 2 passed, 1 failed, 1 skipped; 12 faults and races, of which 9 deaths of a"
        " process; 2 minutes, 1 CPU minutes.**" in text
    )
    assert "| `test_a` | 2 |  |  | 12 | 91 | 60 |" in text
    assert "| all others | 0 | 1 | 1 |  | 3 | 0 |" in text
    assert "| no browser | 1 |" in text
    assert "| 3.12 | 2 | 1 | 1 | 2.0 |" in text
    assert "- `tests.test_b::test_wrong`" in text
