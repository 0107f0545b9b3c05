"""Our runner with the plugins of the benchmark, as ``asgi-bridge run benchmarks.plugins:bridge`` would start it.

``python -m benchmarks.runner SOCKET [asyncio|uvloop] [--frameworks] [--profile FILE] [--record FILE]``
"""

import argparse
import cProfile
import sys


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("uds")
    parser.add_argument("loop", choices=["asyncio", "uvloop"])
    parser.add_argument(
        "--profile", metavar="FILE", help="write a profile of cProfile to this file; stop the runner with Ctrl+C"
    )
    parser.add_argument("--record", metavar="FILE", help="record the calls in this file, as asgi-bridge run does")
    parser.add_argument("--frameworks", action="store_true", help="mount applications of frameworks too")
    args = parser.parse_args()
    if args.loop == "asyncio":
        # uvicorn uses uvloop if it can be imported
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    from asgi_bridge.server.serve import serve
    from benchmarks.plugins import bridge, with_frameworks

    plugins = (with_frameworks() if args.frameworks else bridge).plugins
    profile = cProfile.Profile() if args.profile else None
    if profile is not None:
        profile.enable()
    try:
        serve(plugins, uds=args.uds, log_level="warning", record=args.record, record_size=2**40)
    finally:
        if profile is not None:
            profile.disable()
            profile.dump_stats(args.profile)


if __name__ == "__main__":
    main()
