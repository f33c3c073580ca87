"""A window for live pictures."""

from __future__ import annotations

import numpy as np

from fusionblocks.image import array_to_image


class Window:
    """A window that shows the last picture; closing it stops the run.

    Raises:
        ValueError: If there is no display, or Python has no tkinter.

    No example: it needs a display.
    """

    def __init__(self) -> None:
        try:
            import tkinter

            self._root = tkinter.Tk()
        except Exception as error:  # tkinter has errors of its own, and may not be installed
            raise ValueError(f"--show needs a display: {error}") from error
        self._root.title("fusionblocks")
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._open = True
        self._root.protocol("WM_DELETE_WINDOW", self._close)

    def show(self, picture: np.ndarray) -> None:
        """Show a picture ``(H, W, 3)`` uint8.

        Raises:
            KeyboardInterrupt: If the window was closed.
        """
        from PIL import ImageTk

        if not self._open:
            raise KeyboardInterrupt
        self._picture = ImageTk.PhotoImage(array_to_image(picture), master=self._root)
        self._label.configure(image=self._picture)
        self._root.update()

    def _close(self) -> None:
        self._open = False
