"""`jaxem certify`: the checks of a fitted model, and its standard errors."""

from argparse import Namespace
from typing import Any

from jaxem import em, plots
from jaxem.cli import model_file, models, output, picture
from jaxem.cli.columns import Choice
from jaxem.cli.read import read
from jaxem.comparison import certify, information
from jaxem.hmm import HMM
from jaxem.replacement import replace_file

FAILED = 1


def run(arguments: Namespace) -> int:
    """Print the certificate and write what was asked for; the exit status."""
    given = [arguments.data, arguments.model]
    output.check(arguments.json, "--json", given)
    output.check(arguments.plot, "--plot", [*given, arguments.json])
    picture.check(arguments.plot)
    saved = model_file.load(arguments.model)
    members = models.emission(saved).num_members
    table = read(arguments.data, Choice.of(arguments, members))
    rows = model_file.rows_for(saved, arguments.model, table, arguments.dtype)
    data = models.sequences_of(rows, table) if isinstance(saved, HMM) else rows
    model = em.cast(saved, arguments.dtype)  # symbols are integers, and would not cast it
    certificate = certify(model, data)
    blocks = [str(certificate)]
    if arguments.information:
        blocks.append(_information(model, data))
    if arguments.json is not None:
        record = certificate.to_json() + "\n"
        replace_file(arguments.json, lambda file: file.write(record.encode()))
    if arguments.plot is not None:
        drawn = picture.written(plots.certificate(certificate), arguments.plot)
        replace_file(arguments.plot, lambda file: file.write(drawn))
    output.print_text("\n\n".join(blocks))  # last: the reader of a pipe may have gone away
    return 0 if certificate.passed else FAILED


def _information(model: Any, data: Any) -> str:
    try:
        return str(information(model, data))
    except ValueError as error:  # bad input was refused before: this is no fixed point, or too big
        return str(error)
