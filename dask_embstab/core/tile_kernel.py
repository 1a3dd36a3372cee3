"""The kernel of `core/tiles.py`: LLVM's intermediate code, compiled for this processor by llvmlite
(the extra ``fast``) in some 50 ms per process. Calls of it let other threads run.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

BLOCK = 64
"""Rows whose products are added in registers; with 64 components they fill the first cache."""
HEIGHT = 8
"""Rows of a tile of the result."""
MOST_VECTORS = 3
"""Vectors of a row of a tile: 24 hold a tile, 3 a row of y, one a component of x, of 32."""
OLDEST = (0, 45)
"""Of llvmlite: those before it know no pointers without a type."""
FIELDS = 4
"""Numbers that a tile is told by: its first components of x and y, its kind, its place."""


class Ahead(IntEnum):
    """What a tile fetches of the next rows."""

    NOTHING, X, BOTH = range(3)


KINDS = [(vectors, ahead) for vectors in range(1, MOST_VECTORS + 1) for ahead in Ahead]


def kind_of(vectors: int, ahead: Ahead) -> int:
    """The number of a tile's function."""
    return len(Ahead) * (vectors - 1) + ahead


@functools.cache
def is_installed() -> bool:
    """Whether this processor is of a kind that the kernel is for, and there is an llvmlite that
    reads its code.
    """
    try:
        of_it = re.match(r"(\d+)\.(\d+)", version("llvmlite") or "")  # None: it is damaged
    except PackageNotFoundError:
        return False
    is_new = of_it is not None and (int(of_it[1]), int(of_it[2])) >= OLDEST
    return is_new and platform.machine() in {"x86_64", "AMD64"}


@functools.cache
def vector_width() -> int:
    """Numbers in a vector of this processor: 8 with AVX-512, 4 with AVX2; 0 where the kernel does
    not run.
    """
    if not is_installed():
        return 0
    try:
        from llvmlite import binding
    except ImportError:  # it is damaged, or somebody forbids it
        return 0

    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 8
    return 4 if features.get("avx2") and features.get("fma") else 0


@dataclass(frozen=True, slots=True)
class Compiled:
    """The functions of `source`, which stay in memory as long as the process."""

    product: Callable[..., None]
    product_of_single: Callable[..., None]


def compiled(width: int) -> Compiled:
    """The kernel for vectors of ``width`` numbers; threads that begin at once compile it once."""
    if width not in _kernels:
        with _compiling:
            if width not in _kernels:
                _kernels[width] = _compile(width)
    return _kernels[width]


_kernels: dict[int, Compiled] = {}
_compiling = threading.Lock()


def _compile(width: int) -> Compiled:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(source(width))
    module.verify()
    # LLVM avoids the widest vectors of some processors, which slowed down the rest of a program.
    features = binding.get_host_cpu_features().flatten() + ",-prefer-256-bit"
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3
    )
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    product, product_of_single = (_function(engine, name) for name in _PARAMETERS)
    engine.detach()  # else its end takes the code away from threads that still run it
    return Compiled(product, product_of_single)


_PARAMETERS = {"product": "pipiipip", "product_of_single": "piipiiipipp"}
"""Pointers and integers that the functions of `source` are called with."""


def _function(engine: Any, name: str) -> Callable[..., None]:
    kinds = {"p": ctypes.c_void_p, "i": ctypes.c_int64}
    prototype = ctypes.CFUNCTYPE(None, *(kinds[kind] for kind in _PARAMETERS[name]))
    return prototype(engine.get_function_address(name))


def source(width: int) -> str:
    """LLVM's intermediate code of two functions that add the products of every `BLOCK` rows to the
    output, tile after tile; rows lie so many numbers apart as their ``_row`` says.

    ``product(x, x_row, y, y_row, n, tiles, n_tiles, output)`` reads float64 where it stands.
    ``product_of_single(x, x_row, d, y, y_row, D, n, tiles, n_tiles, output, memory)`` reads [x y]
    in float32 and puts a block of it, in float64, into the memory.
    """
    vector = f"<{width} x double>"
    cases = "".join(f" i64 {kind}, label %kind{kind}" for kind in range(len(KINDS)))
    return f"""\
declare {vector} @llvm.fma.v{width}f64({vector}, {vector}, {vector})
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare i64 @llvm.smin.i64(i64, i64)
{"".join(_DRIVER.format(block=BLOCK, **one) for one in (_DOUBLE, _SINGLE))}
define internal void @tiles(ptr %x, i64 %x_row, ptr %y, i64 %y_row, i64 %rows,
                            ptr %tiles, i64 %n_tiles, ptr %output) {{
entry:
  br label %tile
tile:
  %t = phi i64 [0, %entry], [%t_next, %tile_end]
  %record = mul i64 %t, {FIELDS}
{_lines(_FIELD, range(FIELDS))}
  %a = getelementptr double, ptr %x, i64 %value0
  %b = getelementptr double, ptr %y, i64 %value1
  %c = getelementptr double, ptr %output, i64 %value3
  switch i64 %value2, label %tile_end [{cases} ]
{_lines(_CALL, range(len(KINDS)))}
tile_end:
  %t_next = add i64 %t, 1
  %is_tile = icmp slt i64 %t_next, %n_tiles
  br i1 %is_tile, label %tile, label %end
end:
  ret void
}}
{_CONVERT.format(width=width)}
{"".join(_tile(width, *kind) for kind in KINDS)}"""


_DRIVER = """
define void @{name}({parameters}) {{
entry:
  %is_any = icmp sgt i64 %n, 0
  br i1 %is_any, label %block, label %end
block:
  %start = phi i64 [0, %entry], [%stop, %block]
  %left = sub i64 %n, %start
  %rows = call i64 @llvm.smin.i64(i64 %left, i64 {block})
  %x_start = mul i64 %start, %x_row
  %y_start = mul i64 %start, %y_row
  %a = getelementptr {number}, ptr %x, i64 %x_start
  %b = getelementptr {number}, ptr %y, i64 %y_start
  {steps}
  %stop = add i64 %start, {block}
  %is_block = icmp slt i64 %stop, %n
  br i1 %is_block, label %block, label %end
end:
  ret void
}}"""
_DOUBLE = {
    "name": "product",
    "number": "double",
    "parameters": """\
ptr %x, i64 %x_row, ptr %y, i64 %y_row, i64 %n, ptr %tiles, i64 %n_tiles, ptr %output""",
    "steps": """\
call void @tiles(ptr %a, i64 %x_row, ptr %b, i64 %y_row, i64 %rows,
                   ptr %tiles, i64 %n_tiles, ptr %output)""",
}
_SINGLE = {
    "name": "product_of_single",
    "number": "float",
    "parameters": """\
ptr %x, i64 %x_row, i64 %d, ptr %y, i64 %y_row, i64 %D, i64 %n,
                               ptr %tiles, i64 %n_tiles, ptr %output, ptr %memory""",
    "steps": """\
%row = add i64 %d, %D
  %y_memory = getelementptr double, ptr %memory, i64 %d
  call void @convert(ptr %a, i64 %x_row, i64 %d, i64 %rows, ptr %memory, i64 %row)
  call void @convert(ptr %b, i64 %y_row, i64 %D, i64 %rows, ptr %y_memory, i64 %row)
  call void @tiles(ptr %memory, i64 %row, ptr %memory, i64 %row, i64 %rows,
                   ptr %tiles, i64 %n_tiles, ptr %output)""",
}
_CONVERT = """
define internal void @convert(ptr %from, i64 %from_row, i64 %d, i64 %rows, ptr %to, i64 %to_row) {{
entry:
  %last = sub i64 %d, {width}
  %ahead = mul i64 %rows, %from_row
  %is_any = icmp sgt i64 %d, 0
  br i1 %is_any, label %row, label %end
row:
  %k = phi i64 [0, %entry], [%k_next, %row_end]
  %from_start = mul i64 %k, %from_row
  %to_start = mul i64 %k, %to_row
  br label %vector
vector:
  %c = phi i64 [0, %row], [%c_next, %vector]
  %first = call i64 @llvm.smin.i64(i64 %c, i64 %last)
  %from_number = add i64 %from_start, %first
  %to_number = add i64 %to_start, %first
  %from_at = getelementptr float, ptr %from, i64 %from_number
  %to_at = getelementptr double, ptr %to, i64 %to_number
  %next_block = getelementptr float, ptr %from_at, i64 %ahead
  call void @llvm.prefetch.p0(ptr %next_block, i32 0, i32 3, i32 1)
  %single = load <{width} x float>, ptr %from_at, align 4
  %double = fpext <{width} x float> %single to <{width} x double>
  store <{width} x double> %double, ptr %to_at, align 8
  %c_next = add i64 %c, {width}
  %is_vector = icmp slt i64 %c_next, %d
  br i1 %is_vector, label %vector, label %row_end
row_end:
  %k_next = add i64 %k, 1
  %is_row = icmp slt i64 %k_next, %rows
  br i1 %is_row, label %row, label %end
end:
  ret void
}}"""
_FIELD = """\
  %number{0} = add i64 %record, {0}
  %field{0} = getelementptr i64, ptr %tiles, i64 %number{0}
  %value{0} = load i64, ptr %field{0}"""
_CALL = """\
kind{0}:
  call void @tile{0}(ptr %a, i64 %x_row, ptr %b, i64 %y_row, i64 %rows, ptr %c)
  br label %tile_end"""


def _lines(template: str, numbers: range) -> str:
    return "\n".join(template.format(number) for number in numbers)


def _tile(width: int, vectors: int, ahead: Ahead) -> str:
    """The function that adds x'y, of `HEIGHT` components of x and some vectors of y, to a tile of
    the result.
    """
    V = f"<{width} x double>"
    tile = [(i, v) for i in range(HEIGHT) for v in range(vectors)]
    fetched = {
        "x": ahead != Ahead.NOTHING,
        **{f"at{v}": ahead == Ahead.BOTH for v in range(vectors)},
    }
    parts = {
        "sums": [
            f"%s{i}_{v} = phi {V} [zeroinitializer, %entry], [%t{i}_{v}, %row]" for i, v in tile
        ],
        "loads": [_LOAD.format(v=v, at=v * width, V=V) for v in range(vectors)],
        "fetches": [
            _FETCH.format(at=at, side=at[0]) for at, is_fetched in fetched.items() if is_fetched
        ],
        "spreads": [_SPREAD.format(i=i, V=V, width=width) for i in range(HEIGHT)],
        "products": [
            f"%t{i}_{v} = call {V} @llvm.fma.v{width}f64({V} %all{i}, {V} %y{v}, {V} %s{i}_{v})"
            for i, v in tile
        ],
        "stores": [
            _STORE.format(name=f"{i}_{v}", at=place * width, V=V)
            for place, (i, v) in enumerate(tile)
        ],
    }
    bodies = {name: "\n  ".join(lines) for name, lines in parts.items()}
    return _TILE.format(kind=kind_of(vectors, ahead), block=BLOCK, **bodies)


_TILE = """
define internal void @tile{kind}(ptr %a, i64 %x_row, ptr %b, i64 %y_row, i64 %rows,
                                 ptr noalias %c) noinline {{
entry:
  %x_ahead = mul i64 %x_row, {block}
  %a_ahead = mul i64 %y_row, {block}
  br label %row
row:
  %k = phi i64 [0, %entry], [%k_next, %row]
  %x = phi ptr [%a, %entry], [%x_next, %row]
  %y = phi ptr [%b, %entry], [%y_next, %row]
  {sums}
  {loads}
  {fetches}
  {spreads}
  {products}
  %k_next = add i64 %k, 1
  %x_next = getelementptr double, ptr %x, i64 %x_row
  %y_next = getelementptr double, ptr %y, i64 %y_row
  %is_row = icmp slt i64 %k_next, %rows
  br i1 %is_row, label %row, label %end
end:
  {stores}
  ret void
}}
"""
_LOAD = """%at{v} = getelementptr double, ptr %y, i64 {at}
  %y{v} = load {V}, ptr %at{v}, align 8"""
_FETCH = """%{at}_next_block = getelementptr double, ptr %{at}, i64 %{side}_ahead
  call void @llvm.prefetch.p0(ptr %{at}_next_block, i32 0, i32 3, i32 1)"""
_SPREAD = """%from{i} = getelementptr double, ptr %x, i64 {i}
  %x{i} = load double, ptr %from{i}, align 8
  %one{i} = insertelement {V} undef, double %x{i}, i32 0
  %all{i} = shufflevector {V} %one{i}, {V} undef, <{width} x i32> zeroinitializer"""
_STORE = """%c{name} = getelementptr double, ptr %c, i64 {at}
  %before{name} = load {V}, ptr %c{name}, align 8
  %after{name} = fadd {V} %before{name}, %t{name}
  store {V} %after{name}, ptr %c{name}, align 8"""
