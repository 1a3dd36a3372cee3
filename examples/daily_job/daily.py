"""One day of a series: python daily.py SERIES DAY ITEMS.parquet USERS.parquet OUT

Ends with 0 (published, or published before), or 3 (held: the alarm says why; the head stays).
"""

import sys
from pathlib import Path

import dask_embstab as es


def daily(place: str, day: str, items: str, users: str, out: str) -> int:
    series = es.Series(place) if Path(place).exists() else es.Series.init(place)
    run = es.ingest(items, Path(out, f"{day}.zarr"), id="id", users=users, overwrite=True)
    try:
        version = series.add(run, name=day).version
    except es.HoldError as held:
        print(f"ALARM {day} is held, the head stays: {held}", file=sys.stderr)
        return 3
    finally:
        series.report().save(Path(out, "report.html"))
    new = es.export(series, Path(out, f"{day}-changed"), version=version.version,
                    ids_changed_since=version.parent, overwrite=True)  # fmt: skip
    print(f"{day} is version {version.version}; {new['items']['rows']} rows of items to load")
    return 0


if __name__ == "__main__":
    sys.exit(daily(*sys.argv[1:]))
