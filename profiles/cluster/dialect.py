"""A site's dialect: what a job asks for in Snakemake's words, as the arguments that its scheduler understands."""

import hashlib
import json
import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from base import write_whole
from here import PROFILE, scheduler

SCHEMA = Path(__file__).with_name("schema.yaml")


class Request(NamedTuple):
    """What a job asks for: the whole job's memory and scratch space in MB, its walltime in seconds."""

    mem_mb: int
    walltime: int
    threads: int = 1
    gpu: int = 0
    gpu_model: str = ""
    scratch_mb: int = 0

    @classmethod
    def of(cls, resources: dict[str, Any], threads: int) -> "Request":
        """Return the request of a rule's `resources`, where `runtime` is in minutes."""
        model = str(resources.get("gpu_model") or "")
        if not re.fullmatch(r"[\w.|&!*()-]*", model):
            sys.exit(f"gpu_model={model!r}: only names, | & ! * and parentheses can be asked for, such as 'a100|rtx4090'")
        numbers = {}
        for name, default in {"mem_mb": 1000, "runtime": 30, "gpu": 0, "scratch_mb": 0}.items():
            try:
                numbers[name] = float(resources.get(name, default))
            except (TypeError, ValueError):
                sys.exit(f"{name}={resources[name]!r}: a number was expected (mem_mb and scratch_mb in MB, runtime in minutes)")
        if numbers["mem_mb"] <= 0 or numbers["runtime"] <= 0:
            sys.exit(f"mem_mb={numbers['mem_mb']:g}, runtime={numbers['runtime']:g}: a job needs memory and minutes above 0")
        return cls(
            mem_mb=math.ceil(numbers["mem_mb"]),
            walltime=math.ceil(60 * numbers["runtime"]),
            threads=threads,
            gpu=int(numbers["gpu"]),
            gpu_model=model,
            scratch_mb=math.ceil(numbers["scratch_mb"]),
        )


class Site(NamedTuple):
    """settings.yaml and the dialect that it names, both checked and complete with defaults."""

    settings: dict[str, Any]
    dialect: dict[str, Any]

    def arguments(self, request: Request, warned: bool = False) -> list[str]:
        """Return the arguments that ask for a request; a `warned` job is sent signals before it is killed."""
        dialect, settings = self.dialect, self.settings
        if request.gpu and "gpu" not in dialect:
            sys.exit(f"{dialect['site']}: its dialect does not say how a GPU is asked for (key `gpu`)")
        slots = self.slots(request)
        arguments = amount(dialect["memory"], request.mem_mb, slots)
        if per := self.memory_limit(request):
            arguments += amount(dialect["memory_limit"] | {"per": per}, request.mem_mb, slots)
        arguments += fill(dialect["walltime"], clock(request.walltime))
        if warned:
            if "warning" in dialect:
                arguments += fill(dialect["warning"], clock(request.walltime - self.margin(request) // 2))
            arguments += scheduler.warned(self.margin(request) // 2)
        if request.gpu:
            model = request.gpu_model or dialect.get("default_gpu_model")
            if model and "gpu_of_model" in dialect:
                arguments += [word.replace("{model}", model) for word in fill(dialect["gpu_of_model"], request.gpu)]
            else:
                arguments += fill(dialect["gpu"], request.gpu)
            if model and "gpu_model" in dialect:
                arguments += fill(dialect["gpu_model"], model)
            if request.gpu > 1 and "gpus" in dialect:
                arguments += fill(dialect["gpus"], request.gpu)
        if slots > 1 and not (request.gpu and "gpus" in dialect):
            if "slots" not in dialect:
                sys.exit(f"{dialect['site']}: its dialect does not say how several slots are asked for (key `slots`)")
            arguments += fill(dialect["slots"], slots)
        if request.scratch_mb and "scratch" in dialect:
            arguments += amount(dialect["scratch"], request.scratch_mb, slots)
        arguments += shlex.split(settings[scheduler.SUBMIT])
        if request.gpu:
            arguments += shlex.split(settings[f"{scheduler.SUBMIT}_gpu"])
        return scheduler.joined(arguments)

    def memory_limit(self, request: Request) -> str | None:
        """Return what the memory limit is of, `slot` or `job`; None for a job without one, as with GPUs."""
        limit = self.dialect.get("memory_limit")
        per = self.settings.get("memory_limit") or (limit and limit["per"])
        return per if limit and per != "omit" and not request.gpu else None

    def slots(self, request: Request) -> int:
        """Return by how many slots the site counts a job: its GPUs, where each is a slot, else its threads."""
        return request.gpu if request.gpu and "gpus" in self.dialect else max(1, request.threads)

    def margin(self, request: Request) -> int:
        """Return how many seconds before its kill a job that saves its progress has to stop."""
        return min(self.settings["margin"], request.walltime // 4)


def amount(form: dict[str, str], megabytes: int, slots: int) -> list[str]:
    """Return the arguments that ask for an amount of memory or disk, rounded up."""
    share = megabytes if form["per"] == "job" else megabytes / slots
    return fill(form[scheduler.SUBMIT], f"{math.ceil(share if form['unit'] == 'M' else share / 1000)}{form['unit']}")


def fill(template: str, value: object) -> list[str]:
    """Return a template's arguments with `value` in place of {}; what stands in it is never split or read by a shell."""
    return [argument.replace("{}", str(value)) for argument in shlex.split(template)]


def clock(seconds: int) -> str:
    """Return a duration as schedulers read it, h:mm:ss."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def read_site(cache: Path) -> Site:
    """Read and check settings.yaml and its dialect; `cache` keeps the outcome, for this is asked with every job.

    Exits with the file, the key and what was expected if something is wrong.
    """
    sources = [PROFILE / "settings.yaml", SCHEMA, *sorted((PROFILE / "dialects").glob("*.yaml"))]
    sources_hash = hashlib.sha256(b"\0".join(str(file).encode() + file.read_bytes() for file in sources)).hexdigest()
    try:
        kept = json.loads(cache.read_text())
        if kept["digest"] == sources_hash:
            return Site(kept["settings"], kept["dialect"])
    except (OSError, ValueError, KeyError):
        pass
    site = check_site()
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_whole(cache, json.dumps({"digest": sources_hash, **site._asdict()}))
    return site


def check_site() -> Site:
    """Read settings.yaml and its dialect, check both against schema.yaml and add the defaults."""
    import yaml
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    def load(file: Path) -> Any:
        try:
            text = file.read_text(encoding="utf-8")
            return yaml.safe_load(text.replace("SUBMIT", scheduler.SUBMIT) if file == SCHEMA else text)
        except yaml.YAMLError as error:
            sys.exit(f"{file}: this is not YAML: {error}")

    settings_file = PROFILE / "settings.yaml"
    schema = load(SCHEMA)
    settings = load(settings_file)
    name = settings.get("dialect") if isinstance(settings, dict) else None
    file = PROFILE / "dialects" / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(one.stem for one in (PROFILE / "dialects").glob("*.yaml")))
        sys.exit(f"{settings_file}: dialect: {name!r} is no file of {PROFILE / 'dialects'}; there are: {known}")
    document = {"settings": settings, "dialect": load(file)}
    error = best_match(Draft202012Validator(schema).iter_errors(document))
    if error:
        part, *keys = [*map(str, error.absolute_path)] or ["settings"]
        where = settings_file if part == "settings" else file
        message = error.message if error.validator != "pattern" else f"{error.instance!r} has no place {{}} for the value"
        sys.exit(f"{where}: {'.'.join(keys) or 'top level'}: {message}. What may stand there: {SCHEMA}")
    defaults = {key: one["default"] for key, one in schema["properties"]["settings"]["properties"].items() if "default" in one}
    return Site(defaults | settings, document["dialect"])
