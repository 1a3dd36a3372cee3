"""What is done to a series from time to time: another space, ids that must go, room on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dask_embstab.errors import (
    verb,
)
from dask_embstab.files.remote import StorageOptions, bound
from dask_embstab.options import SETTINGS
from dask_embstab.series.admin import gc
from dask_embstab.series.admin.gc import Collected
from dask_embstab.series.publish.attempts import Attempt
from dask_embstab.series.publish.publish import Added
from dask_embstab.series.reader import SeriesReader
from dask_embstab.tables.run import RunLike, open_run

if TYPE_CHECKING:
    from dask_embstab.series.admin.forget import Forgotten


class SeriesUpkeep(SeriesReader):
    """The verbs of whoever looks after a series."""

    @verb()
    def acknowledge(self, run: str, *, reason: str = "") -> Attempt:
        """Show a delivery that was held, failed or interrupted no more in `status` and `metrics`; a
        later one is shown.

        What is held can still be accepted. ``reason`` is recorded. Raises `InputError` where there
        is no such delivery.

        Examples
        --------
        >>> try:
        ...     series.add(monday, name="monday-again")  # the very same rows once more
        ... except es.HoldError:
        ...     print(series.acknowledge("monday-again").run)
        monday-again
        """
        from dask_embstab.series.admin.status import acknowledge

        return acknowledge(self.store, self.log(), run, reason)

    @verb(through="Series.change", settings=SETTINGS)
    def rebase(
        self,
        onto: int | RunLike | None,
        *,
        rewrite: bool = False,
        storage_options: StorageOptions | None = None,
    ) -> Added:
        """Move all that is stored onto another reference, by a new version that holds the head's
        run; scores stay.

        ``onto``: the run of a version, in the space in which it was published, or any other run;
        every stored run is rotated onto the rows that it shares with it. None goes back to how
        everything was read before the last rebase. Lazily one small matrix per run is recorded and
        readers multiply by it; with ``rewrite`` all runs are written anew in the new space (one
        read and one write each), and the old files stay until `gc`.

        Either way vectors that were read before are of another space: indexes that hold them must
        be built anew. ``storage_options`` reach ``onto`` at a URL.

        Examples
        --------
        >>> series.rebase(1).version.kind
        'rebase'
        """
        (onto,) = bound(storage_options, onto)
        from dask_embstab.series.admin.rebase import rebase

        return rebase(
            self.store,
            self._initial,
            open_run(onto) if not isinstance(onto, int | None) else onto,
            rewrite=rewrite,
        )

    @verb()
    def forget(
        self, ids: Any, *, table: Literal["items", "users"] | None = None, rewrite: bool = False
    ) -> Forgotten:
        """Remove ids for good (a duty to delete), by a new version that holds the head's run.

        Every running reference that is kept is written anew without their rows; with ``rewrite``
        every run that holds one of them too (one read and one write each; the other rows are copied
        as they are). ``table`` says whose ids they are; it may be left out where only one of the
        tables has any of them. Nothing is published where nothing holds them.

        The ids of all runs are read once. In memory are the given ids and the numbers of their
        rows. The old files stay until `gc`. Raises `InputError` where both tables have some of the
        ids, a table's rows have none, or no row would be left.

        Examples
        --------
        >>> forgotten = series.forget(["i7"], table="items", rewrite=True)
        >>> forgotten.published, forgotten.unknown
        (True, ())
        """
        from dask_embstab.series.admin.forget import forget

        return forget(self.store, self._initial, ids, table=table, rewrite=rewrite)

    @verb()
    def gc(self, *, pin_age: float = gc.DAY, grace: float = gc.HOUR) -> Collected:
        """Remove what no version needs, was last changed more than ``grace`` seconds ago, and no
        reader has pinned in the last ``pin_age`` seconds.

        The grace (default: an hour, by the file system's clock) keeps what is being written on a
        machine that locks do not reach, and candidates that a gate holds, which `add` with
        ``accept`` publishes as they are. ``grace=0`` removes them at once. What stays is in
        ``left``, with the reason.

        Examples
        --------
        >>> series.gc().removed
        []
        """
        return gc.collect(self.store, pin_age=pin_age, grace=grace)
