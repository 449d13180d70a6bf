"""The command line: `jaxem fit`, `jaxem predict` and `jaxem sample`."""

from jaxem.cli.entry import main as main
