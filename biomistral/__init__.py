"""Build and measure medical language models: corpus, training, merging, quantization, evaluation.

Implements the system of "BioMistral: A Collection of Open-Source Pretrained Large Language
Models for Medical Domains" (Labrak et al., ACL 2024, arXiv 2402.10373).

Importing this package loads nothing else; import the room you need, for instance
``from biomistral.merging import merge``.
"""

__version__ = "0.1.0"
