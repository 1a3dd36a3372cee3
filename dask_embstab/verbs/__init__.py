"""The verbs by topic; `dask_embstab.api` has them all."""
