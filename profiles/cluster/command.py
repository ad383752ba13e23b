"""The script in which Snakemake says what a job is to do, made fit to start when that Snakemake is long gone."""

import re
import shlex
from pathlib import Path

from base import write_whole

WORD = r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+"""  # of a shell's command


def lasting_command(script: Path, inputs: Path, config: str | None) -> str:
    """Return Snakemake's script without what is gone or changed when the job starts, which may be days later.

    Parameters
    ----------
    script
        In a temporary folder of the Snakemake that wrote it, for which, or for a list of files in which, the script would wait.
    inputs
        Where to keep that list.
    config
        A file that holds the whole config of the run, if the workflow named one in JOB_CONFIG: the job reads it in place of
        the files and values of the command line.
    """
    *head, command = script.read_text().rstrip("\n").split("\n")
    folder = script.parent.absolute()

    def lasting(word: re.Match[str]) -> str:
        path = Path("".join(shlex.split(word[1])))
        if path == folder:
            return ""
        if path.parent == folder:
            write_whole(inputs, "".join(line for line in path.open() if line.rstrip("\n") != str(folder)))
            return f" {shlex.quote(str(inputs.absolute()))}"
        return word[0]

    command = re.sub(rf" ({WORD})", lasting, command)
    if config:
        head.append(f"export JOB_CONFIG={shlex.quote(config)}")
        command = re.sub(rf" --config(files)?( (?!--){WORD})+", "", command)
    return "\n".join([*head, command, ""])
