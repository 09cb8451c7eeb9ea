"""How pictures look: colours, style, axes of time, and where they go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#5A5A5A",
)
_STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,  # a dollar in a title is a dollar
}


@contextmanager
def drawing() -> Iterator[None]:
    """A block that draws into files."""
    import matplotlib

    # A file, never a window: runs are started on machines without a screen.
    matplotlib.use("Agg")
    with matplotlib.rc_context(_STYLE):
        yield


def save(figure: Any, path: Path) -> Path:
    """Write a picture and forget its figure."""
    import matplotlib.pyplot as plt

    figure.savefig(path)
    plt.close(figure)
    return path


def dates_across(axis: Any) -> None:
    """Dates along the horizontal axis, in as few words as will do."""
    import matplotlib.dates as mdates

    locator = mdates.AutoDateLocator()
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
