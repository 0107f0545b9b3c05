"""``asgi-bridge replay``: the calls of a recording on today's plugins, and where an action differs."""

from .reader import Reader
from .replay import Replayed, Verdict, replay, replay_all
from .report import json_line, summary, text_lines

__all__ = ["Reader", "Replayed", "Verdict", "json_line", "replay", "replay_all", "summary", "text_lines"]
