"""`suitkaise completion bash|zsh|fish`: scripts that complete commands, options, and paths of running workers."""

from __future__ import annotations

import argparse

from suitkaise.cli.command import CLEAN

__all__ = ["SHELLS", "commands_of", "print_completion"]

SHELLS = ("bash", "zsh", "fish")

_WITH_PATH = (
    "tree",
    "status",
    "logs",
    "top",
    "profile",
    "trace",
    "restart",
    "stop",
    "start",
    "suspend",
    "resume",
    "signal",
    "stack",
)
_PATHS = "suitkaise tree --paths 2>/dev/null"


def print_completion(parser: argparse.ArgumentParser, shell: str) -> int:
    """Print the script for a shell, made from the parser of the commands."""
    print(_fish(parser) if shell == "fish" else _bash(parser, zsh=shell == "zsh"))
    return CLEAN


def commands_of(parser: argparse.ArgumentParser) -> dict[str, tuple[str, list[str]]]:
    """Return the help and the long options of each command, those of its actions included."""
    subparsers = _subparsers_of(parser)
    assert subparsers is not None
    helps = {choice.dest: choice.help or "" for choice in subparsers._choices_actions}
    return {name: (helps.get(name, ""), _options_of(command)) for name, command in subparsers.choices.items()}


def _subparsers_of(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    return next((one for one in parser._actions if isinstance(one, argparse._SubParsersAction)), None)


def _options_of(command: argparse.ArgumentParser) -> list[str]:
    options = [
        option
        for action in command._actions
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
        if option.startswith("--")
    ]
    below = _subparsers_of(command)
    for one in below.choices.values() if below is not None else ():
        options += [option for option in _options_of(one) if option not in options]
    return options


def _words_of(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Return the words of which one follows a command: the actions of `store`, the shells of `completion`."""
    subparsers = _subparsers_of(parser)
    assert subparsers is not None
    return {
        name: list(action.choices)
        for name, command in subparsers.choices.items()
        for action in command._actions
        if not action.option_strings and action.choices is not None
    }


def _bash(parser: argparse.ArgumentParser, *, zsh: bool) -> str:
    commands = commands_of(parser)
    words = {name: f" words='{' '.join(these)}'" for name, these in _words_of(parser).items()}
    cases = "\n".join(
        f"        {name}) options='{' '.join(options)}'{words.get(name, '')} ;;"
        for name, (_, options) in commands.items()
    )
    first = "autoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    return f"""{first}_suitkaise() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} options='' words='' one
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{" ".join(commands)}' -- "$word"))
        return
    fi
    case "$command" in
{cases}
    esac
    if [ "$COMP_CWORD" -gt 2 ]; then words=''; fi
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
        *) case "$command" in
            {"|".join(_WITH_PATH)})
                COMPREPLY=()
                while IFS= read -r one; do  # not by compgen -W, which would run a $(command) in a name
                    if [[ $one == "${{word//\\\\/}}"* ]]; then COMPREPLY+=("$one"); fi
                done < <({_PATHS}) ;;
            *)
                if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$word"))
                else COMPREPLY=($(compgen -f -- "$word")); fi ;;
        esac ;;
    esac
}}
complete -o filenames -F _suitkaise suitkaise"""


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = ["complete -c suitkaise -f"]
    for name, (text, options) in commands_of(parser).items():
        lines.append(f"complete -c suitkaise -n __fish_use_subcommand -a {name} -d '{text}'".replace("user's", "user"))
        lines += [
            f"complete -c suitkaise -n '__fish_seen_subcommand_from {name}' -l {option.removeprefix('--')}"
            for option in options
        ]
    for name, words in _words_of(parser).items():
        one_of, seen = " ".join(words), "__fish_seen_subcommand_from"
        lines.append(f"complete -c suitkaise -n '{seen} {name}; and not {seen} {one_of}' -a '{one_of}'")
    actions = " ".join(_words_of(parser)["store"])
    paths = " ".join(_WITH_PATH)
    lines.append(f'complete -c suitkaise -n "__fish_seen_subcommand_from {paths}" -a "({_PATHS})"')
    lines.append("complete -c suitkaise -n '__fish_seen_subcommand_from run' -F")
    store = f"__fish_seen_subcommand_from store; and __fish_seen_subcommand_from {actions}"
    lines.append(f"complete -c suitkaise -n '{store}' -F")
    return "\n".join(lines)
