"""Evidence as pictures: PNG strips and HTML pages, for answers and for relations. Needs Pillow (extra `viewer`)."""

from hf_causal_video.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "EvidenceCase": "answer",
        "RelationCase": "relations",
        "draw_relations": "relations_picture",
        "draw_strip": "answer_picture",
        "report_html": "answer_page",
        "save_relations": "relations_picture",
        "save_strip": "answer_picture",
        "write_report": "answer_page",
    },
)
