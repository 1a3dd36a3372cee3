"""Whatever a call sets for the whole process (BLAS threads, warning filters) is as before once the
last call has ended.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl
from oracle import world

import dask_embstab as es
from dask_embstab.files.warning_filters import left_out
from dask_embstab.passes.engine.blas import one_thread, own_blas


def blas_threads() -> list[int]:
    return [info["num_threads"] for info in own_blas()]


def overlapping(first: Any, second: Any, see: Callable[[], Any]) -> list[Any]:
    """What is seen with one block entered, with both, with the second alone, and with none."""
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with second:
            entered.set()
            left.wait()

    seen, thread = [], threading.Thread(target=other)
    with first:
        seen.append(see())
        thread.start()
        entered.wait()
        seen.append(see())
    seen.append(see())
    left.set()
    thread.join()
    return [*seen, see()]


def test_blas_threads_come_back_with_the_last_of_overlapping_blocks() -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        assert set(before) == {2}
        *during, after = overlapping(one_thread(), one_thread(), blas_threads)
        assert all(set(threads) == {1} for threads in during)
        assert after == before


def warned() -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("Consolidated metadata is young", UserWarning, stacklevel=1)
    return bool(caught)


@pytest.mark.filterwarnings("always")
def test_warning_filters_come_back_with_the_last_of_overlapping_blocks() -> None:
    before = list(warnings.filters)
    quiet = left_out("Consolidated metadata"), left_out("Consolidated metadata")
    assert overlapping(*quiet, warned) == [False, False, False, True]
    assert list(warnings.filters) == before


@pytest.mark.filterwarnings("always")
def test_a_filter_that_the_caller_set_stays() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        with left_out("Consolidated metadata"), warnings.catch_warnings():
            warnings.simplefilter("always")
            assert warned(), "the innermost block decides"
        assert not warned()


def test_fits_from_several_threads_leave_the_process_as_it_was(tmp_path: Path) -> None:
    runs = [es.create_run(tmp_path / f"{i}.zarr", *world(i), chunk_rows=16) for i in range(4)]
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads(), list(warnings.filters)
        for turn in range(3):
            with ThreadPoolExecutor(4) as pool, contextlib.suppress(es.EmbstabWarning):
                list(
                    pool.map(
                        lambda i: es.stabilize(runs[i], tmp_path / f"out-{turn}-{i}"),  # noqa: B023
                        range(4),
                    )
                )
        assert (blas_threads(), list(warnings.filters)) == before


def test_blas_of_another_package_has_no_say_in_the_kernel_family() -> None:
    code = (
        "from dask_embstab.passes.engine.cluster import loaded_family; before = loaded_family();"
        " import faiss; assert loaded_family() == before, loaded_family()"
    )
    pytest.importorskip("faiss", reason="a package that brings an OpenBLAS of its own")
    subprocess.run([sys.executable, "-c", code], check=True)
