"""A stand-in for UK Biobank's ukbfetch and the service behind it, for the tests.

It knows the documented flags, each with its value glued to it (biobank.ndph.ox.ac.uk, ukbfetch_instruct), puts
<eid>_<field>_<instance>_<array>.zip into the folder it is called in, and writes <stem>.log. It refuses as the service does: a
wrong key, more than 1,000 lines a call, an 11th call at once. A data file that is not served is told in the log alone: the
call goes on and ends with 0, the worst that a caller can meet.

What it serves and how it misbehaves stands in the folder $UKB_SERVICE; there it writes down what it was asked.
"""

import fcntl
import json
import os
import sys
import time

SERVICE = os.environ["UKB_SERVICE"]


def alive(slot: str) -> bool:
    try:
        os.kill(int(slot.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    return True


def note(**told) -> None:
    """Add a line to what the service wrote down."""
    with open(f"{SERVICE}/asked.jsonl", "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(json.dumps(told) + "\n")


def main() -> str | None:
    with open(f"{SERVICE}/service.json") as stream:
        service = json.load(stream)
    flags = {word[:2]: word[2:] for word in sys.argv[1:] if word.startswith("-")}
    if len(flags) < len(sys.argv) - 1 or not set(flags) <= {"-a", "-b", "-m", "-o", "-s", "-v"} or flags.get("-v"):
        return "usage: ukbfetch -bbatch_file [-aauthentication_keyfile] [-mN] [-sN] [-ologfile] [-v]"

    slot = f"{SERVICE}/slots/{os.getpid()}"
    os.makedirs(f"{SERVICE}/slots", exist_ok=True)
    open(slot, "w").close()
    try:
        with open(f"{SERVICE}/lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            at_once = sum(alive(other) for other in os.listdir(f"{SERVICE}/slots"))
        with open(flags.get("-a", ".ukbkey")) as stream:
            key = stream.read().split()
        with open(flags["-b"]) as stream:
            lines = stream.read().splitlines()
        first = int(flags.get("-s", 1))
        lines = lines[first - 1 : first - 1 + int(flags.get("-m", len(lines)))]
        note(argv=sys.argv[1:], cwd=os.getcwd(), lines=lines, at_once=at_once)
        if key != service["key"]:
            return f"authentication failed for application {key[0]} with {key[1]}"
        if at_once > 10:
            return "too many connections for this application"
        if len(lines) > 1000:
            return "more than 1000 data files asked for"
        return serve(lines, service, f"{flags.get('-o', 'fetched')}.log")
    finally:
        os.unlink(slot)


def serve(lines: list[str], service: dict, log: str) -> None:
    with open(log, "w") as told:
        for line in lines:
            time.sleep(service.get("seconds", 0))
            misbehaves = f"{SERVICE}/{line.replace(' ', '_')}"
            own = f"{SERVICE}/{line.replace(' ', '_')}.zip"
            with open(own if os.path.exists(own) else f"{SERVICE}/scan.zip", "rb") as stream:
                scan = stream.read()
            if line in service.get("absent", []):
                told.write(f"{line} failed\n")
                continue
            if line in service.get("cut_once", []) and not os.path.exists(misbehaves):
                open(misbehaves, "w").close()
                content = scan[: len(scan) // 2]
            else:
                content = scan
            with open(f"{line.replace(' ', '_')}.zip", "wb") as stream:
                if line in service.get("stall_once", []) and not os.path.exists(misbehaves):
                    open(misbehaves, "w").close()
                    stream.write(content[: len(content) // 2])
                    stream.flush()
                    end = time.monotonic() + service["stall"]
                    while time.monotonic() < end and not os.path.exists(f"{SERVICE}/go_on"):
                        time.sleep(0.05)
                stream.write(content)
            told.write(f"{line} fetched\n")


if __name__ == "__main__":
    sys.exit(main())
