"""Write a page of tables that can be read before a run has ended: self-contained HTML.

``cohort`` says who is in a dataset and why every other scan is not, and writes those as CSV, too.
"""

import json
from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
from mriflow.reporting.cohort_page import page_cohort


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write a page."""
    parser = stage_parser(__doc__)
    pages = parser.add_subparsers(required=True, metavar="page")
    cohort = pages.add_parser("cohort", help="who is in a dataset, and why every other scan is not", allow_abbrev=False)
    cohort.set_defaults(write=page_cohort)
    cohort.add_argument("--labels", type=Path, required=True, help="labels.csv of the dataset")
    cohort.add_argument("--indices", type=Path, nargs="*", default=[], help="indices of its shards, .csv")
    cohort.add_argument("--targets", type=json.loads, default={}, help="columns to be predicted and their classes, as JSON")
    cohort.add_argument("--title", default="", help="of the dataset")
    cohort.add_argument("--licence", default="", help="of the dataset")
    cohort.add_argument("--citation", default="", help="of the dataset")
    cohort.add_argument("--simulated", action="store_true", help="say that the scans are simulated")
    cohort.add_argument("--page", type=Path, required=True, help="web page to write, .html")
    cohort.add_argument("--csv", type=Path, required=True, help="the same as a table to write, .csv")
    arguments = vars(parser.parse_args(argv))
    arguments.pop("write")(**arguments)


if __name__ == "__main__":
    run_stage(main)
