"""What the neurons of a (code) language model hold: redundancy, concepts, memories."""

from __future__ import annotations

from rlprune.analysis.clusters import CUTS, Dendrogram, cluster_sweep, clusters
from rlprune.analysis.correlation import correlation
from rlprune.analysis.labels import CLASSES, LANGUAGES, ROLES, token_labels
from rlprune.analysis.ranking import minimal_set, probeless, probeless_by_class
from rlprune.analysis.recording import Recording, record
from rlprune.analysis.tokens import Corpus, Source, Words, read, read_sources

__all__ = [
    "CLASSES",
    "CUTS",
    "LANGUAGES",
    "ROLES",
    "Corpus",
    "Dendrogram",
    "Recording",
    "Source",
    "Words",
    "cluster_sweep",
    "clusters",
    "correlation",
    "minimal_set",
    "probeless",
    "probeless_by_class",
    "read",
    "read_sources",
    "record",
    "token_labels",
]
