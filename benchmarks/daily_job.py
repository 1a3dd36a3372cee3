"""The whole daily job, Parquet in and Parquet out, beside what else one would write it in.

    python benchmarks/daily_job.py --rows 3e5 --markdown docs/daily-job.md

A table of items (text ids in a random order, a tenth of them new) is rotated onto yesterday's
(orthogonal Procrustes of the rows that share an id) and written. Every contestant reads the same
two files, runs in a process of its own with two threads, in turn, and is timed from the first read
to the last byte written, imports and a first job of a few rows apart. CPU seconds are those of all
threads and processes that a contestant started, peaks (VmHWM) their sum. Those without products of
matrices hand rows to NumPy; *in SQL* is DuckDB alone, the rotation's svd apart. scikit-learn's
IncrementalPCA knows neither ids nor a reference: its line is what it takes to fit and transform one
table, beside which ours does more.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, launched, machine, parser, publish, table

_COMMON = """
import json, os, sys, time
import psutil
run, reference, out, threads, d, memory = sys.argv[1:]
threads, d = int(threads), int(d)
os.environ["POLARS_MAX_THREADS"] = str(threads)
import numpy as np
def cpu_seconds():
    ours = psutil.Process()
    each = [one.cpu_times() for one in (ours, *ours.children(recursive=True))]
    return sum(one.user + one.system + one.children_user + one.children_system for one in each)
def peak():
    ours, most = psutil.Process(), 0
    for one in (ours, *ours.children(recursive=True)):
        for line in open(f"/proc/{one.pid}/status"):
            most += int(line.split()[1]) * 1024 if line.startswith("VmHWM") else 0
    return most
def stacked(column):
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return column.flatten().to_numpy().reshape(-1, d)
def rotation(C):
    U, _, Vt = np.linalg.svd(C)
    return U @ Vt
def written(table_of_ids, rows, writer=None):
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), d)
    return pa.table({"id": table_of_ids, "vector": flat})
"""
_END = """
Q = job(run, reference, out)
seconds, cpu = time.perf_counter() - began, cpu_seconds() - start
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak(), "Q": np.asarray(Q).tolist()}))
"""
_BEGIN = """
job(*(path.replace(".parquet", "-few.parquet") for path in (run, reference)), out + "-few")
start, began = cpu_seconds(), time.perf_counter()
"""
_DUCKDB = """
import duckdb, pyarrow as pa, pyarrow.parquet as pq
database = duckdb.connect(config={"threads": threads})
database.execute(f"set memory_limit = '{memory}'; set preserve_insertion_order = false")
database.execute("set enable_progress_bar = false")  # it would be printed among our figures
"""
CONTESTANTS = {
    "dask_embstab": (
        """
import dask, dask_embstab as es, pyarrow.parquet
dask.config.set(num_workers=threads)
es.fit(np.eye(d), reference=np.eye(d))
""",
        """
made = es.stabilize({"items": run}, out + ".zarr", reference=reference, keep="geometry",
                    scratch=os.path.dirname(out), join_memory=memory)
es.export(out + ".zarr", out, format="parquet")
Q = made.transform.items
""",
    ),
    "DuckDB join, NumPy products": (
        _DUCKDB,
        """
joined = database.execute(
    f"select a.vector x, b.vector y from '{run}' a join '{reference}' b using (id)"
).to_arrow_reader(1 << 16)
C = np.zeros((d, d))
for batch in joined:
    C += stacked(batch.column(0)).astype(float).T @ stacked(batch.column(1)).astype(float)
Q = rotation(C)
writer = None
for batch in pq.ParquetFile(run).iter_batches(1 << 16):
    part = written(batch.column("id"), stacked(batch.column("vector")) @ Q.astype(np.float32))
    writer = writer or pq.ParquetWriter(out, part.schema)
    writer.write_table(part)
writer.close()
""",
    ),
    "DuckDB in SQL": (
        _DUCKDB,
        """
cells = ", ".join(f"sum(x[{i + 1}]::double * y[{j + 1}])" for i in range(d) for j in range(d))
C = np.array(database.execute(
    f"select {cells} from (select a.vector x, b.vector y from '{run}' a"
    f" join '{reference}' b using (id))"
).fetchone()).reshape(d, d)
Q = rotation(C)
columns = ", ".join(
    f"list_dot_product(vector::float[], {q.tolist()}::float[])::float" for q in Q.T.astype("f4")
)
database.execute(
    f"copy (select id, [{columns}] as vector from '{run}') to '{out}' (format parquet)"
)
""",
    ),
    "polars join, NumPy products": (
        "import polars as pl\n",
        """
x, y = pl.read_parquet(run), pl.read_parquet(reference)
joined = x.join(y, on="id", how="inner")
a, b = (joined[name].explode().to_numpy().reshape(-1, d) for name in ("vector", "vector_right"))
Q = rotation(a.astype(float).T @ b.astype(float))
rows = x["vector"].explode().to_numpy().reshape(-1, d) @ Q.astype(np.float32)
vectors = pl.Series(rows, dtype=pl.Array(pl.Float32, d))
pl.DataFrame({"id": x["id"], "vector": vectors}).write_parquet(out, compression="uncompressed")
""",
    ),
    "Spark join, NumPy in mapInArrow": (
        """
import pyarrow as pa
from pyspark.sql import SparkSession
os.environ["PYSPARK_PYTHON"] = sys.executable
builder = SparkSession.builder.master(f"local[{threads}]").config("spark.ui.enabled", "false")
for key, value in {
    "spark.driver.memory": "6g", "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "8",
    "spark.driver.extraJavaOptions": "-Djava.net.preferIPv4Stack=true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
}.items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("OFF")
""",
        """
x, y = spark.read.parquet(run), spark.read.parquet(reference)
def partial(batches, d=d):
    import numpy as np, pyarrow as pa
    C = np.zeros((d, d))
    for batch in batches:
        a, b = (column.flatten().to_numpy().reshape(-1, d) for column in batch.columns)
        C += a.astype(float).T @ b.astype(float)
    yield pa.RecordBatch.from_pydict({"C": [C.tobytes()]})
pairs = x.join(y.withColumnRenamed("vector", "other"), "id").select("vector", "other")
parts = pairs.mapInArrow(partial, "C binary").collect()
Q = rotation(sum(np.frombuffer(part.C).reshape(d, d) for part in parts))
def rotated(batches, d=d, M=Q.astype(np.float32)):
    import numpy as np, pyarrow as pa
    for batch in batches:
        rows = batch.column(1).flatten().to_numpy().reshape(-1, d) @ M
        offsets = pa.array(np.arange(0, rows.size + 1, d, dtype="i4"))
        lists = pa.ListArray.from_arrays(offsets, pa.array(rows.ravel()))
        yield pa.RecordBatch.from_arrays([batch.column(0), lists], ["id", "vector"])
x.select("id", "vector").mapInArrow(rotated, "id string, vector array<float>").write.option(
    "compression", "none"
).parquet(out)
""",
    ),
    "IncrementalPCA, one table": (
        """
import pyarrow as pa, pyarrow.parquet as pq
from sklearn.decomposition import IncrementalPCA
""",
        """
pca = IncrementalPCA()
for batch in pq.ParquetFile(run).iter_batches(1 << 16, columns=["vector"]):
    pca.partial_fit(stacked(batch.column(0)))
writer = None
for batch in pq.ParquetFile(run).iter_batches(1 << 16):
    rows = pca.transform(stacked(batch.column("vector"))).astype(np.float32)
    part = written(batch.column("id"), rows)
    writer = writer or pq.ParquetWriter(out, part.schema)
    writer.write_table(part)
writer.close()
Q = np.full((d, d), np.nan)
""",
    ),
}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the table, return every figure."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "command": command_line("daily_job", argv),
        "machine": machine(options.threads),
        "rows": [],
    }
    with tempfile.TemporaryDirectory(prefix="embstab-", dir=options.dir) as folder:
        place = Path(folder)
        write(place, int(options.rows), options.d)
        taken: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
        for repeat in range(options.repeats):
            for name in taken:
                taken[name].append(run(name, place, repeat, options))
                shown = {key: value for key, value in taken[name][-1].items() if key != "Q"}
                print(name, shown, flush=True)
    ours = np.array(taken["dask_embstab"][0]["Q"])
    for name, each in taken.items():
        best = {key: min(one[key] for one in each) for key in ("seconds", "cpu", "peak")}
        off = float(np.abs(np.array(each[0]["Q"]) - ours).max())
        results["rows"].append({"contestant": name, **best, "off": off})
    return publish(results, markdown(results), options)


def write(place: Path, n: int, d: int) -> None:
    """Yesterday's table and today's: other axes, another order, a tenth of new ids."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, d)).astype(np.float32)
    axes, _ = np.linalg.qr(rng.standard_normal((d, d)))
    today = (rows + 0.1 * rng.standard_normal((n, d)).astype(np.float32)) @ axes.astype(np.float32)
    numbers = rng.permutation(2 * n)[:n]
    others = np.where(rng.random(n) < 0.1, numbers + 2 * n, numbers)
    order, shared = rng.permutation(n), np.intersect1d(numbers, others)[: 10 * d]
    for name, ids, vectors in (
        ("reference", numbers, rows),
        ("run", others[order], today[order]),
    ):
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), d)
        texts = pa.array([f"item-{number:x}" for number in ids.tolist()])
        table_of = pa.table({"id": texts, "vector": column})
        parquet.write_table(table_of, place / f"{name}.parquet", compression="none")
        few = table_of.filter(np.isin(ids, shared))
        parquet.write_table(few, place / f"{name}-few.parquet", compression="none")


def run(name: str, place: Path, repeat: int, options: argparse.Namespace) -> dict[str, Any]:
    """One contestant in a process of its own."""
    setup, work = CONTESTANTS[name]
    job = "def job(run, reference, out):\n" + textwrap.indent(work + "return Q\n", "    ")
    program = _COMMON + setup + job + _BEGIN + _END
    out = place / f"out-{list(CONTESTANTS).index(name)}-{repeat}"
    arguments = [place / "run.parquet", place / "reference.parquet", out]
    output, _ = launched(
        *(sys.executable, "-c", program, *arguments, options.threads, options.d, options.memory),
        environment={"OPENBLAS_NUM_THREADS": "1"},
    )
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures


def markdown(results: dict[str, Any]) -> str:
    """The table for the documents."""
    ours = results["rows"][0]
    header = ("contestant", "seconds", "CPU s", "of our CPU s", "peak MB", "off by")
    rows = [
        (
            row["contestant"],
            f"{row['seconds']:.2f}",
            f"{row['cpu']:.2f}",
            f"{row['cpu'] / ours['cpu']:.2f}",
            f"{row['peak'] / 1e6:.0f}",
            "-" if np.isnan(row["off"]) else f"{row['off']:.0e}",
        )
        for row in results["rows"]
    ]
    lines = [
        f"Made by `{results['command']}` on {results['machine']}; the least of the repeats.",
        "Parquet in, text ids in a random order and a tenth of them new, Parquet out; *off by*:",
        "the largest difference of the rotation from ours.",
        "",
    ]
    return "\n".join([*lines, *table(header, rows), ""])


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--rows", type=float, default=3e5)
    options.add_argument("--d", type=int, default=64)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--memory", default="1GiB", help="of the join, and DuckDB's limit")
    return options


if __name__ == "__main__":
    main()
