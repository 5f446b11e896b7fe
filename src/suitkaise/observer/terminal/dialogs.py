"""The dialogs of the terminal observer: confirm a change, choose a signal, and the list of keys."""

from __future__ import annotations

import signal
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

__all__ = ["ChooseSignal", "Confirm", "Help"]

SIGNALS: dict[signal.Signals, str] = {
    signal.SIGTERM: "finish gracefully",
    signal.SIGKILL: "end at once",
    signal.SIGUSR1: "print the stacks of its threads",
    signal.SIGINT: "interrupt: of a command",
    signal.SIGHUP: "read the configuration again: of a command",
    signal.SIGSTOP: "stand still",
    signal.SIGCONT: "go on after a stop",
}


class Confirm(ModalScreen[bool]):
    """Asks whether to do something."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Yes"),
        Binding("n,escape,q,ctrl+c", "answer(False)", "No"),
    ]

    def __init__(self, question: str, hint: str) -> None:
        super().__init__()
        self._question = question
        self._hint = hint

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        text = Text(self._question, "bold")
        text.append(f"\n{self._hint}\n", "not bold dim")
        text.append("\n y ", "bold reverse")
        text.append(" yes    ", "not bold")
        text.append(" n ", "bold reverse")
        text.append(" no", "not bold")
        with Vertical(classes="dialog"):
            yield Static(text)

    def action_answer(self, yes: bool) -> None:
        """Close the dialog with the answer."""
        self.dismiss(yes)


class ChooseSignal(ModalScreen[int | None]):
    """Asks which signal to send; choosing one confirms it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,n,ctrl+c", "leave", "Cancel")]

    def __init__(self, path: str, pid: int) -> None:
        super().__init__()
        self._title = f"Send a signal to {path} (pid {pid})"

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._title, "bold"))
            yield OptionList(
                *(Option(f"{one.name:<8} {what}", id=str(int(one))) for one, what in SIGNALS.items()), markup=False
            )
            yield Static(Text("Enter sends it, Escape does not. The supervisor acts by its rules.", "dim"))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Close the dialog with the signal."""
        self.dismiss(int(event.option.id or 0))

    def action_leave(self) -> None:
        """Close the dialog."""
        self.dismiss(None)


class Help(ModalScreen[None]):
    """The list of keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,h,enter,ctrl+c", "leave", "Close")]

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        text = Text()
        for keys, what in _KEYS:
            if not keys:
                text.append(f"{what}\n", "bold")
                continue
            text.append(f"  {keys:<17}", "bold cyan")
            text.append(f"{what}\n")
        with VerticalScroll(classes="dialog help"):  # in a low terminal the arrow keys scroll it
            yield Static(text)

    def action_leave(self) -> None:
        """Close the dialog."""
        self.dismiss(None)


_KEYS = [
    ("", "Look"),
    ("↑ ↓ PgUp PgDn", "choose a worker; Home and End go to the first and last"),
    ("Enter", "show its detail, or hide it; Tab goes there and back"),
    ("/", "show only what holds a text; Escape shows all"),
    ("< >", "sort by another figure; t is the tree again"),
    ("", "Steer (each asks first)"),
    ("r", "restart"),
    ("s", "stop"),
    ("a", "start what is stopped, has finished or was given up"),
    ("p c", "suspend (pause), and resume (continue)"),
    ("k", "send a signal to its process"),
    ("", "Else"),
    ("? q", "this help, and quit (also Ctrl-C); the trees go on"),
]
