"""`autoresearch completion`: what makes a shell complete the commands, their options, tags, files and folders.

shtab writes it from the same command line that is parsed. Of a command whose module cannot be had, the name alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from pytest_autoresearch.cli import output
from pytest_autoresearch.core.extras import need

SHELLS = ("bash", "zsh", "fish")
_TAGS = "_autoresearch_tags"

# The branches of the campaigns, in the folder behind -C, through git: no Python is started while somebody types.
_LIST = "for-each-ref '--format=%(refname:lstrip=3)' refs/heads/autoresearch/ 2>/dev/null"
_PREAMBLE = {
    "bash": rf"""{_TAGS}() {{
  local n folder=()
  for ((n = 1; n < COMP_CWORD; n++)); do
    [[ ${{COMP_WORDS[n]}} == -C ]] && folder=(-C "${{COMP_WORDS[n + 1]/#\~/$HOME}}")
  done
  compgen -W "$(git "${{folder[@]}}" {_LIST})" -- "$1"
}}
""",
    "zsh": f"""{_TAGS}() {{
  local -a tags typed folder
  typed=(${{(z)LBUFFER}})
  local n=${{typed[(I)-C]}}
  (( n )) && folder=(-C ${{~${{(Q)typed[n+1]}}}})
  tags=(${{(f)"$(git $folder {_LIST})"}})
  compadd -a tags
}}
""",
    "fish": f"""function {_TAGS}
  set -l words (commandline -opc)
  set -l folder
  if set -l n (contains -i -- -C $words)
    set folder -C (string replace -r '^~' $HOME -- $words[(math $n + 1)])
  end
  git $folder {_LIST}
end
""",
}

_EPILOG = """For bash, in ~/.bashrc:
  eval "$(autoresearch completion bash)"

For zsh, in ~/.zshrc, below compinit:
  eval "$(autoresearch completion zsh)"

For fish:
  autoresearch completion fish > ~/.config/fish/completions/autoresearch.fish

Commands, options and what they choose from are completed, and so are tags, files and folders.

exit status: 0."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What may stand behind `completion`."""
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=SHELLS, help="the shell that it is for")


def command(given: argparse.Namespace) -> int:
    """Print it."""
    script = script_for(given.shell)
    if given.json:
        output.dump({"shell": given.shell, "script": script})
    else:
        print(script)
    return 0


def script_for(shell: str) -> str:
    """The completion script for a shell.

    Raises:
        UserError: shtab is not installed.
    """
    need("completion", "shtab", "the completion")
    import shtab

    from pytest_autoresearch.cli import parser

    whole = parser(whole=True)
    tags = {"bash": _TAGS, "zsh": _TAGS, "fish": f"({_TAGS})"}
    _mark(whole, {"TAG": tags, "FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY})
    return str(shtab.complete(whole, shell, preamble=_PREAMBLE[shell]))


def _mark(parser: argparse.ArgumentParser, completed: Mapping[str, object]) -> None:
    """Say of each argument what it is completed with, by what `--help` calls it."""
    for action in parser._actions:  # argparse has no other way to look at them; shtab takes it too
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _mark(one, completed)
        elif action.metavar in completed:
            action.complete = completed[str(action.metavar)]  # type: ignore[attr-defined]
