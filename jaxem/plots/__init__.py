"""Pictures of a fitted model and its data, drawn with matplotlib.

Every function draws on the axes it is given, or on those of a new figure, and returns them; the
figure is their `.figure`.  Nothing here touches pyplot: in a notebook make `axes.figure` the last
expression of a cell; in a program call `axes.figure.savefig(path)`.  Colours are those of Okabe &
Ito (2008), told apart by colour-blind eyes; markers, hatches and line styles differ as well, so
that a picture can be read in grey.
"""

from jaxem.plots.certificate import certificate as certificate
from jaxem.plots.criterion import criterion as criterion
from jaxem.plots.ctc import ctc as ctc
from jaxem.plots.hmm import hmm as hmm
from jaxem.plots.mixture import mixture as mixture
from jaxem.plots.trace import trace as trace
from jaxem.plots.transducer import transducer as transducer
from jaxem.plots.transitions import transitions as transitions
