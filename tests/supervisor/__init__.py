from pathlib import Path

HERE = Path(__file__).parent
"""Folder of sample.py and bounds.py, whose plugins the runners of these tests serve."""
