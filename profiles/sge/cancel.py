"""Delete jobs from Grid Engine, as Snakemake asks after Ctrl-C.

cancel JOB ...      with the names that submit printed
cancel --all        all of this folder, for a Snakemake that runs as a job (qdel that one first)
"""

import sys

import gridengine
from gridengine import MasterAway, Refused
from jobs import Record, in_queue
from words import STATE

if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    sys.exit(__doc__.strip())
if sys.argv[1:] == ["--all"]:
    try:
        gridengine.delete(in_queue(gridengine.look(STATE, 0)))
    except (MasterAway, Refused) as error:
        sys.exit(f"Grid Engine: {error}")
else:
    # A job that saves its progress may be in another window by now than when it was first submitted.
    known = [Record(name.partition(".")[2]).read("json").get("id") for name in sys.argv[1:]]
    gridengine.delete([job for job in known if job])
