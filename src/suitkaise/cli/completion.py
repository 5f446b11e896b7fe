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
    """Return the help and the long options of each command."""
    (subparsers,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in subparsers._choices_actions}
    return {
        name: (
            helps.get(name, ""),
            [option for action in command._actions if action.help != argparse.SUPPRESS
             for option in action.option_strings if option.startswith("--")],
        )
        for name, command in subparsers.choices.items()
    }  # fmt: skip


def _bash(parser: argparse.ArgumentParser, *, zsh: bool) -> str:
    commands = commands_of(parser)
    cases = "\n".join(f"        {name}) options='{' '.join(options)}' ;;" for name, (_, options) in commands.items())
    first = "autoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    return f"""{first}_suitkaise() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} options='' one
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{" ".join(commands)}' -- "$word"))
        return
    fi
    case "$command" in
{cases}
    esac
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
        *) case "$command" in
            {"|".join(_WITH_PATH)})
                COMPREPLY=()
                while IFS= read -r one; do  # not by compgen -W, which would run a $(command) in a name
                    if [[ $one == "${{word//\\\\/}}"* ]]; then COMPREPLY+=("$one"); fi
                done < <({_PATHS}) ;;
            *) COMPREPLY=($(compgen -f -- "$word")) ;;
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
    paths = " ".join(_WITH_PATH)
    lines.append(f'complete -c suitkaise -n "__fish_seen_subcommand_from {paths}" -a "({_PATHS})"')
    lines.append("complete -c suitkaise -n '__fish_seen_subcommand_from run' -F")
    return "\n".join(lines)
