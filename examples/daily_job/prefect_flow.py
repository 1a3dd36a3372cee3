"""The daily job as a Prefect flow: a held day is a failed state; other failures are tried again."""

from datetime import date

from daily import daily
from prefect import flow, task
from prefect.states import Failed


@task(retries=2, retry_delay_seconds=600)
def stabilize(day: str) -> int:
    return daily("series", day, f"export/{day}/items", f"export/{day}/users", "out")


@flow(name="daily-embeddings")
def daily_embeddings(day: str | None = None) -> object:
    day = day or date.today().isoformat()
    if stabilize(day) == 3:
        return Failed(message=f"{day} is held; see out/report.html")
    return day


if __name__ == "__main__":
    daily_embeddings.serve(cron="15 4 * * *", limit=1)
