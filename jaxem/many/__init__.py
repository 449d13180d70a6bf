"""Many fits in one call."""

from jaxem.many.batch import Batch as Batch
from jaxem.many.fit_batch import fit_batch as fit_batch
from jaxem.many.progress import Bar as Bar
from jaxem.many.result import SearchResult as SearchResult
from jaxem.many.search import search as search
