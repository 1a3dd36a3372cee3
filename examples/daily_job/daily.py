"""One day of a series: python daily.py SERIES DAY ITEMS USERS OUT (both tables Parquet)

Ends with 0 (published, now or before) or 3 (held: the alarm says why, and the head stays).
"""

import sys
from pathlib import Path

import dask_embstab as es


def daily(place: str, day: str, items: str, users: str, out: str) -> int:
    series = es.Series(place) if Path(place).exists() else es.Series.init(place)
    run = es.ingest(items, Path(out, f"{day}.zarr"), id="id", users=users, overwrite=True)
    try:
        added = series.add(run, name=day).version
    except es.HoldError as held:
        print(f"ALARM {held}", file=sys.stderr)
        return 3
    finally:
        series.report().save(Path(out, "report.html"))
    since = added.parent
    es.export(series, Path(out, f"{day}-changed"), version=added.version, overwrite=True,
              ids_changed_since=since, where_moved_more_than=0.001 if since else None)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(daily(*sys.argv[1:]))
