"""Write the report of a run: one page with all that was found, to read, to print and to copy home.

It is read from what the other stages have made: nothing is measured or drawn anew. It asks for nothing outside itself.
"""

from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
from mriflow.reporting.report_page import write_report


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the report."""
    parser = stage_parser(__doc__)
    parser.add_argument("--page", type=Path, required=True, help="web page to write, .html")
    parser.add_argument("--csv", type=Path, required=True, help="metrics of all experiments to write, .csv")
    parser.add_argument("--config", type=Path, required=True, help="merged config, beside the experiments' folders, .yaml")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with <dataset>/labels.csv (default: data)")
    parser.add_argument(
        "--preprocessed",
        type=Path,
        default=Path("preprocessed"),
        help="folder with <dataset>/<block>/shard-*.csv (default: preprocessed)",
    )
    parser.add_argument("--benchmarks", type=Path, default=Path("benchmarks"), help="folder of them (default: benchmarks)")
    parser.add_argument("--workflow", default="workflow-report.html", help="name of Snakemake's own report, to link to")
    write_report(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
