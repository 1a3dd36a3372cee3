"""Names of places: a run, a transform and moments at a URL are what they are at a path, bit for
bit.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import crc32c
import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from oracle import snapshot, world
from s3_server import Bucket

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.files.remote import Url, client
from dask_embstab.tables.stores.output_store import UrlOutput
from dask_embstab.tables.stores.url_store import UrlStore
from dask_embstab.tables.write.object_store import OutputGroup

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
        output = capsys.readouterr()
        assert int(ended.value.code or 0) == code, output.err
        return json.loads(output.out) if output.out else {"error": output.err}

    return run


def objects(bucket: Bucket, below: str = "") -> dict[str, bytes]:
    """All objects, by their names below a prefix."""
    store = client(Url(bucket.url(below), bucket.options))
    return {one["path"]: bytes(store.get(one["path"]).bytes()) for one in store.list().collect()}


def test_the_main_walk_is_the_same_on_s3_as_on_a_disk(
    tmp_path: Path, bucket: Bucket, embstab: Run
) -> None:
    printed = {}
    for where, root in (("disk", str(tmp_path)), ("s3", bucket.url())):
        options = {"storage_options": bucket.options} if where == "s3" else {}
        for name, items, users in (("a", T, W), ("b", B, V)):
            es.create_run(
                f"{root}/{name}.zarr", items, users, item_ids=IDS, chunk_rows=16, **options
            )
        a, b, first, later = (f"{root}/{name}.zarr" for name in ("a", "b", "first", "later"))
        moments, transform = f"{root}/moments.npz", f"{root}/transform.npz"
        printed[where] = [
            embstab("stabilize", a, first),
            embstab("moments", b, moments, "--reference", first),
            embstab("fit", b, transform, "--reference", first),
            embstab("apply", transform, b, later),
            embstab("evaluate", first, later, "--k", 5),
            embstab("compress", later, f"{root}/codes.zarr", "--code", "int8"),
            embstab("verify", later),
            embstab("verify", f"{root}/codes.zarr"),
            embstab("inspect", later),
            embstab("lookup", later, "item-3"),
            embstab("check", later, first),
        ]
    ours = {n: data for n, data in snapshot(tmp_path).items() if data is not None and n[0] != "."}
    theirs = objects(bucket)
    assert ours.keys() == theirs.keys()
    assert not [n for n in ours if "/c/" in n and ours[n] != theirs[n]], "chunks are the same bits"
    text = json.dumps(printed["s3"]).replace(bucket.url(), str(tmp_path))
    assert without_times(json.loads(text)) == without_times(printed["disk"])


def without_times(values: Any) -> Any:
    if isinstance(values, dict):
        return {n: without_times(value) for n, value in values.items() if n != "seconds"}
    return [without_times(value) for value in values] if isinstance(values, list) else values


def test_a_place_that_is_taken_or_read_only_is_refused(bucket: Bucket) -> None:
    options = {"storage_options": bucket.options}
    run = es.create_run(bucket.url("a.zarr"), T, **options)
    before = objects(bucket)
    for out, error, says in (
        ("a.zarr", es.OutputExistsError, "exists already"),
        ("a.zarr/inside", es.InputError, "overlap"),
        ("b/../a.zarr/inside", es.InputError, "overlap"),
        ("%61.zarr/inside", es.InputError, "overlap"),
    ):
        with pytest.raises(error, match=says):
            es.stabilize(bucket.url("a.zarr"), bucket.url(out), **options)
    for scheme in ("s3a://", "S3://"):
        inside = bucket.url("a.zarr/inside").replace("s3://", scheme)
        with pytest.raises(es.InputError, match="overlap"):
            es.stabilize(bucket.url("a.zarr"), inside, **options)
    with pytest.raises(es.OutputExistsError, match=r"holds a.zarr/.* more objects"):
        es.create_run(bucket.url(), T, **options)
    with pytest.raises(es.OutputExistsError, match="cannot be replaced in one step"):
        es.stabilize(run, bucket.url("a.zarr"), overwrite=True, **options)
    with pytest.raises(es.InputError, match="cannot be resumed"):
        es.stabilize(run, bucket.url("b.zarr"), resume=True, **options)
    with pytest.raises(es.InputError, match="read-only"):
        es.stabilize(run, "https://localhost/out.zarr")
    with pytest.raises(es.InputError, match="can only be read"):
        es.fit(run).save("https://localhost/t.npz")
    assert objects(bucket) == before


def test_an_unfinished_run_is_refused_and_replaced_where_asked(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process leaves: a mark and chunks, and no metadata that a reader could open."""
    options, url = {"storage_options": bucket.options}, bucket.url("out.zarr")
    with monkeypatch.context() as killed:
        killed.setattr(OutputGroup, "publish", Mock(side_effect=KeyboardInterrupt))
        killed.setattr(OutputGroup, "sweep", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            es.create_run(url, T, chunk_rows=16, **options)
    left = objects(bucket)
    assert [name for name in left if name.endswith(".json")] == ["out.zarr/zarr.json"]
    assert len(left) == 5
    with pytest.raises((FileNotFoundError, KeyError), match="items"):
        xr.open_zarr(UrlStore(Url(url, bucket.options)), group="items", consolidated=False)
    with pytest.raises(es.NotARunError, match="not finished"):
        es.open_run(url, **options)
    with pytest.raises(es.OutputExistsError, match=r"not finished.*overwrite"):
        es.create_run(url, T[:20], **options)
    run = es.create_run(url, T[:20], chunk_rows=16, overwrite=True, **options)
    np.testing.assert_array_equal(run.items.vectors, T[:20])
    assert len(objects(bucket, "out.zarr/items/vectors/c")) == 2, "nothing of the other is left"


def test_of_two_writers_one_has_the_place(bucket: Bucket) -> None:
    """The other is refused when it begins, or when it would publish."""
    url = Url(bucket.url("out.zarr"), bucket.options)
    first, second, third = UrlOutput(url), UrlOutput(url), UrlOutput(url)
    assert first.claim(b"first", over=None)
    assert not second.claim(b"second", over=None)
    mark = first.standing()
    assert second.claim(b"second", over=mark)
    assert not third.claim(b"third", over=mark), "it is not over what stood there before"
    with pytest.raises(es.RetryError, match="taken over by another process; nothing was published"):
        first.publish()
    first.give_up(b"first gave up")
    assert first.standing().root == b"second"


def test_damage_to_an_object_is_found(bucket: Bucket, embstab: Run) -> None:
    url = bucket.url("out.zarr")
    kept = {"checksum_algorithm": "SHA256"}
    es.stabilize(T, url, storage_options=bucket.options | kept)
    assert embstab("verify", url)["damage"] == []
    opened = es.open_run(url, verify=True, storage_options=bucket.options)
    store = client(Url(url, bucket.options))
    data = bytearray(store.get("items/vectors/c/0/0").bytes())
    data[0] ^= 1
    store.put("items/vectors/c/0/0", bytes(data))
    with pytest.raises(es.DamageError, match=r"items/vectors/c/0/0 fails its checksum"):
        es.fit(es.open_run(url, storage_options=bucket.options))
    data[-4:] = crc32c.crc32c(bytes(data[:-4])).to_bytes(4, "little")
    store.put("items/vectors/c/0/0", bytes(data))
    assert (
        "items/vectors/c/0/0 is not what was published" in embstab("verify", url, code=2)["error"]
    )
    with pytest.raises(es.DamageError, match=r"items/vectors/c/0/0 .*is not the chunk"):
        es.fit(opened)


def test_a_shard_of_another_place_is_found_by_every_reader(bucket: Bucket) -> None:
    """It is whole, and not the one that was written there."""
    url, options = bucket.url("out.zarr"), bucket.options
    es.create_run(bucket.url("in.zarr"), T, chunk_rows=8, shard_rows=32, storage_options=options)
    es.stabilize(bucket.url("in.zarr"), url, storage_options=options)
    run = es.open_run(url, verify=True, storage_options=options)
    store = client(Url(url, options))
    names = [one["path"] for one in store.list("items/vectors/c").collect()]
    assert len(names) == 2
    shards = [bytes(store.get(name).bytes()) for name in names]
    for name, data in zip(names, reversed(shards), strict=True):
        store.put(name, data)
    for read in (lambda: es.fit(run), run.items.vectors[3:9].compute, run.items.vectors.compute):
        with pytest.raises(es.DamageError, match=r"c/\d/0 is not the chunk"):
            read()


def test_a_web_server_without_ranges_is_one_clear_error(tmp_path: Path) -> None:
    """Python's own: whole chunks are read from it, and of shards nothing."""
    for name, shard_rows in (("plain", None), ("shards", 32)):
        es.create_run(tmp_path / name, T, item_ids=IDS, chunk_rows=16, shard_rows=shard_rows)

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    handler = functools.partial(Silent, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        run = es.open_run(f"{url}/plain")
        np.testing.assert_array_equal(es.fit(run).items, es.fit(T).items)
        shards = es.open_run(f"{url}/shards")
        for read in (lambda: es.fit(shards), shards.items.vectors[2:5].compute):
            with pytest.raises(es.AccessError, match=r"must be read in parts.*no ranges"):
                read()
        server.shutdown()


def test_without_obstore_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(es.InputError, match=r"pip install 'dask_embstab\[s3\]'"):
        es.open_run("s3://bucket/run.zarr", storage_options={"region": "nowhere"})


def test_options_have_the_spellings_of_s3fs_too(bucket: Bucket) -> None:
    given = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": bucket.endpoint, "region_name": "us-east-1"},
    }
    made = es.fit(T, W)
    made.save(bucket.url("t.npz"), storage_options=given)
    for load in (es.load_transform, es.Transform.load):
        transform = load(bucket.url("t.npz"), storage_options=given)
        np.testing.assert_array_equal(transform.items, made.items)
    with pytest.raises(es.InputError, match="no transform"):
        es.load_transform(bucket.url("none.npz"), storage_options=given)


def test_credentials_come_from_the_environment(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    es.create_run(bucket.url("a.zarr"), T, item_ids=IDS)
    run = pickle.loads(pickle.dumps(es.open_run(bucket.url("a.zarr"))))
    np.testing.assert_array_equal(run.items.vectors, T)
    assert "testing" not in str(pickle.dumps(run)), "each process has its own credentials"
    held = zarr.storage.ObjectStore(client(bucket.url("a.zarr")))
    np.testing.assert_array_equal(es.open_run(held).items.vectors, T)


def test_files_of_weights_ids_and_pairs_are_read_from_a_bucket(
    bucket: Bucket, tmp_path: Path
) -> None:
    store = client(Url(bucket.url(), bucket.options))
    np.save(tmp_path / "weights.npy", 1.0 + np.arange(len(T)))
    (tmp_path / "only.csv").write_text("id\n" + "\n".join(IDS[:40]))
    (tmp_path / "pairs.csv").write_text("a,b\n" + "\n".join(f"{i},{i}" for i in IDS[10:]))
    for path in tmp_path.iterdir():
        store.put(path.name, path.read_bytes())
    items, reference = es.table(T, ids=IDS), es.table(B, ids=IDS)
    for name, file in (("weights", "weights.npy"), ("only", "only.csv"), ("pairs", "pairs.csv")):
        local = es.fit(items, reference=reference, **{name: tmp_path / file})
        given = {name: bucket.url(file), "storage_options": bucket.options}
        np.testing.assert_array_equal(
            es.fit(items, reference=reference, **given).items, local.items
        )
        with pytest.raises(es.InputError, match="none"):
            es.fit(items, reference=reference, **{**given, name: bucket.url(f"none-{file}")})


def test_a_missing_bucket_is_one_line_and_exit_code_2(bucket: Bucket, embstab: Run) -> None:
    elsewhere = f"s3://no-{bucket.name}/run.zarr"
    for words in (("inspect", elsewhere), ("stabilize", elsewhere, bucket.url("out.zarr"))):
        printed = embstab(*words, code=2)["error"]
        assert "NoSuchBucket" in printed
        assert printed.count("\n") == 1
    assert not objects(bucket)


@pytest.mark.long
def test_worker_processes_write_the_same_bits(bucket: Bucket) -> None:
    """Each of them reaches the bucket by itself."""
    options = {"storage_options": bucket.options}
    es.create_run(bucket.url("a.zarr"), T, item_ids=IDS, chunk_rows=16, **options)
    es.stabilize(bucket.url("a.zarr"), bucket.url("here.zarr"), **options)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as other, dask.config.set(scheduler=other):
        es.stabilize(bucket.url("a.zarr"), bucket.url("there.zarr"), **options)
    here, there = objects(bucket, "here.zarr"), objects(bucket, "there.zarr")
    assert here.keys() == there.keys()
    assert not [name for name in here if "/c/" in name and here[name] != there[name]]
