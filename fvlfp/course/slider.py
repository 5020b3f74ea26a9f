"""A slider over a figure: live in Jupyter, and the picture of its first place everywhere else.

What this module does not do: it computes nothing; the figure for each place is drawn by the lesson.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure


def slider(draw: Callable[[Any], Figure], places: Sequence[Any], *, start: Any, label: str) -> None:
    """Show a slider over `places`, and below it the figure that `draw` makes of the chosen one.

    The figure is an ordinary output, so a page that was exported, or printed, holds the one of `start`.
    """
    import ipywidgets

    def figure(place: Any) -> Figure:
        made = draw(place)
        plt.close(made)  # otherwise the inline backend shows it a second time
        return made

    control = ipywidgets.SelectionSlider(
        options=list(places),
        value=start,
        description=label,
        continuous_update=False,
        style={"description_width": "initial"},  # a long label is not cut
    )
    display(control)
    shown = display(figure(start), display_id=True)
    control.observe(lambda change: shown.update(figure(change["new"])), names="value")
