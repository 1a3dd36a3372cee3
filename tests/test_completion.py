"""What a shell is told when it asks how a line of embstab may go on; names of tasks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dask.utils import key_split

from dask_embstab.cli.main import main
from dask_embstab.passes.engine.graph import Graph

DOCS = Path(__file__).parent.parent / "docs/command-line.md"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ser",), {"series", "serve"}),
        (("stabilize", "--ali"), {"--align-on"}),
        (("stabilize", "--keep", ""), {"scores", "geometry"}),
        (("series", "ro"), {"rollback"}),
    ],
)
def test_a_line_is_completed(
    words: tuple[str, ...],
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_EMBSTAB_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(("embstab", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit) as ended:
        main(prog_name="embstab")
    assert ended.value.code == 0
    assert set(capsys.readouterr().out.splitlines()[1::3]) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])  # click asks Bash itself for its version
def test_the_documented_lines_give_a_script(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"_EMBSTAB_COMPLETE={shell}_source embstab" in DOCS.read_text()
    monkeypatch.setenv("_EMBSTAB_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit) as ended:
        main(prog_name="embstab")
    assert ended.value.code == 0
    assert f"_EMBSTAB_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_completing_imports_neither_numpy_nor_dask() -> None:
    code = (
        "import sys\n"
        "from dask_embstab.cli.main import main\n"
        "try: main(prog_name='embstab')\n"
        "except SystemExit: print([name for name in ('numpy', 'dask') if name in sys.modules])"
    )
    asked = {"_EMBSTAB_COMPLETE": "zsh_complete", "COMP_WORDS": "embstab seri", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", code]
    completed = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | asked
    ).stdout
    assert completed.splitlines()[1] == "series"
    assert completed.splitlines()[-1] == "[]"


@pytest.mark.parametrize("label", ["fit: reading", "apply", "ids: are any repeated?"])
def test_a_task_is_named_after_the_pass_and_the_step(label: str) -> None:
    graph = Graph(label)
    keys = [graph.read(len, []) for _ in range(5)]
    node = graph.tree(keys, sum).node
    words = "-".join(re.findall(r"\w+", label))
    assert {key_split(key) for key in keys} == {f"embstab-rows-{words}"}
    assert key_split(node.key) == f"embstab-join-{words}"
