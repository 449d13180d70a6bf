"""What may stand on the command line.  Imports nothing heavy: `jaxem --help` must be quick."""

import argparse
from importlib import metadata
from typing import NoReturn

MODELS = (
    "gaussian-mixture",
    "poisson-mixture",
    "bernoulli-mixture",
    "categorical-mixture",
    "gaussian-hmm",
    "poisson-hmm",
    "bernoulli-hmm",
    "categorical-hmm",
    "gmm-hmm",
)
COVARIANCES = ("full", "tied", "diagonal", "spherical")
CRITERIA = ("bic", "aic", "icl", "log-likelihood", "cv")
MOST_ORDERS = 1000  # of --components

DATA_HELP = """\
DATA is a .csv, .npy, .npz or .parquet file, or the name of a bundled data set
(old_faithful, earthquakes, iris).
  .csv      cells separated by commas.  The first line is a header if none of its
            cells is a number.  In messages a row is a line of the file, from 1.
  .npy      one array, [N] or [N, D].
  .npz      one array, or `values` and optional `lengths`: [N], [N, D], or padded
            sequences [B, T, D] ([B, T] with lengths [B]).
  .parquet  a table.
Columns have the names of the header, and numbers from 1.

An entry is empty where a cell of a .csv holds nothing, NaN or NA (in any case),
.npy and .npz hold NaN, or .parquet holds null or NaN.  A blank line of a .csv is no
row; but in a file of one column, with --missing marginalize, it is a row without
its entry unless only blank lines follow.
"""
MODELS_HELP = """\
Gaussian models take real numbers, Poisson ones counts, Bernoulli ones 0 and 1,
categorical ones a single column of symbols 0, 1, 2, ...; gmm-hmm is a hidden
Markov model with a Gaussian mixture in every state.  (One column of symbols
cannot tell more than one component of a categorical-mixture apart.)
"""
STATUS_HELP = """\
exit status: 0 done; 1 of fit: no start led to a sound fit (nothing is written
then), of certify: a check failed; 2 bad input, told in one line (nothing is
written then); 130 interrupted.
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments as a namespace with `command` in it.

    Raises:
        ValueError: arguments that do not fit; the message is one line.
        SystemExit: after `--help` and `--version`.
    """
    parser = argparse.ArgumentParser(
        prog="jaxem",
        description="Fit mixtures and hidden Markov models by expectation-maximisation.",
        epilog=STATUS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"jaxem {metadata.version('jaxem')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.error = _refuse_as(f"jaxem {name}")
        return made

    parser.error = _refuse_as("jaxem")
    _fit_arguments(command("fit", "fit a model to data", DATA_HELP + "\n" + MODELS_HELP))
    _predict_arguments(command("predict", "the component or state of every row, as CSV", DATA_HELP))
    _sample_arguments(command("sample", "rows drawn from a model, as CSV", ""))
    _certify_arguments(
        command("certify", "check that a fitted model is what EM says it is", DATA_HELP)
    )
    return parser.parse_args(argv)


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"""\
Every number of components with every covariance is a candidate.  Several are ranked by
--criterion, a line each, and the best model is reported, written and drawn.

AIC and BIC count the initial probabilities of a hidden Markov model; the n of BIC is
the number of rows, or the sum of their weights.  ICL is BIC with the likelihood of the
data and their most probable components.

{parser.epilog}
{STATUS_HELP}"""
    parser.add_argument("data", metavar="DATA", help="a file or a bundled data set, see below")
    parser.add_argument(
        "--model", required=True, choices=MODELS, metavar="MODEL", help=", ".join(MODELS)
    )
    parser.add_argument(
        "--components",
        required=True,
        type=_orders,
        metavar="K",
        help="components, or hidden states: 3, a range 1:10 with both its ends, or several 1,2,5; "
        "several are ranked",
    )
    parser.add_argument(
        "--covariance",
        type=_covariances,
        metavar="NAME",
        help=f"of the Gaussians: {', '.join(COVARIANCES)}, or several with commas between, which "
        "are ranked (default: full; for gmm-hmm within every state)",
    )
    parser.add_argument(
        "--mixtures",
        type=_positive,
        metavar="M",
        help="gmm-hmm: components in a state (default: 2)",
    )
    _data_options(parser)
    _weights_option(parser)
    parser.add_argument(
        "--restarts",
        type=_positive,
        default=1,
        metavar="R",
        help="starts of each candidate; the best fit is kept (default: 1)",
    )
    parser.add_argument(
        "--criterion",
        choices=CRITERIA,
        default="bic",
        help="what ranks several candidates; cv is the log-likelihood of rows (or sequences) left "
        "out of the fit in turn (default: bic)",
    )
    parser.add_argument(
        "--folds",
        type=_folds,
        metavar="F",
        help="--criterion cv: parts to leave out in turn (default: 5)",
    )
    _seed_option(parser, "the starts")
    parser.add_argument(
        "--tol",
        type=_not_negative,
        default=1e-6,
        metavar="NATS",
        help="stop when a step gains no more log-likelihood than this (default: 1e-6)",
    )
    parser.add_argument(
        "--max-steps",
        type=_positive,
        default=1000,
        metavar="S",
        help="steps at most (default: 1000)",
    )
    _dtype_option(parser)
    parser.add_argument("-o", "--out", metavar="FILE", help="write the model, such as model.npz")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw data and model, beside the criterion over K if "
        "there are several: .png, .pdf or .svg (needs matplotlib)",
    )


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"""\
One row comes out per row of DATA, in order: the column of sequence ids if there
is one; the component (mixtures: the most probable one; counted from 0) or the
state (hidden Markov models: on the most probable path); and its probability given
the data, and given the labels if there are any.  A row that the model rules out has
-1 and probability 0.

{parser.epilog}
{STATUS_HELP}"""
    parser.add_argument("model", metavar="MODEL", help="a file that `jaxem fit --out` wrote")
    parser.add_argument("data", metavar="DATA", help="a file or a bundled data set, see below")
    _data_options(parser)
    parser.add_argument(
        "--weights", metavar="COLUMN", help="leave this column out: weights have no influence here"
    )
    _out_option(parser)


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"""\
A mixture gives N independent rows, a hidden Markov model one sequence of N steps.
Columns: x1, x2, ... and the component or state (from 0) that each row came from.

{STATUS_HELP}"""
    parser.add_argument("model", metavar="MODEL", help="a file that `jaxem fit --out` wrote")
    parser.add_argument("-n", type=_positive, required=True, metavar="N", help="how many rows")
    _seed_option(parser, "the draw")
    _out_option(parser)


def _certify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"""\
One EM step is taken from the model, and every statement of the theory about it is
checked on DATA, which should be what the model was fitted to: that the M-step is
the maximiser, by Lagrange multipliers and by gradient ascent, that the likelihood
rises as it must, and, where the fit has converged, that it has come to a strict
local maximum rather than a saddle.  A line comes out per check; what cannot be said
of this model is "not applicable", with the reason, and fails nothing.  The first
run compiles for a while; later ones on data of the same shape do not.

{parser.epilog}
{STATUS_HELP}"""
    parser.add_argument("model", metavar="MODEL", help="a file that `jaxem fit --out` wrote")
    parser.add_argument("data", metavar="DATA", help="a file or a bundled data set, see below")
    _data_options(parser)
    _weights_option(parser)
    _dtype_option(parser)
    parser.add_argument(
        "--information",
        action="store_true",
        help="also print standard errors and 95%% intervals, if the fit has converged",
    )
    parser.add_argument("--json", metavar="FILE", help="write the certificate as JSON")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw how far within its tolerance every check came: .png, .pdf or .svg (needs "
        "matplotlib)",
    )


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns",
        metavar="A,B",
        help="the columns to use, by name or by number from 1 (default: all that no other option "
        "names)",
    )
    parser.add_argument(
        "--sequence", metavar="COLUMN", help="rows with the same entry here are one sequence"
    )
    parser.add_argument(
        "--labels",
        metavar="COLUMN",
        help="known components or states, from 0; empty or -1 where unknown",
    )
    parser.add_argument(
        "--missing",
        choices=("refuse", "marginalize"),
        default="refuse",
        help="refuse empty entries (the default), or take them for missing at random and sum over "
        "what they may have been",
    )


def _weights_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        metavar="COLUMN",
        help="how often each row counts, 0 or more; in a hidden Markov model how often each "
        "sequence does: the same in all its rows",
    )


def _dtype_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float64", help="default: float64"
    )


def _seed_option(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="SEED", help=f"determines {of} (default: 0)"
    )


def _out_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="write here (default: to standard output)"
    )


def _refuse_as(program: str):
    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{message}; see `{program} --help`")

    return refuse


def _orders(text: str) -> tuple[int, ...]:
    """Numbers of components: numbers and ranges with commas between, each number once."""
    orders: dict[int, None] = {}
    for part in text.split(","):
        first, colon, last = part.partition(":")
        try:
            low = _positive(first)
            high = _positive(last) if colon else low
        except argparse.ArgumentTypeError:
            low, high = 1, 0
        if high < low:
            raise argparse.ArgumentTypeError(
                "expected a whole number of 1 or more, a range such as 1:10 or several such as "
                f"1,2,5, got {text!r}"
            )
        if len(orders) + high - low >= MOST_ORDERS:
            raise argparse.ArgumentTypeError(
                f"expected {MOST_ORDERS} numbers at most, got {text!r}"
            )
        orders |= dict.fromkeys(range(low, high + 1))
    return tuple(orders)


def _covariances(text: str) -> tuple[str, ...]:
    """Names of covariances with commas between, each once."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in COVARIANCES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"invalid choice: {unknown[0]!r}; choose from {', '.join(COVARIANCES)}, several with "
            "commas between"
        )
    return names


def _folds(text: str) -> int:
    return _whole(text, 2, 2**31 - 1)


def _positive(text: str) -> int:
    return _whole(text, 1, 2**31 - 1)


def _seed(text: str) -> int:
    return _whole(text, 0, 2**31 - 1)


def _whole(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of {least} or more, got {text!r}"
        )
    return number


def _not_negative(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got {text!r}")
    return number
