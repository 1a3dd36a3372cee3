"""Rows of figures as aligned text for a console."""

from __future__ import annotations

from collections.abc import Sequence

from dask_embstab.repairs import printable

Cell = str | int | float | None


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[Cell]], *, digits: int | None = 3
) -> str:
    """Lines of equal columns under a ruled header: text to the left, numbers to the right.

    Parameters
    ----------
    header
        Name of each column; a column is set to the right where its first row holds a number.
    rows
        Cells, as many in each row as in the header; None is shown as a dash.
    digits
        Decimals of the floats; None: four significant digits, whatever their size.

    Raises
    ------
    ValueError
        If a row is not as long as the header.

    Examples
    --------
    >>> rows = [["Monday", 12, 0.98765], ["Tuesday", 7, None]]
    >>> print(text_table(["day", "rows", "cosine"], rows))
    day      rows  cosine
    -------  ----  ------
    Monday     12   0.988
    Tuesday     7       -
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"every row must have {len(header)} cells to fit the header; one has {len(row)}"
            )

    shown = [list(header), *([cell_text(cell, digits=digits) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    shown.insert(1, ["-" * width for width in widths])
    right = [is_number(cell) for cell in rows[0]] if rows else [False] * len(header)
    return "\n".join(_line(cells, widths, right) for cells in shown)


def cell_text(cell: Cell, *, digits: int | None) -> str:
    """One cell as a person reads it; what rounds to zero has no sign."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4g}" if digits is None else f"{cell:z.{digits}f}"
    return printable(str(cell))


def is_number(cell: Cell) -> bool:
    """Whether a cell belongs on the right."""
    return isinstance(cell, int | float)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()
