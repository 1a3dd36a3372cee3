"""``python -m dask_embstab`` is the command line."""

from dask_embstab.cli.main import main

if __name__ == "__main__":
    main()
