"""Slurm: its commands, and what they answer."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import base
from base import End, MasterAway, Queued, Refused, Words

TITLE, MASTER = "Slurm", "Slurm's controller"
SUBMIT = "sbatch"
DELETE = "scancel"  # read by `cancel`, too
JOB_ID = "%j"  # the job's id in the name of its log
NO_MEMORY = (
    r"oom[-_]kill|[Ee]xceeded (job |step |its )?memory limit"  # printed by Slurm into the log of a job that took too much
)
WORDS = Words(
    away=re.compile(
        r"Unable to contact|Socket timed out|Unexpected message|Zero Bytes|Connection (refused|timed out|reset)|not respond"
        r"|Communication|temporarily unable|temporarily unavailable|backup controller|[Aa]uthentication|[Mm]unge"
    ),
    full=re.compile(r"SubmitJob|MaxJobCount"),  # of a user, an account (AssocGrpSubmitJobsLimit), a QOS, the site
    asks=["squeue", "sacct"],
)
# States in which a job is over, and why it is if it was ended; with COMPLETED and FAILED its exit code tells.
OVER = {
    "BOOT_FAIL": "node",
    "CANCELLED": "deleted",
    "COMPLETED": "",
    "DEADLINE": "walltime",
    "FAILED": "",
    "LAUNCH_FAILED": "node",
    "NODE_FAIL": "node",
    "OUT_OF_MEMORY": "memory",
    "PREEMPTED": "deleted",
    "REVOKED": "deleted",
    "TIMEOUT": "walltime",
}
NEVER = re.compile(  # reasons for which a job waits and that do not pass
    r"PartitionTimeLimit|PartitionNodeLimit|BadConstraints|Max\w+Per(Job|Node)|MaxMemPerLimit|QOSMin|Invalid(Account|QOS)"
    r"|(Account|QOS)NotAllowed|DependencyNeverSatisfied|launch.failed.requeued.held",
    re.IGNORECASE,
)

# The script of a submission, whose folder has the name that it was submitted with; an admin or the site may change that.
SCRIPT = re.compile(r"[^|]*\.snakemake/[^/|]+/([\w-]+)/\d+\.sh\|")


def run(*command: str, timeout: float = 60) -> str:
    """Run a command and return its output. Raises MasterAway, Full or Refused.

    What a job finds in its environment and what users set for their own eyes (SQUEUE_PARTITION) would change what is asked, the
    temporary folder of a login node may be on no other.
    """
    own = re.compile(r"SLURM_(?!CONF$)|SQUEUE_|SACCT_|SCANCEL_|TMPDIR$")
    environment = {name: value for name, value in os.environ.items() if not own.match(name)}
    return base.run(WORDS, *command, timeout=timeout, environment=environment)


def job_arguments(name: str, log: str) -> list[str]:
    """Return what every sbatch says, whatever the job asks for; the log comes last."""
    here = str(Path.cwd())
    if "%" in here:  # Slurm puts the folder before a relative path, and reads its % too
        log = f"{here.replace('%', '%%')}/{log}"
    return ["--parsable", "--no-requeue", "--nodes=1", "--ntasks=1", f"--job-name={name}", f"--output={log}"]


def warned(seconds: int) -> list[str]:
    """Return how a job asks to be sent a signal so long before it is killed; only its own shell gets it (job.sh)."""
    return [f"--signal=B:USR1@{seconds}"]


def joined(arguments: list[str]) -> list[str]:
    """Return the arguments with one --gres in place of several, of which Slurm would take only the last."""
    words, others, gres = iter(arguments), list[str](), list[str]()
    for word in words:
        if word.startswith("--gres="):
            gres.append(word.removeprefix("--gres="))
        elif word == "--gres":
            gres.append(next(words, ""))
        else:
            others.append(word)
    return [*others, f"--gres={','.join(gres)}"] if gres else others


def by_hand(arguments: list[str]) -> list[str]:
    """Return the command that opens a shell on a node with these resources."""
    return ["srun", "--nodes=1", "--ntasks=1", *arguments, "--pty", "bash"]


def delayed(seconds: int) -> list[str]:
    """Return how a job asks to start so much later."""
    return [f"--begin=now+{seconds}"]


def list_jobs(_folder: Path, _names: dict[str, str]) -> tuple[dict[str, Queued], dict[str, str]]:
    """Return the user's jobs by their ids, for some minutes also those that are over. Raises MasterAway."""
    return read_queue(run(*squeue(), f"--user={os.getuid()}")), {}


def squeue() -> list[str]:
    """Return the command that lists jobs, whatever their state, as `read_queue` reads them."""
    return ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r|%o|%j"]


def read_queue(text: str) -> dict[str, Queued]:
    """Return the jobs of squeue's lines by their ids."""
    jobs = {}
    for line in text.splitlines():
        job, _, rest = line.partition("|")
        state, _, rest = rest.partition("|")
        reason, _, rest = rest.partition("|")
        script = SCRIPT.match(rest)
        pending = state == "PENDING"
        jobs[job.strip()] = Queued(
            name=script[1] if script else rest.partition("|")[2].strip(),
            state=state,
            reason=reason,
            waits=pending,
            in_error=pending and bool(NEVER.search(reason)),
            being_deleted=state == "COMPLETING",
            over=state in OVER,
            why=OVER.get(state, ""),
        )
    return jobs


def known(job: str) -> bool:
    """Return whether a job that was not listed is in the queue all the same. Raises MasterAway."""
    try:
        return any(not queued.over for queued in read_queue(run(*squeue(), f"--jobs={job}")).values())
    except MasterAway as error:
        if "Invalid job id" in str(error):
            return False
        raise


def submit(arguments: Sequence[str]) -> str:
    """Hand a job to sbatch and return its id, which a site may wrap in words of its own. Raises MasterAway or Refused."""
    answer = run("sbatch", *arguments)
    number = re.search(r"^\s*(\d+)(;\S*)?\s*$", answer, re.MULTILINE)  # 7;cluster where there are several
    if not number:
        raise Refused(f"sbatch answered {answer!r} where the id of a job was expected")
    return number[1]


def could_run(arguments: Sequence[str]) -> bool:
    """Return whether the site has a node on which a job with these arguments could ever run, if all were free."""
    with contextlib.suppress(MasterAway, Refused):
        run("sbatch", "--test-only", *arguments)
        return True
    return False


def why_waiting(job: str, queued: Queued) -> str:
    """Return why a job that is in the queue does not start, in a sentence for the user."""
    if queued.reason.startswith("JobHeld"):
        return f"It is held ({queued.reason}); `scontrol release {job}` lets it go, if it was you who held it"
    if queued.reason in ("Priority", "Resources"):
        return f"It can run here, but not now: others come first ({queued.reason}); `squeue --start --jobs={job}` guesses when"
    return f"Slurm's reason: {queued.reason}; `scontrol show job {job}` says more"


def delete(jobs: Sequence[str]) -> None:
    """Start to delete jobs, those that have ended meanwhile too."""
    base.start("scancel", *jobs)


def why_in_error(_job: str, queued: Queued) -> End:
    """Return why a job will never run."""
    return End("never", f"can never run as it asks, and was deleted; Slurm's reason: {queued.reason}")


def end_of(job: str, ended: Queued | None, _code: int | None) -> End:
    """Return what Slurm says of a job's end: the queue for some minutes, and sacct where there is one."""
    if ended:
        reason = f", {ended.reason}" if ended.reason != "None" else ""
        return End(ended.why, f"Slurm: {ended.state}{reason}")
    with contextlib.suppress(MasterAway, Refused):
        states = run("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State", timeout=10)
        state = (states.split() or [""])[0]  # of `CANCELLED by 1001` the first word
        if state in OVER:
            return End(OVER[state], f"Slurm: {state}")
    return End()
