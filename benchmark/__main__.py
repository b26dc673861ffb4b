"""``python -m benchmark`` lists the commands."""

from benchmark.experiment.cli import overview_parser

parser = overview_parser()
parser.parse_args()
parser.print_help()
