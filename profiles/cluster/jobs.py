"""The jobs of the workflow: what Snakemake says of one, and the record of its submissions.

A record is a folder of .snakemake/<profile>, named for the rule and a hash of its outputs:

    job.json, command.sh   the job, and the script that Snakemake wants run
    1.json, 1.sh           the first submission: its id, what was asked for and when; the script that was submitted
    1.start, 1.exit        written by the job itself: when and where it started, its exit code
    1.end                  why it failed, once `status` has reported it to Snakemake
"""

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from base import write_whole
from command import lasting_command
from dialect import Request, Site, fill
from here import LOGS, PROFILE, STATE, scheduler
from look import Snapshot
from words import short_hash, title

GROWTH = 1.5
FENCE = 3  # times `poll`: how often a job looks whether another has taken its place
HASH_KEY = "fingerprint"  # of a job's hash on disk: renamed, jobs in the queue would not be taken over


class Job(NamedTuple):
    """A job of the workflow; `hash` is that of its inputs, parameters, wildcards and outputs."""

    rule: str
    wildcards: dict[str, str]
    name: str
    hash: str
    resources: dict[str, Any]
    threads: int
    logs: list[str]
    note: str | None
    attempt: int = 1

    @classmethod
    def read(cls, script: Path, saves_progress: dict[str, str]) -> "Job":
        """Read the job script that Snakemake wrote; rules of `saves_progress` leave a note beside their first output."""
        text = script.read_text()
        described = json.loads(re.search(r"^# properties = (.*)$", text, re.MULTILINE)[1])  # type: ignore[index]
        rule, outputs = described.get("rule") or described.get("groupid"), described.get("output") or []
        wildcards = described.get("wildcards") or {}
        attempt = re.search(r"--attempt (\d+)", text)
        work = {key: described.get(key) for key in ("input", "params", "wildcards", "output")}
        return cls(
            rule=rule,
            wildcards=wildcards,
            name=f"{safe_name(rule)}-{short_hash([str(Path.cwd()), rule, wildcards, outputs])}",
            hash=short_hash(work),
            resources=described["resources"],
            threads=described["threads"],
            logs=described.get("log") or [],
            note=str(Path(outputs[0]).parent / saves_progress[rule]) if rule in saves_progress and outputs else None,
            attempt=int(attempt[1]) if attempt else 1,
        )

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Return the job that job.json describes; keys that earlier versions wrote beside these are ignored."""
        values = json.loads(text)
        return cls(**{field: values[HASH_KEY if field == "hash" else field] for field in cls._fields})

    def to_json(self) -> str:
        """Return the job as job.json keeps it."""
        return json.dumps({HASH_KEY if field == "hash" else field: value for field, value in self._asdict().items()})

    def __str__(self) -> str:
        return title(self.rule, self.wildcards)


class Record:
    """The submissions of a job; the latest is `last`, counted from 1."""

    def __init__(self, name: str) -> None:
        self.folder = STATE / name
        self.last = max((int(file.stem) for file in self.folder.glob("[0-9]*.json")), default=0)

    def __str__(self) -> str:
        return f"{self.job()}, job {self.read('json').get('id')}"

    @property
    def external_id(self) -> str:
        """The id under which Snakemake knows the job: the scheduler's, 0 if it was given none, and the record's name."""
        return f"{self.read('json').get('id', 0)}.{self.folder.name}"

    @property
    def answered(self) -> bool:
        """Whether the last submission was given an id; one that was cut short may be in the queue all the same."""
        return "id" in self.read("json")

    def ids(self) -> list[str]:
        """Return the ids of all submissions."""
        found = [json.loads(file.read_text()).get("id") for file in sorted(self.folder.glob("[0-9]*.json"))]
        return [job_id for job_id in found if job_id]

    def file(self, ending: str, number: int | None = None) -> Path:
        """Return a file of a submission, by default of the last."""
        return self.folder / f"{number or self.last}.{ending}"

    def read(self, ending: str) -> dict[str, Any]:
        """Return what a file of the last submission says, nothing if there is none."""
        try:
            return json.loads(self.file(ending).read_text())
        except FileNotFoundError:
            return {}

    def write(self, ending: str, **values: Any) -> None:
        """Write a file of the last submission."""
        write_whole(self.file(ending), json.dumps(values))

    def exit_code(self) -> int | None:
        """Return the exit code of the last submission, None while it has not ended."""
        list(self.folder.iterdir())  # makes a network file system look again
        try:
            job_id, code = self.file("exit").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(code) if job_id == self.read("json").get("id") else None

    def job(self) -> Job:
        """Return the job."""
        return Job.from_json((self.folder / "job.json").read_text())

    def log(self) -> Path:
        """Return where the last submission's output goes."""
        return LOGS / safe_name(self.job().rule) / f"{self.read('json').get('id')}.log"

    def prepare(self, job: Job, script: Path) -> None:
        """Keep a job and the script that Snakemake wants run, also for what is in the queue already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "job.json", job.to_json())
        command = lasting_command(script, self.folder / "inputs.txt", os.environ.get("JOB_CONFIG"))
        write_whole(self.folder / "command.sh", command)

    def submit(self, site: Site, mem_mb: int, avoid: Sequence[str] = ()) -> None:
        """Submit the job with this much memory, and with the arguments `avoid` if the site has a node for it then.

        Raises MasterAway, after which it can be called again, or Refused.
        """
        job = self.job()
        request = Request.of(job.resources, job.threads)._replace(mem_mb=mem_mb)
        arguments = submit_arguments(job.rule, job.name, request, site, job.note is not None)
        self.log().parent.mkdir(parents=True, exist_ok=True)
        self.set_logs_aside(job)
        if self.read("end").get("why") == "node":  # it may live on there, until it sees this one
            arguments += scheduler.delayed(FENCE * site.settings["poll"] + site.settings["grace"])
        if not self.last or self.answered or self.file("start").exists():  # what another left is not this one's
            self.last += 1
        self.file("sh").write_text(job_script(job, request, site, self.folder / str(self.last), self.ids()))
        if avoid and scheduler.could_run([*arguments, *avoid, str(self.file("sh"))]):
            arguments += avoid
        submission = {"walltime": request.walltime, scheduler.SUBMIT: arguments, HASH_KEY: job.hash}
        submission |= {"mem_mb": mem_mb, "time": time.time(), "started_from": read_note(job)}
        submission["limited"] = site.memory_limit(request) is not None
        self.write("json", **submission)  # before it is there, so that a Snakemake killed in between leaves a trace
        self.write("json", **submission, id=scheduler.submit([*arguments, str(self.file("sh"))]))

    def avoid_failed_host(self, site: Site) -> list[str]:
        """Return the arguments that keep the job off the host whose failure ended the last submission, if it was that."""
        host = self.read("start").get("host") if self.read("end").get("why") == "machine" else None
        return fill(site.dialect["avoid_host"], host) if host and "avoid_host" in site.dialect else []

    def set_logs_aside(self, job: Job) -> None:
        """Keep the stage's logs of the try or walltime before beside its output: a log that shows after that is of the next."""
        before = self.read("json").get("id", "before")
        for log in map(Path, job.logs):
            with contextlib.suppress(FileNotFoundError):
                shutil.move(log, self.log().with_name(f"{before}-{log.name}"))

    def arrived(self, queue: Snapshot) -> bool:
        """Return whether the scheduler took the last submission though its answer was lost, and note the id."""
        if job_id := self.read("start").get("id"):  # it may have ended long since
            self.write("json", **self.read("json") | {"id": job_id})
            return True
        return self.adopt(queue)

    def adopt(self, queue: Snapshot) -> bool:
        """Return whether the last submission is in the queue, alive, and note its id if that was lost."""
        submission = self.read("json")
        earlier = set(self.ids()) - {submission.get("id")}
        for job_id, queued in queue.jobs.items():
            alive = not queued.in_error and not queued.being_deleted
            if queued.name == self.folder.name and job_id not in earlier and alive:
                self.write("json", **submission | {"id": job_id})
                return True
        return False


def submit_arguments(rule: str, name: str, request: Request, site: Site, saves_progress: bool) -> list[str]:
    """Return the arguments with which a job is submitted, but for the script."""
    log = f"{LOGS}/{safe_name(rule)}/{scheduler.JOB_ID}.log"
    return [*scheduler.job_arguments(name, log), *site.arguments(request, warned=saves_progress)]


def job_script(job: Job, request: Request, site: Site, record: Path, before: list[str]) -> str:
    """Return the script that is submitted; `record` is where its notes go, without their endings, `before` earlier ids."""
    scratch = site.dialect.get("scratch_folder", "") if request.scratch_mb else ""
    return "\n".join(
        [
            "#!/bin/bash",
            f"record={record}",
            f"command={record.parent / 'command.sh'}",
            f"profile={shlex.quote(str(PROFILE))}",
            f"walltime={request.walltime}",
            f"margin={site.margin(request)}",
            f'scratch="{scratch}"',
            f"before='{' '.join(before)}'",
            f"fence={FENCE * site.settings['poll']}",
            f"logs={shlex.quote(str((LOGS / safe_name(job.rule)).absolute()))}",
            f"saves={'yes' if job.note else ''}",
            "",
            (PROFILE / "job.sh").read_text(),
            Path(__file__).with_name("job.sh").read_text(),
        ]
    )


def next_memory(job: Job, record: Record) -> int:
    """Return how many MB a job is to ask for: more than last time if, and only if, that was not enough."""
    mem_mb = Request.of(job.resources, job.threads).mem_mb
    if record.read("end").get("why") == "memory":
        mem_mb = max(mem_mb, math.ceil(GROWTH * record.read("json")["mem_mb"]))
    return mem_mb


def read_note(job: Job) -> dict[str, Any] | None:
    """Return why and where a job that saves its progress stopped the last time, if it left a note."""
    try:
        return json.loads(Path(job.note).read_text()) if job.note else None
    except (FileNotFoundError, ValueError):
        return None


def safe_name(text: str) -> str:
    """Return `text` as a part of a job's or folder's name that schedulers and every shell take as it is."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)[:40]
    return f"_{name}" if name[:1].isdigit() else name
