"""The daily job as an Airflow DAG: a held day fails the task, and is not tried again."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

from airflow.exceptions import AirflowFailException
from airflow.sdk import dag, task

HOME = Path("/srv/embeddings")


@dag(schedule="15 4 * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1)
def daily_embeddings() -> None:
    @task(retries=2)
    def stabilize(ds: str = "") -> None:
        export = HOME / "export" / ds
        command = [sys.executable, str(HOME / "daily.py"), str(HOME / "series"), ds,
                   str(export / "items"), str(export / "users"), str(HOME / "out")]  # fmt: skip
        code = subprocess.run(command, check=False).returncode
        if code == 3:
            raise AirflowFailException(f"{ds} is held; see {HOME / 'out' / 'report.html'}")
        if code:
            raise RuntimeError(f"daily.py ended with {code}")

    stabilize()


daily_embeddings()
