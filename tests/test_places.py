"""Names of places: a path, a URL of any scheme, with options and without."""

from __future__ import annotations

import obstore
from obstore.store import S3Store
from s3_server import Bucket


def test_a_bucket_is_new_and_holds_what_is_put_into_it(bucket: Bucket) -> None:
    store = S3Store(bucket.name, client_options={"allow_http": True}, **bucket.options)
    assert list(obstore.list(store)) == []
    obstore.put(store, "a/b", b"rows")
    assert obstore.get(store, "a/b").bytes().to_bytes() == b"rows"
