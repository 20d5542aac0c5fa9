"""The making of the demo model: its corpus, its training in numpy alone, its export to GGUF, and its evaluation.

Run it as `python -m tools.demo_model --help`. It needs the extra `demo-model` (numpy, tokenizers, gguf).
"""
