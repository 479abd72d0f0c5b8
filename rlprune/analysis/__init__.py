"""What the neurons of a (code) language model hold: redundancy, concepts, memories."""

from __future__ import annotations

from rlprune.analysis.clusters import CUTS, Dendrogram, cluster_sweep, clusters
from rlprune.analysis.concepts import Concept, concepts
from rlprune.analysis.correlation import correlation
from rlprune.analysis.editing import Edit, choose, edited, effects, token_losses
from rlprune.analysis.labels import CLASSES, LANGUAGES, ROLES, token_labels
from rlprune.analysis.lens import Agreement, layer_agreement
from rlprune.analysis.memories import concept_map, concept_rows
from rlprune.analysis.protect import ConceptLoss, labelled, protect, protective
from rlprune.analysis.ranking import minimal_set, probeless, probeless_by_class
from rlprune.analysis.recording import Recording, record
from rlprune.analysis.redundancy import Labelling, Redundancy, redundancy
from rlprune.analysis.study import Study
from rlprune.analysis.tokens import Corpus, Source, Words, read, read_sources
from rlprune.analysis.windows import TopWindows, top_windows

__all__ = [
    "CLASSES",
    "CUTS",
    "LANGUAGES",
    "ROLES",
    "Agreement",
    "Concept",
    "ConceptLoss",
    "Corpus",
    "Dendrogram",
    "Edit",
    "Labelling",
    "Recording",
    "Redundancy",
    "Source",
    "Study",
    "TopWindows",
    "Words",
    "choose",
    "cluster_sweep",
    "clusters",
    "concept_map",
    "concept_rows",
    "concepts",
    "correlation",
    "edited",
    "effects",
    "labelled",
    "layer_agreement",
    "minimal_set",
    "probeless",
    "probeless_by_class",
    "protect",
    "protective",
    "read",
    "read_sources",
    "record",
    "redundancy",
    "token_labels",
    "token_losses",
    "top_windows",
]
