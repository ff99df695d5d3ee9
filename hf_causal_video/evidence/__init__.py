"""From answers to pictures that let anyone check them: the strip (PNG) and the report (one html file)."""

from hf_causal_video.evidence.case import EvidenceCase
from hf_causal_video.evidence.relation_case import RelationCase
from hf_causal_video.evidence.relations import draw_relations, save_relations
from hf_causal_video.evidence.report import report_html, write_report
from hf_causal_video.evidence.strip import draw_strip, save_strip

__all__ = [
    "EvidenceCase",
    "RelationCase",
    "draw_relations",
    "draw_strip",
    "report_html",
    "save_relations",
    "save_strip",
    "write_report",
]
