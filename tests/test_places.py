"""Names of places: a run, a transform and moments at a URL are what they are at a path, bit for
bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import snapshot, world
from s3_server import Bucket

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.files.remote import Url, client

T, W = world(5)
B, V = world(6)
IDS = [f"item-{i}" for i in range(len(T))]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def embstab(capsys: pytest.CaptureFixture[str], bucket: Bucket) -> Run:
    """A command that reaches the bucket, and its JSON object."""

    def run(*arguments: Any, code: int = 0) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), *bucket.arguments, "--json"], prog_name="embstab")
        told = capsys.readouterr()
        assert int(ended.value.code or 0) == code, told.err
        return json.loads(told.out) if told.out else {"error": told.err}

    return run


def objects(bucket: Bucket, below: str = "") -> dict[str, bytes]:
    """All objects, by their names below a prefix."""
    store = client(Url(bucket.url(below), bucket.options))
    return {one["path"]: bytes(store.get(one["path"]).bytes()) for one in store.list().collect()}


def test_the_main_walk_is_the_same_on_s3_as_on_a_disk(
    tmp_path: Path, bucket: Bucket, embstab: Run
) -> None:
    told = {}
    for where, root in (("disk", str(tmp_path)), ("s3", bucket.url())):
        options = {"storage_options": bucket.options} if where == "s3" else {}
        for name, items, users in (("a", T, W), ("b", B, V)):
            es.create_run(
                f"{root}/{name}.zarr", items, users, item_ids=IDS, chunk_rows=16, **options
            )
        a, b, first, later = (f"{root}/{name}.zarr" for name in ("a", "b", "first", "later"))
        moments, transform = f"{root}/moments.npz", f"{root}/transform.npz"
        told[where] = [
            embstab("stabilize", a, first),
            embstab("moments", b, moments, "--reference", first),
            embstab("fit", b, transform, "--reference", first),
            embstab("apply", transform, b, later),
            embstab("evaluate", first, later, "--k", 5),
            embstab("compress", later, f"{root}/codes.zarr", "--code", "int8"),
            # embstab("verify", later),
            # embstab("verify", f"{root}/codes.zarr"),
            embstab("inspect", later),
            embstab("lookup", later, "item-3"),
            embstab("check", later, first),
        ]
    ours = {n: data for n, data in snapshot(tmp_path).items() if data is not None and n[0] != "."}
    theirs = objects(bucket)
    assert ours.keys() == theirs.keys()
    assert not [n for n in ours if "/c/" in n and ours[n] != theirs[n]], "chunks are the same bits"
    text = json.dumps(told["s3"]).replace(bucket.url(), str(tmp_path))
    assert without_times(json.loads(text)) == without_times(told["disk"])


def without_times(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: without_times(value) for name, value in values.items() if name != "seconds"}
    return [without_times(value) for value in values] if isinstance(values, list) else values
