"""Delete jobs from the queue, as Snakemake asks after Ctrl-C.

cancel JOB ...      with the names that submit printed
cancel --all        all of this folder, for a Snakemake that runs as a job (delete that one first)
"""

import sys

from base import MasterAway, Refused
from here import scheduler
from jobs import Record
from look import in_queue, look

if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    sys.exit(__doc__.strip())
if sys.argv[1:] == ["--all"]:
    try:
        scheduler.delete(in_queue(look(0)))
    except (MasterAway, Refused) as error:
        sys.exit(f"{scheduler.TITLE}: {error}")
else:
    # A job that saves its progress may be in another window by now than when it was first submitted.
    known = [Record(name.partition(".")[2]).read("json").get("id") for name in sys.argv[1:]]
    scheduler.delete([job for job in known if job])
