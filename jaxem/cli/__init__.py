"""The command line: `jaxem fit`, `jaxem predict`, `jaxem sample` and `jaxem certify`."""

from jaxem.cli.entry import main as main
