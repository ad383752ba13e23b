"""Write a page of tables for the report: self-contained HTML.

``cohort`` says who is in a dataset and why every other scan is not; ``balance`` how evenly a split is spread; ``results`` sets
the metrics of all experiments beside their baselines. The first and the last write the same as CSV, too.
"""

import json
from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
from mriflow.reporting.balance_page import page_balance
from mriflow.reporting.cohort_page import page_cohort
from mriflow.reporting.results_page import page_results


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
    balance = pages.add_parser("balance", help="how evenly a split is spread", allow_abbrev=False)
    balance.set_defaults(write=page_balance)
    balance.add_argument("--balance", type=Path, required=True, help="balance.csv of an experiment")
    balance.add_argument("--title", default="", help="name of the experiment")
    results = pages.add_parser("results", help="the metrics of all experiments", allow_abbrev=False)
    results.set_defaults(write=page_results)
    results.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of every experiment")
    for page in (cohort, balance, results):
        page.add_argument("--page", type=Path, required=True, help="web page to write, .html")
    for page in (cohort, results):
        page.add_argument("--csv", type=Path, required=True, help="the same as a table to write, .csv")
    arguments = vars(parser.parse_args(argv))
    arguments.pop("write")(**arguments)


if __name__ == "__main__":
    run_stage(main)
