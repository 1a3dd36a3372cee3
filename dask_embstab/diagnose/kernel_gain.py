"""Do AVX-512 kernels make the products of a fit and of an apply faster here than what OpenBLAS runs
by itself?

It reads its choice when it is loaded, so each kernel is asked in a process of its own, in turn. The
answer is kept where commands look for it before they load NumPy (`kernels.better_kernels`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from dask_embstab.errors import EmbstabError
from dask_embstab.files.atomic import write_whole
from dask_embstab.kernels import (
    AVX2,
    AVX512_KERNELS,
    CORETYPE,
    LEAST_GAIN,
    processor,
    record,
    remembered,
    stamp,
)
from dask_embstab.passes.engine.blas import own_blas

_ROUNDS = 3
_PROGRAM = """
import json, sys, time
import numpy as np
import scipy.linalg
from dask_embstab.passes.engine.blas import one_thread, own_blas

seconds = float(sys.argv[1])
x, M = np.ones((4096, 64)), np.ones((64, 64), np.float32)
y = x.astype(np.float32)

def rate(product):
    product()
    best = 0.0
    for _ in range(3):
        n, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds or not n:
            product()
            n += 1
        best = max(best, n / passed)
    return best

with one_thread():
    rates = [rate(lambda: x.T @ x), rate(lambda: y @ M)]
print(json.dumps([sorted({b.get("architecture") or "" for b in own_blas()}), rates]))
"""


@dataclass(frozen=True, slots=True)
class KernelGain:
    """The kernels that run by ``default``, and the gain of AVX-512 kernels on the product that
    gains least (None where they do not run).
    """

    default: str
    gain: float | None

    @property
    def pays(self) -> bool:
        """Whether commands should choose AVX-512 kernels."""
        return self.gain is not None and self.gain >= LEAST_GAIN


def kernel_gain(seconds: float = 0.05) -> KernelGain | None:
    """Measure both kernels, ``seconds`` a try, and remember the answer; None where there is nothing
    to gain: no AVX-512 processor, or another default than AVX2 kernels.
    """
    loaded = [info for info in own_blas() if info["internal_api"] == "openblas"]
    running = {info.get("architecture") for info in loaded}
    if processor() is None or not loaded or (CORETYPE not in os.environ and not running & AVX2):
        return None

    kernels, _ = _asked(None, 0.0) or ([], [])
    default = next((name for name in kernels if name in AVX2), None)
    if default is None:
        return None
    gains: list[float | None] = []
    for _ in range(_ROUNDS):
        ours, theirs = _asked(None, seconds), _asked(AVX512_KERNELS, seconds)
        if ours is None or theirs is None or AVX512_KERNELS not in theirs[0]:
            gains = [None]
            break
        gains.append(min(b / a for a, b in zip(ours[1], theirs[1], strict=True)))
    median_gain = KernelGain(default, sorted(gains, key=lambda gain: gain or 0.0)[len(gains) // 2])
    _remember([info["filepath"] for info in loaded], median_gain)
    return median_gain


def _asked(coretype: str | None, seconds: float) -> tuple[list[str], list[float]] | None:
    """Kernels of a new process, and the rates of its products; None where it does not end well."""
    environment = {key: value for key, value in os.environ.items() if key != CORETYPE}
    if coretype is not None:
        environment[CORETYPE] = coretype
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if ended.returncode:
        return None
    kernels, rates = json.loads(ended.stdout)
    return kernels, rates


def _remember(libraries: list[str], gain: KernelGain) -> None:
    """Keep it for this environment; a home that cannot be written in keeps nothing."""
    known = remembered() | {
        sys.prefix: {
            "processor": processor(),
            "libraries": {path: stamp(path) for path in libraries},
            "default": gain.default,
            "gain": gain.gain,
        }
    }
    try:
        record().parent.mkdir(parents=True, exist_ok=True)
        write_whole(record(), lambda file: file.write(json.dumps(known, indent=1).encode()))
    except (OSError, RuntimeError, EmbstabError):
        return
